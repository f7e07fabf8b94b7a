//! `manifest.json`: what made a run what it is, besides its recipe; and whether that is still so.

mod changes;
mod data;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use img2seg_data::{ClassTable, Dataset, Split, read_text, shown};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::checkpoint::hex;
use crate::run_dir::write_whole;
use crate::{Learner, Place, RunConfig, RunDir, TrainingError};

pub use changes::{Change, check_evaluation, check_repetition};
pub use data::{SplitDigest, digest};

const FILE: &str = "manifest.json";

/// What the library cannot know of the program that uses it. What is empty is unknown, and not compared.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The program's version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// Whether its sources differed from that commit.
    pub dirty: Option<bool>,
    /// The compiler that built it.
    pub compiler: String,
    /// Versions of the libraries that results depend on.
    pub libraries: BTreeMap<String, String>,
    /// The device, in words.
    pub device: String,
    /// Threads of the CPU that the run may use.
    pub threads: usize,
    /// A folder where digests of files are kept, so that a file is read again only if its size or time has changed.
    pub cache: Option<PathBuf>,
}

/// What made a run what it is. A file of an older program lacks fields: what is not there is unknown, and not compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    program: String,
    version: String,
    commit: String,
    dirty: Option<bool>,
    compiler: String,
    libraries: BTreeMap<String, String>,
    recipe: String,
    recipe_digest: String,
    classes_digest: String,
    seed: Option<u64>,
    /// The file of weights that the run began with, where its seed did not draw them.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Weights>,
    device: String,
    cpu: Cpu,
    threads: usize,
    /// Trainable numbers by network.
    parameters: Map<String, Value>,
    data: Data,
    /// Each time that the run went on under other conditions: those above are the latest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resumed: Vec<Resumption>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Weights {
    file: String,
    sha256: String,
}

/// What the last bits of results depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Cpu {
    os: String,
    architecture: String,
    arithmetic: String,
    features: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Data {
    root: String,
    layout: String,
    train_images: usize,
    val_images: usize,
    /// Of both splits; those of older programs saw names and sizes only.
    digest: String,
    train: Option<SplitDigest>,
    val: Option<SplitDigest>,
}

/// A run went on after this many steps although something had changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Resumption {
    step: u64,
    changes: Vec<Change>,
}

impl Manifest {
    /// The manifest of a run of `config` at `place`, as things are now. Reads every file of the data that the cache does not know;
    /// `progress` is told the split, files done and all.
    pub fn new(
        config: &RunConfig,
        classes: &ClassTable,
        origin: &Origin,
        place: &Place,
        learner: &dyn Learner,
        [train, val]: [&Dataset; 2],
        progress: &(dyn Fn(Split, usize, usize) + Sync),
    ) -> Result<Self, TrainingError> {
        let digest = |dataset: &Dataset| {
            digest(dataset, origin.cache.as_deref(), &|done, total| progress(dataset.split(), done, total))
        };
        let digests = [digest(train)?, digest(val)?];
        let both: String = digests.iter().map(|digest| digest.sha256.as_str()).collect();
        let weights = |path: &Path| -> Result<Weights, TrainingError> {
            let bytes = std::fs::read(path).map_err(TrainingError::file(path))?;
            Ok(Weights { file: shown(path), sha256: sha256(&bytes) })
        };
        let [train_digest, val_digest] = digests;
        Ok(Self {
            program: "img2seg".to_owned(),
            version: origin.version.clone(),
            commit: origin.commit.clone(),
            dirty: origin.dirty,
            compiler: origin.compiler.clone(),
            libraries: origin.libraries.clone(),
            recipe: config.recipe.clone(),
            recipe_digest: sha256(config.to_toml()?.as_bytes()),
            classes_digest: sha256(classes.to_toml().as_bytes()),
            seed: Some(config.seed),
            weights: place.weights.map(weights).transpose()?,
            device: origin.device.clone(),
            cpu: Cpu {
                os: std::env::consts::OS.to_owned(),
                architecture: std::env::consts::ARCH.to_owned(),
                arithmetic: img2seg_ops::arithmetic().to_owned(),
                features: img2seg_ops::cpu_features().into_iter().map(str::to_owned).collect(),
            },
            threads: origin.threads,
            parameters: learner.networks().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect(),
            data: Data {
                root: place.root.display().to_string(),
                layout: layout(train),
                train_images: train.len(),
                val_images: val.len(),
                digest: sha256(both.as_bytes()),
                train: Some(train_digest),
                val: Some(val_digest),
            },
            resumed: Vec::new(),
        })
    }

    /// Reads the manifest of a run; one that is missing knows nothing.
    pub fn read(run: &RunDir) -> Result<Self, TrainingError> {
        let path = run.file(FILE);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: missing, so nobody knows whether anything has changed", shown(&path));
                return Ok(Self::default());
            }
            Err(error) => return Err(TrainingError::file(&path)(error)),
        };
        serde_json::from_str(&text).map_err(|error| TrainingError::checkpoint(&path, error.to_string()))
    }

    /// Files the manifest.
    pub fn write(&self, run: &RunDir) -> Result<(), TrainingError> {
        let text = serde_json::to_string_pretty(self).map_err(candle_core::Error::wrap)?;
        write_whole(&run.file(FILE), format!("{text}\n").as_bytes())
    }

    /// For a run that goes on after `step` steps, with `self` being how things are now: refuses what has changed, or notes it.
    ///
    /// # Errors
    /// [`TrainingError::Changed`] unless `allow_changes`.
    pub fn resume(mut self, run: &RunDir, step: u64, allow_changes: bool) -> Result<(), TrainingError> {
        let mut before = Self::read(run)?;
        self.weights.clone_from(&before.weights);
        let changes = changes::of_run(&before, &self).settle(&run.file(FILE), allow_changes)?;
        if changes.is_empty() && before != Self::default() {
            return Ok(());
        }
        self.resumed = std::mem::take(&mut before.resumed);
        self.resumed.push(Resumption { step, changes });
        self.write(run)
    }
}

/// The data root that a run was trained on.
pub fn data_root(run: &RunDir) -> Option<PathBuf> {
    let text = read_text(&run.file(FILE)).ok()?;
    let manifest: Manifest = serde_json::from_str(&text).ok()?;
    (!manifest.data.root.is_empty()).then(|| manifest.data.root.into())
}

fn layout(dataset: &Dataset) -> String {
    // serde spells it; a layout is a plain word.
    serde_json::to_value(dataset.layout()).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
