//! Class tables from TOML, checked entry by entry.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::nearest::NearestColor;
use super::text::MAX_BYTES;
use super::{Class, ClassTable, Entry};
use crate::{DataError, VOID};

/// As many as the values of an 8-bit mask.
const MAX_ENTRIES: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    name: String,
    void: Option<Spanned<Vec<usize>>>,
    class: Spanned<Vec<Spanned<FileEntry>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    color: [u8; 3],
    id: Option<i64>,
    train_id: Option<i64>,
}

impl ClassTable {
    /// Reads a table from TOML; `origin` is what errors call it.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, DataError> {
        let wrong = |span: Range<usize>, reason: String| {
            let line = 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
            DataError::ClassTable { origin: origin.to_owned(), line, reason }
        };
        if text.len() as u64 > MAX_BYTES {
            return Err(wrong(0..0, format!("more than {MAX_BYTES} bytes long")));
        }
        let file: FileTable = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let begin = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
            let line = text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or("").trim();
            wrong(span, format!("{}: {}", if line.is_empty() { "the table" } else { line }, error.message()))
        })?;
        let (entries_span, entries) = (file.class.span(), file.class.into_inner());
        if entries.len() > MAX_ENTRIES {
            return Err(wrong(entries_span, format!("class: {} entries, at most {MAX_ENTRIES} fit", entries.len())));
        }
        let ids_given = entries.iter().any(|entry| entry.get_ref().id.is_some());
        let train_ids_given = entries.iter().any(|entry| entry.get_ref().train_id.is_some());
        let void = void_positions(file.void, entries.len(), train_ids_given).map_err(|(span, why)| wrong(span, why))?;

        let mut table = Unchecked::new(ids_given, train_ids_given);
        for (position, entry) in entries.into_iter().enumerate() {
            let span = entry.span();
            table
                .push(entry.into_inner(), void[position])
                .map_err(|why| wrong(span, format!("class {position}: {why}")))?;
        }
        table.finish(file.name).map_err(|why| wrong(entries_span, format!("class: {why}")))
    }
}

/// For every entry, whether `void` lists it.
fn void_positions(
    void: Option<Spanned<Vec<usize>>>,
    entries: usize,
    train_ids_given: bool,
) -> Result<Vec<bool>, (Range<usize>, String)> {
    let mut is_void = vec![false; entries];
    let Some(void) = void else { return Ok(is_void) };
    let span = void.span();
    for position in void.into_inner() {
        if train_ids_given {
            return Err((span, "void: entries with train ids say by train_id = 255 that they are void".into()));
        }
        match is_void.get_mut(position) {
            Some(void) => *void = true,
            None => return Err((span, format!("void: {position} is not a position in 0..{entries}"))),
        }
    }
    Ok(is_void)
}

/// A table while its entries are added and checked one by one.
struct Unchecked {
    ids_given: bool,
    train_ids_given: bool,
    entries: Vec<Entry>,
    evaluated_names: HashMap<String, u8>,
    evaluated_colors: HashMap<[u8; 3], u8>,
    label_of_index: Vec<Option<u8>>,
    next_label: u8,
}

impl Unchecked {
    fn new(ids_given: bool, train_ids_given: bool) -> Self {
        Self {
            ids_given,
            train_ids_given,
            entries: Vec::new(),
            evaluated_names: HashMap::new(),
            evaluated_colors: HashMap::new(),
            label_of_index: vec![None; MAX_ENTRIES],
            next_label: 0,
        }
    }

    fn push(&mut self, entry: FileEntry, void: bool) -> Result<(), String> {
        let label = match entry.train_id {
            Some(-1 | 255) => VOID,
            Some(label @ 0..=254) => label as u8,
            Some(other) => return Err(format!("train_id: {other} is not in -1..=255")),
            None if void || self.train_ids_given => VOID,
            None if self.next_label == VOID => return Err("one class too many, 255 fit".into()),
            None => {
                self.next_label += 1;
                self.next_label - 1
            }
        };
        let id = match entry.id {
            Some(id @ -1..=255) => id,
            Some(other) => return Err(format!("id: {other} is not in -1..=255")),
            None if self.ids_given => return Err("id: missing, other entries have one".into()),
            None => self.entries.len() as i64,
        };
        if let Ok(index) = usize::try_from(id)
            && self.label_of_index[index].replace(label).is_some()
        {
            return Err(format!("id: {id} is taken"));
        }
        if label != VOID {
            // Entries may share a label; then they may share its name and colour.
            if self.evaluated_names.insert(entry.name.clone(), label).is_some_and(|other| other != label) {
                return Err(format!("name: {:?} is taken", entry.name));
            }
            if self.evaluated_colors.insert(entry.color, label).is_some_and(|other| other != label) {
                return Err(format!("color: {:?} is taken by another class", entry.color));
            }
        }
        self.entries.push(Entry { name: entry.name, color: entry.color, id, label });
        Ok(())
    }

    fn finish(self, name: String) -> Result<ClassTable, String> {
        let count =
            self.entries.iter().filter(|entry| entry.label != VOID).map(|entry| entry.label + 1).max().unwrap_or(0);
        if count == 0 {
            return Err("every entry is void".into());
        }
        let classes = (0..count)
            .map(|label| {
                let entry = self.entries.iter().find(|entry| entry.label == label);
                let entry = entry.ok_or_else(|| format!("train_id: {label} is missing, {} is there", count - 1))?;
                Ok(Class { name: entry.name.clone(), color: entry.color })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let (evaluated, void): (Vec<_>, Vec<_>) = self.entries.iter().partition(|entry| entry.label != VOID);
        let any: Vec<&Entry> = evaluated.into_iter().chain(void.iter().copied()).collect();
        Ok(ClassTable {
            name,
            void_color: void.first().map_or([0; 3], |entry| entry.color),
            any: NearestColor::new(any.iter().map(|entry| entry.color).collect()),
            any_labels: any.iter().map(|entry| entry.label).collect(),
            evaluated: NearestColor::new(classes.iter().map(|class| class.color).collect()),
            classes,
            ids_given: self.ids_given,
            train_ids_given: self.train_ids_given,
            label_of_index: self.label_of_index,
            entries: self.entries,
        })
    }
}
