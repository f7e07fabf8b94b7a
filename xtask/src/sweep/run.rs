//! A run of a sweep: how far its directory says that it is, and what it came to.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::grid::{Grid, Row};
use super::recipe::Recipe;

/// One of a grid's rows with one of its seeds.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) row: &'a Row,
    pub(super) seed: u64,
    /// `ROW-seed-N`.
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) recipe: Recipe,
}

/// How far a run is, as its directory says.
#[derive(Debug, PartialEq)]
pub(super) enum State {
    /// Not begun.
    New,
    /// Stopped or killed with so many epochs done.
    Begun { epochs: u64 },
    /// Trained to its last epoch.
    Trained,
    /// Trained as something else than the grid now says.
    Changed { differences: Vec<String> },
}

/// What a trained and scored run came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) directory: PathBuf,
    pub(super) training_minutes: f64,
    /// With the scoring between epochs.
    pub(super) minutes: f64,
    /// Fractions; none where nothing was there to score, or the program has no such score.
    pub(super) scores: [Option<f64>; SCORES.len()],
}

/// Keys of `scores.json`, and what the table calls them.
pub(super) const SCORES: [(&str, &str); 3] =
    [("pixel_accuracy", "pixel accuracy"), ("mean_iou", "mean IoU"), ("boundary_f1", "boundary F1")];

/// All runs of a grid in `folder`: row by row, and seed by seed.
pub(super) fn all<'a>(grid: &'a Grid, folder: &Path) -> Result<Vec<Run<'a>>> {
    let pairs = grid.rows.iter().flat_map(|row| grid.seeds.iter().map(move |&seed| (row, seed)));
    let run = |(row, seed): (&'a Row, u64)| {
        let name = format!("{}-seed-{seed}", row.name);
        Ok(Run { row, seed, directory: folder.join(&name), name, recipe: Recipe::read(row, seed)? })
    };
    pairs.map(run).collect()
}

impl Run<'_> {
    pub(super) fn state(&self) -> Result<State> {
        let path = self.directory.join("config.toml");
        // The program writes it when everything else of a beginning is there.
        let Some(config) = optional(&path)? else { return Ok(State::New) };
        let differences = self.recipe.differences(&config).with_context(|| path.display().to_string())?;
        if !differences.is_empty() {
            return Ok(State::Changed { differences });
        }
        let epochs = self.progress("last")?.and_then(|progress| progress["epochs"].as_u64()).unwrap_or(0);
        let done = self.recipe.epochs().is_some_and(|all| epochs >= all);
        Ok(if done { State::Trained } else { State::Begun { epochs } })
    }

    /// Whether the best checkpoint's scores on a split are there.
    pub(super) fn is_scored(&self, split: &str) -> Result<bool> {
        let Some(scores) = self.json(&format!("evaluation/{split}/scores.json"))? else { return Ok(false) };
        let best = self.progress("best")?.map(|progress| progress["best"]["epoch"].clone());
        Ok(scores["checkpoint"] == "best" && best.is_some_and(|epoch| epoch.is_u64() && epoch == scores["epoch"]))
    }

    /// What a trained and scored run came to on a split.
    pub(super) fn outcome(&self, split: &str) -> Result<Outcome> {
        let name = format!("evaluation/{split}/scores.json");
        let scores =
            self.json(&name)?.with_context(|| format!("{}: is not there", self.directory.join(&name).display()))?;
        let times = optional(&self.directory.join("times.jsonl"))?.unwrap_or_default();
        let epochs: Vec<Value> = times.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let minutes = |key: &str| epochs.iter().filter_map(|epoch| epoch[key].as_f64()).sum::<f64>() / 60.0;
        let training_minutes = minutes("train_seconds");
        Ok(Outcome {
            seed: self.seed,
            directory: self.directory.clone(),
            training_minutes,
            minutes: training_minutes + minutes("evaluation_seconds"),
            scores: SCORES.map(|(key, _)| scores[key].as_f64()),
        })
    }

    fn progress(&self, checkpoint: &str) -> Result<Option<Value>> {
        self.json(&format!("checkpoints/{checkpoint}/progress.json"))
    }

    fn json(&self, name: &str) -> Result<Option<Value>> {
        let path = self.directory.join(name);
        let read = |text: String| serde_json::from_str(&text).with_context(|| path.display().to_string());
        optional(&path)?.map(read).transpose()
    }
}

fn optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
