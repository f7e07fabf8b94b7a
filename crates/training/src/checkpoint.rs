//! Checkpoints: directories that are written whole or not at all, and noticed when damaged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use img2seg_data::read_text;
use img2seg_models::{read_tensors, read_weights, save_weights};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::run_dir::{readable_by_all, sync_directory, unfinished_folder};
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
    /// Its directory's name. Older ones have a number behind it: `last-1` is the one before `last`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

/// What a checkpoint holds of a learner, by name.
#[derive(Debug, Clone)]
pub struct State {
    /// Parameters and running statistics.
    pub weights: BTreeMap<String, Tensor>,
    /// Their averages, which predict in their place; empty where the recipe has none.
    pub averages: BTreeMap<String, Tensor>,
    /// Moments and step counts.
    pub optimizer: BTreeMap<String, Tensor>,
}

impl State {
    /// The learner's state. It shares the learner's storage: it changes as the learner learns.
    pub fn of(learner: &dyn Learner) -> Result<Self, TrainingError> {
        let weights = learner.weights();
        let (weights, averages) = (weights.tensors(), weights.averages());
        Ok(Self { weights, averages, optimizer: learner.optimizer_state()? })
    }

    /// A copy that stays as it is.
    pub fn copy(&self) -> Result<Self, TrainingError> {
        let copy = |tensors: &BTreeMap<String, Tensor>| {
            tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.copy()?))).collect::<candle_core::Result<_>>()
        };
        let Self { weights, averages, optimizer } = self;
        Ok(Self { weights: copy(weights)?, averages: copy(averages)?, optimizer: copy(optimizer)? })
    }
}

/// `progress.json`: written last, it vouches for the other files and for itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressFile {
    #[serde(flatten)]
    progress: Progress,
    sha256: BTreeMap<String, String>,
}

const WEIGHTS: &str = "weights.safetensors";
const AVERAGES: &str = "ema.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "progress.json";

/// Saves a checkpoint as `last` or `best`, and keeps the `keep` newest of that name, this one among them.
///
/// It is written beside the others, synced, and renamed into place: at every moment a whole one is there.
pub fn save(run: &RunDir, which: Which, keep: usize, state: &State, progress: &Progress) -> Result<(), TrainingError> {
    let checkpoints = run.file("checkpoints");
    // Not `create_dir_all`: a run directory that is gone shall not come back without its recipe.
    match fs::create_dir(&checkpoints) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(TrainingError::file(&checkpoints)(error));
        }
        _ => {}
    }
    let target = checkpoints.join(which.name());
    let new = unfinished_folder(&checkpoints).map_err(TrainingError::file(&checkpoints))?;
    let mut sha256 = BTreeMap::new();
    let averages = Some((AVERAGES, &state.averages)).filter(|(_, averages)| !averages.is_empty());
    for (name, tensors) in [(WEIGHTS, &state.weights), (OPTIMIZER, &state.optimizer)].into_iter().chain(averages) {
        let (path, shown) = (new.path().join(name), target.join(name));
        save_weights(&path, tensors).map_err(|error| {
            let text = error.to_string();
            let cause = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text);
            TrainingError::checkpoint(&shown, cause)
        })?;
        let hash = || {
            readable_by_all(&path)?;
            let file = File::open(&path)?;
            file.sync_all()?;
            hash(file)
        };
        sha256.insert(name.to_owned(), hash().map_err(TrainingError::file(&shown))?);
    }
    sha256.insert(PROGRESS.to_owned(), own_hash(progress));
    let file = ProgressFile { progress: progress.clone(), sha256 };
    let text =
        serde_json::to_string_pretty(&file).map_err(|error| TrainingError::checkpoint(&target, error.to_string()))?;
    write_synced(&new.path().join(PROGRESS), &target.join(PROGRESS), text.as_bytes())?;
    let file_in_place = || {
        readable_by_all(new.path())?;
        sync_directory(new.path())?;
        shift(&checkpoints, which, keep.max(1), new.path())
    };
    file_in_place().map_err(TrainingError::file(&target))
}

/// Moves every checkpoint of a name one place back and puts the new one in front. Stopped anywhere, it leaves whole ones only,
/// perhaps with a gap in their numbers.
fn shift(checkpoints: &Path, which: Which, keep: usize, new: &Path) -> io::Result<()> {
    // Only as far as the first gap: what lies behind one has made room already.
    let gap = (0..keep).find(|&place| !checkpoints.join(place_name(which, place)).exists()).unwrap_or(keep);
    for place in (0..gap).rev() {
        let (from, to) = (checkpoints.join(place_name(which, place)), checkpoints.join(place_name(which, place + 1)));
        remove(checkpoints, &to)?;
        fs::rename(&from, &to)?;
    }
    fs::rename(new, checkpoints.join(which.name()))?;
    sync_directory(checkpoints)?;
    for (place, path) in places(checkpoints, which)? {
        if place >= keep {
            remove(checkpoints, &path)?;
        }
    }
    Ok(())
}

/// Removes a directory by way of a name that tells that it is not whole.
fn remove(checkpoints: &Path, path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let aside = unfinished_folder(checkpoints)?;
    fs::rename(path, aside.path().join("removed"))?;
    aside.close()
}

fn place_name(which: Which, place: usize) -> String {
    match place {
        0 => which.name().to_owned(),
        _ => format!("{}-{place}", which.name()),
    }
}

/// The checkpoints of a name, newest first, each with its place.
fn places(checkpoints: &Path, which: Which) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(checkpoints)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let place = match name.strip_prefix(which.name()) {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('-').and_then(|number| number.parse().ok()),
            None => None,
        };
        if let Some(place) = place
            && place_name(which, place) == name
        {
            places.push((place, path));
        }
    }
    places.sort_unstable();
    Ok(places)
}

/// Loads the weights of a checkpoint, and says where the run stood.
///
/// # Errors
/// When the checkpoint is missing, its files do not hash to what they did, or a tensor does not fit the network. Nothing is
/// loaded then.
pub fn load(run: &RunDir, which: Which, learner: &dyn Learner) -> Result<Progress, TrainingError> {
    let checkpoints = run.file("checkpoints");
    let found = places(&checkpoints, which).ok().and_then(|places| places.into_iter().next());
    let Some((_, directory)) = found else {
        return Err(TrainingError::checkpoint(&checkpoints.join(which.name()), "there is no such checkpoint"));
    };
    let file = read_progress(&directory)?;
    load_weights(&directory, &file, learner)?;
    Ok(file.progress)
}

/// Loads the weights and their averages.
fn load_weights(directory: &Path, file: &ProgressFile, learner: &dyn Learner) -> Result<(), TrainingError> {
    let weights = learner.weights();
    let tensors = read(directory, WEIGHTS, file)?;
    let averages = if weights.averages().is_empty() { None } else { Some(read(directory, AVERAGES, file)?) };
    weights.load(&tensors).map_err(does_not_fit(directory))?;
    averages.map_or(Ok(()), |averages| weights.load_averages(&averages)).map_err(does_not_fit(directory))
}

/// Where a run goes on.
#[derive(Debug)]
pub struct Resumed {
    /// Where it stood.
    pub progress: Progress,
    /// Whether that is what the checkpoint `last` holds. It is not where a run was killed between saving its best epoch as `best` and as
    /// `last`, or where `last` is damaged.
    pub is_last: bool,
    /// What was wrong with newer checkpoints. They are set aside as `checkpoints/damaged-NAME`.
    pub damaged: Vec<String>,
}

/// Loads the newest whole checkpoint, weights and optimisers; none if the run never made one. Only for who holds the lock.
///
/// # Errors
/// When all checkpoints are damaged, or do not fit the networks; the newest one's complaint is told.
pub fn resume(run: &RunDir, learner: &mut dyn Learner) -> Result<Option<Resumed>, TrainingError> {
    let checkpoints = run.file("checkpoints");
    let mut found = Vec::new();
    if checkpoints.exists() {
        for which in [Which::Last, Which::Best] {
            found.extend(places(&checkpoints, which).map_err(TrainingError::file(&checkpoints))?);
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    // The newest first; of one step, `last`. What cannot even be read counts as new: it is to be complained about.
    let mut candidates: Vec<_> = found.into_iter().map(|(_, path)| (read_progress(&path), path)).collect();
    candidates.sort_by_key(|(file, _)| {
        std::cmp::Reverse(
            file.as_ref().map_or((u64::MAX, u64::MAX), |file| (file.progress.steps, order_in_step(&file.progress))),
        )
    });
    let mut damaged: Vec<(PathBuf, TrainingError)> = Vec::new();
    for (file, directory) in candidates {
        let loaded = file.and_then(|file| {
            let optimizer = read(&directory, OPTIMIZER, &file)?;
            load_weights(&directory, &file, learner)?;
            learner.load_optimizer_state(&optimizer).map_err(does_not_fit(&directory))?;
            Ok(file.progress)
        });
        match loaded {
            Ok(progress) => {
                let complaints = damaged.iter().map(|(_, error)| error.to_string()).collect();
                for (path, _) in &damaged {
                    set_aside(&checkpoints, path)?;
                }
                let is_last = directory.file_name().is_some_and(|name| name == Which::Last.name());
                return Ok(Some(Resumed { progress, is_last, damaged: complaints }));
            }
            Err(error) => damaged.push((directory, error)),
        }
    }
    // At least one was found, so at least one is damaged.
    damaged.into_iter().next().map_or(Ok(None), |(_, error)| Err(error))
}

/// At the end of an epoch the same step is saved twice: before scoring, where a run is stopped there, and after it.
fn order_in_step(progress: &Progress) -> u64 {
    progress.epochs as u64
}

/// Gives a damaged checkpoint a name by which nobody loads it.
fn set_aside(checkpoints: &Path, path: &Path) -> Result<(), TrainingError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = std::iter::once(format!("damaged-{name}")).chain((2..).map(|n| format!("damaged-{name}-{n}")));
    let free = names.map(|name| checkpoints.join(name)).find(|path| !path.exists());
    free.map_or(Ok(()), |free| fs::rename(path, free)).map_err(TrainingError::file(path))
}

fn does_not_fit(directory: &Path) -> impl Fn(TrainingError) -> TrainingError {
    |error| TrainingError::checkpoint(directory, error.to_string())
}

fn read_progress(directory: &Path) -> Result<ProgressFile, TrainingError> {
    let path = directory.join(PROGRESS);
    let text = read_text(&path).map_err(TrainingError::file(&path))?;
    let file: ProgressFile =
        serde_json::from_str(&text).map_err(|error| TrainingError::checkpoint(&path, error.to_string()))?;
    if file.sha256.get(PROGRESS) != Some(&own_hash(&file.progress)) {
        return Err(TrainingError::checkpoint(&path, "damaged: its SHA-256 is not the one that stands in it"));
    }
    Ok(file)
}

/// The hash of what `progress.json` says, the hashes left out.
fn own_hash(progress: &Progress) -> String {
    let Progress { epochs, batches, steps, best } = progress;
    let best = best.map_or_else(String::new, |best| format!("{} {}", best.score, best.epoch));
    hex(&Sha256::digest(format!("{epochs} {batches} {steps} {best}")))
}

fn read(directory: &Path, name: &str, file: &ProgressFile) -> Result<BTreeMap<String, Tensor>, TrainingError> {
    let path = directory.join(name);
    let bytes = fs::read(&path).map_err(TrainingError::file(&path))?;
    if file.sha256.get(name) != Some(&hex(&Sha256::digest(&bytes))) {
        return Err(TrainingError::checkpoint(&path, "damaged: its SHA-256 is not the one in progress.json"));
    }
    // Moments may have overflowed; weights with a number that is not finite are of no use.
    let tensors = if name == OPTIMIZER { read_tensors(&bytes) } else { read_weights(&bytes) };
    tensors.map_err(|error| TrainingError::checkpoint(&path, error.to_string()))
}

/// SHA-256 of a file, a piece at a time.
fn hash(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&piece[..length]),
        }
    }
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

#[cfg(test)]
mod tests;
