//! What is not as it was when a run was made.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use img2seg_data::{Dataset, Split, shown};
use serde::{Deserialize, Serialize};

use super::{FILE, Manifest, Origin, SplitDigest, data, layout, sha256};
use crate::{RunDir, TrainingError};

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The thing.
    pub what: String,
    /// Its former value.
    pub was: String,
    /// Its present value.
    pub is: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, was, is } = self;
        // One line, whatever a manifest says.
        f.write_str(&shown(format!("{what} was {was}, is {is}").as_ref()))
    }
}

type Versions = BTreeMap<String, String>;

/// What has changed, by what follows from it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Other results.
    refused: Vec<Change>,
    /// Other results perhaps, perhaps intended ones.
    noted: Vec<Change>,
}

impl Changes {
    /// Notes or refuses a difference between two known values; an empty one is unknown.
    fn compare(&mut self, refuse: bool, what: &str, was: &str, is: &str) {
        if was.is_empty() || is.is_empty() || was == is {
            return;
        }
        let list = if refuse { &mut self.refused } else { &mut self.noted };
        list.push(Change { what: what.to_owned(), was: was.to_owned(), is: is.to_owned() });
    }

    fn compare_libraries(&mut self, refuse: bool, was: &Versions, is: &Versions) {
        for (name, was) in was {
            self.compare(refuse, &format!("library {name}"), was, is.get(name).map_or("", String::as_str));
        }
    }

    fn compare_split(&mut self, split: Split, before: &Manifest, is: &SplitDigest) {
        let Some(was) = before.split(split) else { return };
        self.compare(true, &format!("data of {split}"), &was.to_string(), &is.to_string());
    }

    /// Warns of what was noted, and of what was refused if that is allowed, and returns it all.
    ///
    /// # Errors
    /// [`TrainingError::Changed`] with all that is refused.
    pub(super) fn settle(mut self, path: &Path, allow: bool) -> Result<Vec<Change>, TrainingError> {
        if !self.refused.is_empty() && !allow {
            return Err(TrainingError::Changed { path: path.to_owned(), changes: self.refused });
        }
        self.refused.append(&mut self.noted);
        for change in &self.refused {
            tracing::warn!("{}: {change}", shown(path));
        }
        Ok(self.refused)
    }
}

impl Manifest {
    fn split(&self, split: Split) -> Option<&SplitDigest> {
        match split {
            Split::Train => self.data.train.as_ref(),
            Split::Val => self.data.val.as_ref(),
            Split::Test => None,
        }
    }
}

/// What makes the steps of a run others than they were. The number of threads does not.
pub(super) fn of_run(before: &Manifest, now: &Manifest) -> Changes {
    let mut changes = Changes::default();
    let seed = |manifest: &Manifest| manifest.seed.map(|seed| seed.to_string()).unwrap_or_default();
    changes.compare(true, "seed", &seed(before), &seed(now));
    changes.compare(true, "recipe (config.toml)", short(&before.recipe_digest), short(&now.recipe_digest));
    changes.compare(true, "class table", short(&before.classes_digest), short(&now.classes_digest));
    if let (Some(before), Some(now)) = (&before.weights, &now.weights) {
        changes.compare(true, &format!("weights ({})", now.file), short(&before.sha256), short(&now.sha256));
    }
    changes.compare(true, "data layout", &before.data.layout, &now.data.layout);
    for split in [Split::Train, Split::Val] {
        if let Some(is) = now.split(split) {
            changes.compare_split(split, before, is);
        }
    }
    changes.compare(true, "device", &before.device, &now.device);
    let (was, is) = (&before.cpu, &now.cpu);
    changes.compare(true, "operating system", &was.os, &is.os);
    changes.compare(true, "architecture", &was.architecture, &is.architecture);
    changes.compare(true, "arithmetic", &was.arithmetic, &is.arithmetic);
    changes.compare(true, "cpu features", &was.features.join(" "), &is.features.join(" "));
    changes.compare_libraries(true, &before.libraries, &now.libraries);
    let dirty = |manifest: &Manifest| match manifest.dirty {
        Some(true) => format!("{} with changes", manifest.commit),
        _ => manifest.commit.clone(),
    };
    changes.compare(false, "version", &before.version, &now.version);
    changes.compare(false, "commit", &dirty(before), &dirty(now));
    changes.compare(false, "compiler", &before.compiler, &now.compiler);
    changes
}

/// Whether `now`, a run that is to repeat the run at `original`, has what that was made of.
///
/// # Errors
/// [`TrainingError::Changed`] unless `allow_changes`.
pub fn check_repetition(original: &Path, now: &Manifest, allow_changes: bool) -> Result<(), TrainingError> {
    let run = RunDir::open(original)?;
    of_run(&Manifest::read(&run)?, now).settle(&run.file(FILE), allow_changes)?;
    Ok(())
}

/// Whether a run's scores on `dataset` would be scores of what it learned: recipe, classes and the data of the split, if it was
/// recorded, are those that the run knew. Other versions of libraries are warned of.
///
/// # Errors
/// [`TrainingError::Changed`] unless `allow_changes`.
pub fn check_evaluation(
    run: &RunDir,
    dataset: &Dataset,
    origin: &Origin,
    allow_changes: bool,
) -> Result<(), TrainingError> {
    let before = Manifest::read(run)?;
    let mut changes = Changes::default();
    let recipe = sha256(run.config()?.to_toml()?.as_bytes());
    let classes = sha256(run.classes()?.to_toml().as_bytes());
    changes.compare(true, "recipe (config.toml)", short(&before.recipe_digest), short(&recipe));
    changes.compare(true, "class table", short(&before.classes_digest), short(&classes));
    changes.compare(true, "data layout", &before.data.layout, &layout(dataset));
    if before.split(dataset.split()).is_some() {
        changes.compare_split(dataset.split(), &before, &data::digest(dataset, origin.cache.as_deref(), &|_, _| ())?);
    }
    changes.compare_libraries(false, &before.libraries, &origin.libraries);
    changes.settle(&run.file(FILE), allow_changes)?;
    Ok(())
}

/// As much of a digest as a reader compares.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
