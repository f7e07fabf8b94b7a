//! Checkpoints: directories that are written whole or not at all, and noticed when damaged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use img2seg_models::save_weights;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::run_dir::{readable_by_all, sync_directory};
use crate::{Learner, RunDir, TrainingError};

/// Where a run stood.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Whole epochs done.
    pub epochs: usize,
    /// Batches done of the epoch after them.
    pub batches: usize,
    /// Steps done over the whole run.
    pub steps: u64,
    /// The best score so far, and the epoch that had it.
    pub best: Option<Best>,
}

/// The best val score of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// A fraction.
    #[serde(with = "exact")]
    pub score: f64,
    /// Counted from 1.
    pub epoch: usize,
}

/// A float as a text: `serde_json` may read a number back one unit in the last place off, and a resumed run must compare with the very score.
mod exact {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which checkpoint of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Last,
    /// The one with the best val score.
    Best,
}

impl Which {
    /// Its directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

/// `progress.json`: written last, it vouches for the other files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressFile {
    #[serde(flatten)]
    progress: Progress,
    sha256: BTreeMap<String, String>,
}

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "progress.json";

/// Saves a learner. Until the last moment the checkpoint before stays where it is.
pub fn save(run: &RunDir, which: Which, learner: &dyn Learner, progress: &Progress) -> Result<(), TrainingError> {
    let checkpoints = run.file("checkpoints");
    fs::create_dir_all(&checkpoints).map_err(TrainingError::file(&checkpoints))?;
    let target = checkpoints.join(which.name());
    let new = tempfile::Builder::new()
        .prefix(".writing-")
        .tempdir_in(&checkpoints)
        .map_err(TrainingError::file(&checkpoints))?;

    let mut sha256 = BTreeMap::new();
    for (name, tensors) in [(WEIGHTS, learner.weights()), (OPTIMIZER, learner.optimizer_state()?)] {
        let (path, shown) = (new.path().join(name), target.join(name));
        save_weights(&path, &tensors).map_err(|error| {
            let text = error.to_string();
            let cause = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text);
            TrainingError::checkpoint(&shown, cause)
        })?;
        let bytes = fs::read(&path).and_then(|bytes| {
            readable_by_all(&path)?;
            File::open(&path)?.sync_all()?;
            Ok(bytes)
        });
        let bytes = bytes.map_err(TrainingError::file(&shown))?;
        sha256.insert(name.to_owned(), hex(&Sha256::digest(&bytes)));
    }
    let file = ProgressFile { progress: progress.clone(), sha256 };
    let text =
        serde_json::to_string_pretty(&file).map_err(|error| TrainingError::checkpoint(&target, error.to_string()))?;
    write_synced(&new.path().join(PROGRESS), &target.join(PROGRESS), text.as_bytes())?;

    let swap = || {
        readable_by_all(new.path())?;
        sync_directory(new.path())?;
        // A directory cannot be renamed over a full one: the old one steps aside, and `load` looks for it there.
        let previous = previous(&target);
        if target.exists() {
            if previous.exists() {
                fs::remove_dir_all(&previous)?;
            }
            fs::rename(&target, &previous)?;
        }
        fs::rename(new.path(), &target)?;
        sync_directory(&checkpoints)?;
        if previous.exists() { fs::remove_dir_all(&previous) } else { Ok(()) }
    };
    swap().map_err(TrainingError::file(&target))
}

/// Loads weights, and with `resume` the optimisers' state too, and says where the run stood.
///
/// # Errors
/// When the checkpoint is missing, its files do not hash to what they did, or a tensor does not fit the network. Nothing is
/// loaded then.
pub fn load(run: &RunDir, which: Which, learner: &mut dyn Learner, resume: bool) -> Result<Progress, TrainingError> {
    let directory = directory(run, which)?;
    let path = directory.join(PROGRESS);
    let text = fs::read_to_string(&path).map_err(TrainingError::file(&path))?;
    let file: ProgressFile =
        serde_json::from_str(&text).map_err(|error| TrainingError::checkpoint(&path, error.to_string()))?;
    let weights = read(&directory, WEIGHTS, &file)?;
    let fits = |error: TrainingError| TrainingError::checkpoint(&directory, error.to_string());
    if resume {
        let optimizer = read(&directory, OPTIMIZER, &file)?;
        learner.load_weights(&weights).map_err(fits)?;
        learner.load_optimizer_state(&optimizer).map_err(fits)?;
    } else {
        learner.load_weights(&weights).map_err(fits)?;
    }
    Ok(file.progress)
}

/// Whether the run has this checkpoint.
pub fn exists(run: &RunDir, which: Which) -> bool {
    directory(run, which).is_ok()
}

fn directory(run: &RunDir, which: Which) -> Result<PathBuf, TrainingError> {
    let target = run.file("checkpoints").join(which.name());
    let previous = previous(&target);
    if target.is_dir() {
        Ok(target)
    } else if previous.is_dir() {
        // Stopped between the two renames of `save`.
        Ok(previous)
    } else {
        Err(TrainingError::checkpoint(&target, "there is no such checkpoint"))
    }
}

fn previous(target: &Path) -> PathBuf {
    target.with_extension("previous")
}

fn read(directory: &Path, name: &str, file: &ProgressFile) -> Result<BTreeMap<String, Tensor>, TrainingError> {
    let path = directory.join(name);
    let bytes = fs::read(&path).map_err(TrainingError::file(&path))?;
    if file.sha256.get(name) != Some(&hex(&Sha256::digest(&bytes))) {
        return Err(TrainingError::checkpoint(&path, "damaged: its SHA-256 is not the one in progress.json"));
    }
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
    Ok(tensors.into_iter().collect())
}

/// Writes and syncs a file; an error names the place where the file was to end up.
fn write_synced(path: &Path, shown: &Path, bytes: &[u8]) -> Result<(), TrainingError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(TrainingError::file(shown))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
