//! A run directory, read back from its text files.

mod losses;
mod read;
mod records;
mod sane;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::{fs, io};

use img2seg_data::{ClassTable, shown};

pub use losses::{Losses, Step};
pub use records::{
    Calibration, ColorAgreement, Epoch, EpochTime, Evaluation, ImageScore, Manifest, MeanLosses, Picture,
    ReliabilityBin, Scores,
};

use crate::ReportError;

/// A run as far as it has come: what is not there yet is empty.
#[derive(Clone, Debug)]
pub struct Run {
    /// The name of its directory.
    pub name: String,
    /// Its directory, as it was given.
    pub dir: PathBuf,
    /// The text of `config.toml`, the recipe with everything that was set on top of it.
    pub config: String,
    /// The same, read.
    pub settings: toml::Table,
    /// What ran, on what.
    pub manifest: Manifest,
    /// What the labels mean.
    pub classes: ClassTable,
    /// What every step lost.
    pub losses: Losses,
    /// The scores of every epoch, in order.
    pub metrics: Vec<Epoch>,
    /// The times of every epoch, in order.
    pub times: Vec<EpochTime>,
    /// One a split, in the order val, test, others by name, train: the first that is not train is the headline.
    pub evaluations: Vec<Evaluation>,
}

impl Run {
    /// Reads the directory of a run.
    ///
    /// # Errors
    /// [`ReportError::NotARun`] without `config.toml` and `classes.toml`; [`ReportError::Malformed`], with file and line, for a line
    /// that does not say what it should. A last line without its line feed is still being written and counts as not there.
    pub fn open(dir: &Path) -> Result<Self, ReportError> {
        let required = |file: &'static str| {
            read::text(&dir.join(file))?.ok_or(ReportError::NotARun { path: dir.to_owned(), missing: file })
        };
        let config = required("config.toml")?;
        let settings = settings(&dir.join("config.toml"), &config)?;
        let classes_path = dir.join("classes.toml");
        let classes = ClassTable::from_toml(&required("classes.toml")?, &shown(&classes_path))?;

        let metrics_path = dir.join("metrics.jsonl");
        let mut metrics = Vec::new();
        for (line, epoch) in read::json_lines::<Epoch>(&metrics_path)? {
            for scores in epoch.train.iter().chain(&epoch.val) {
                sane::scores(scores, &classes).map_err(|message| read::malformed(&metrics_path, line, message))?;
            }
            metrics.push(epoch);
        }

        Ok(Self {
            name: name(dir),
            dir: dir.to_owned(),
            settings,
            manifest: read::json(&dir.join("manifest.json"))?.unwrap_or_default(),
            losses: Losses::read(&dir.join("losses.txt"))?,
            metrics,
            times: read::json_lines(&dir.join("times.jsonl"))?.into_iter().map(|(_, time)| time).collect(),
            evaluations: evaluations(&dir.join("evaluation"), &classes)?,
            config,
            classes,
        })
    }

    /// The recipe that the run was started with.
    pub fn recipe(&self) -> Option<&str> {
        self.settings.get("recipe").and_then(toml::Value::as_str).or_else(|| self.manifest.text(&["recipe"]))
    }

    /// The evaluation that speaks for the run: val where there is one, never train.
    pub fn headline(&self) -> Option<&Evaluation> {
        self.evaluations.first().filter(|evaluation| evaluation.scores.split != "train")
    }

    /// The evaluation of a split.
    pub fn evaluation(&self, split: &str) -> Option<&Evaluation> {
        self.evaluations.iter().find(|evaluation| evaluation.scores.split == split)
    }
}

/// The last component of the directory's path, also of `.` and `runs/a/..`.
fn name(dir: &Path) -> String {
    let absolute = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    absolute.file_name().map_or_else(|| shown(dir), |name| shown(Path::new(name)))
}

fn settings(path: &Path, text: &str) -> Result<toml::Table, ReportError> {
    text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
        read::malformed(path, line, error.message().to_lowercase())
    })
}

fn evaluations(dir: &Path, classes: &ClassTable) -> Result<Vec<Evaluation>, ReportError> {
    let mut evaluations = Vec::new();
    for split in directories(dir)? {
        let scores_path = split.join("scores.json");
        let Some(mut evaluation) = read::json::<Evaluation>(&scores_path)? else { continue };
        sane::scores(&evaluation.scores, classes).map_err(|message| read::malformed(&scores_path, 1, message))?;
        evaluation.dir.clone_from(&split);
        let images_path = split.join("images.jsonl");
        for (line, image) in read::json_lines::<ImageScore>(&images_path)? {
            sane::image(&image, classes).map_err(|message| read::malformed(&images_path, line, message))?;
            evaluation.images.push(image);
        }
        for picture in directories(&split.join("pictures"))? {
            if let Some(score) = read::json(&picture.join("picture.json"))? {
                evaluation.pictures.push(Picture { score, dir: picture });
            }
        }
        evaluations.push(evaluation);
    }
    evaluations.sort_by_key(|evaluation| match evaluation.scores.split.as_str() {
        "val" => 0,
        "test" => 1,
        "train" => 3,
        _ => 2,
    });
    Ok(evaluations)
}

/// The directories in a directory, in the order of their names; none where there is no such directory.
fn directories(dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let unreadable = |source| ReportError::Unreadable { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(unreadable(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
