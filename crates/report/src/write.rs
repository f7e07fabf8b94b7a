//! Pages as files.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};

use crate::ReportError;
use crate::comparison::Comparison;
use crate::comparison::figure::figure_png;
use crate::confusion::confusion_png;
use crate::page;
use crate::run::Run;

/// Writes `report.html` into a run's directory and returns its path; and beside the scores of each evaluation `confusion.png`.
///
/// The page stands for itself: styles, figures and pictures are inside, and it runs no script. What the run does not have yet is left out.
///
/// # Errors
/// Those of [`Run::open`], [`ReportError::Picture`] for an evaluation's picture that is broken, [`ReportError::Unwritable`]. The
/// page that was there is replaced by the whole new one or not at all.
pub fn write(run_dir: &Path) -> Result<PathBuf, ReportError> {
    let run = Run::open(run_dir)?;
    let page = page::single(&run)?;
    for evaluation in run.evaluations.iter().filter(|evaluation| !evaluation.scores.confusion.is_empty()) {
        let file = confusion_png(&evaluation.scores.confusion, &run.classes)?;
        replace(&evaluation.dir.join("confusion.png"), &file)?;
    }
    replace(&run_dir.join("report.html"), page.as_bytes())
}

/// What a comparison left and found.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The page, `report.html`.
    pub page: PathBuf,
    /// Who is better, how sure that is, and at what cost, in Markdown: the shorter half of `comparison.md`.
    pub summary: String,
}

/// Compares evaluated runs: writes `report.html`, `comparison.md`, `comparison.json` and `comparison.png` (photo, truth and predictions of some
/// images) into `out_dir`, which is made where it is missing, and returns the page's path and a summary. Runs are shown in the order
/// given, images matched by name; the first is what the others are held against.
///
/// # Errors
/// Those of [`write`](fn@write), and [`ReportError::NoRuns`], [`ReportError::NotEvaluated`], [`ReportError::DifferentClasses`]; the last two name all
/// runs at fault. Runs that saw different data or were evaluated on different splits are compared, and the page says so.
pub fn compare(run_dirs: &[PathBuf], out_dir: &Path) -> Result<Compared, ReportError> {
    let runs = run_dirs.iter().map(|dir| Run::open(dir)).collect::<Result<Vec<_>, _>>()?;
    let comparison = Comparison::of(&runs)?;
    let pairs = comparison.pairs();
    let page = page::several(&comparison, &pairs)?;
    let figure = figure_png(&comparison.columns)?;
    fs::create_dir_all(out_dir).map_err(|source| ReportError::Unwritable { path: out_dir.to_owned(), source })?;
    replace(&out_dir.join("comparison.json"), format!("{:#}\n", comparison.json(&pairs)).as_bytes())?;
    replace(&out_dir.join("comparison.md"), comparison.markdown(&pairs).as_bytes())?;
    replace(&out_dir.join("comparison.png"), &figure)?;
    let page = replace(&out_dir.join("report.html"), page.as_bytes())?;
    Ok(Compared { page, summary: comparison.summary(&pairs) })
}

/// A picture as a PNG file; `what` names it in an error.
pub(crate) fn png(picture: &RgbImage, what: &str) -> Result<Vec<u8>, ReportError> {
    let mut file = Cursor::new(Vec::new());
    picture
        .write_to(&mut file, ImageFormat::Png)
        .map_err(|error| ReportError::Encoding { what: what.to_owned(), message: error.to_string() })?;
    Ok(file.into_inner())
}

/// Puts a file in place whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<PathBuf, ReportError> {
    let whole = || -> std::io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        // Temporary files are their owner's alone; a report is to be read, as far as the umask lets it.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    whole().map_err(|source| ReportError::Unwritable { path: path.to_owned(), source })?;
    Ok(path.to_owned())
}
