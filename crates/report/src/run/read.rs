//! Text files of a run: absent is an answer, malformed is an error with its line.

use std::path::Path;
use std::{fs, io};

use serde::de::DeserializeOwned;

use crate::ReportError;

/// The text of a file, or nothing where there is no such file.
pub(super) fn text(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Unreadable { path: path.to_owned(), source }),
    }
}

/// One JSON value, or nothing where there is no such file.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    let Some(text) = text(path)? else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(malformed(path, error.line().max(1), json_message(&error))),
    }
}

/// One JSON value a line with the number of that line; none where there is no such file.
pub(super) fn json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<(usize, T)>, ReportError> {
    let text = text(path)?.unwrap_or_default();
    lines(&text)
        .map(|(number, line)| match serde_json::from_str(line) {
            Ok(value) => Ok((number, value)),
            Err(error) => Err(malformed(path, number, json_message(&error))),
        })
        .collect()
}

/// Numbered lines. A line without its line feed is still being written by the run, and left out.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let written = text.rfind('\n').map_or("", |end| &text[..=end]);
    written.lines().enumerate().map(|(index, line)| (index + 1, line))
}

pub(super) fn malformed(path: &Path, line: usize, message: impl Into<String>) -> ReportError {
    ReportError::Malformed { path: path.to_owned(), line, message: message.into() }
}

/// What serde says, without the line that it counts inside one record.
fn json_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => format!("{} (column {})", &text[..end], error.column()),
        None => text,
    }
}
