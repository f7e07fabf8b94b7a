//! Sets of scenes as files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{FIRST_VAL, StreetsConfig, scene};
use crate::{DataError, Direction, Split, write_pair};

/// What scenes look like for a given seed and index; raised with every change of that, so that old sets are told from new ones.
const VERSION: u32 = 1;

/// The name of the file that says which scenes a folder holds.
const STAMP: &str = "streets.toml";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    version: u32,
    streets: StreetsConfig,
}

/// Where a set of scenes lies unless somebody says otherwise: `data/streets/WIDTHxHEIGHT-TRAIN+VAL-seedSEED`.
pub fn default_root(config: &StreetsConfig) -> PathBuf {
    let StreetsConfig { train, val, height, width, seed } = config;
    Path::new("data").join("streets").join(format!("{width}x{height}-{train}+{val}-seed{seed}"))
}

/// Writes the scenes as side-by-side pairs, photo left, to `root/{train,val}/NNNNN.png`, and their settings to
/// `root/streets.toml`.
///
/// They are made in parallel; `progress(done, total)` is called after each, from any thread. Everything is written to a hidden
/// folder beside `root` that gets its name at the end: an interrupted call leaves no `root`. A `root` that exists is an error,
/// unless it is an empty folder.
pub fn write(root: &Path, config: &StreetsConfig, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<(), DataError> {
    config.validate()?;
    if fs::read_dir(root).map_or_else(|_| root.exists(), |mut entries| entries.next().is_some()) {
        return Err(other(root, "is there already".into()));
    }
    let parent = match root.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(DataError::io(parent))?;
    let hidden = tempfile::Builder::new().prefix(".streets-").tempdir_in(parent).map_err(DataError::io(parent))?;
    // One level deeper, because temporary folders are closed to other users.
    let set = hidden.path().join("set");
    for split in [Split::Train, Split::Val] {
        let folder = set.join(split.name());
        fs::create_dir_all(&folder).map_err(DataError::io(&folder))?;
    }
    let done = AtomicUsize::new(0);
    let total = config.train + config.val;
    (0..total).into_par_iter().try_for_each(|job| {
        let (split, number, index) = match job.checked_sub(config.train) {
            None => (Split::Train, job, job as u64),
            Some(number) => (Split::Val, number, FIRST_VAL + number as u64),
        };
        let sample = scene(config.seed, index, config.height, config.width);
        let path = set.join(split.name()).join(format!("{number:05}.png"));
        write_pair(&path, &sample.photo, &sample.label_map, Direction::PhotoLeft)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Ok::<(), DataError>(())
    })?;
    let stamp = Stamp { version: VERSION, streets: config.clone() };
    let text = toml::to_string(&stamp).map_err(|error| other(root, error.to_string()))?;
    fs::write(set.join(STAMP), text).map_err(DataError::io(root.join(STAMP)))?;
    fs::rename(&set, root).or_else(|source| {
        // Somebody else may have finished the same set in the meantime.
        if is_there(root, config)? { Ok(()) } else { Err(DataError::Io { path: root.to_owned(), source }) }
    })
}

/// Makes sure that `root` holds the scenes of `config`: [`write()`]s them where there is nothing, does nothing where
/// `streets.toml` says that they are there. Other scenes, or other files, are an error.
pub fn ensure(root: &Path, config: &StreetsConfig, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<(), DataError> {
    config.validate()?;
    if is_there(root, config)? { Ok(()) } else { write(root, config, progress) }
}

/// Whether `root` holds these scenes; an error where it holds others.
fn is_there(root: &Path, config: &StreetsConfig) -> Result<bool, DataError> {
    let path = root.join(STAMP);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let used = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
            return if used { Err(other(root, format!("holds other files: no {STAMP} in it"))) } else { Ok(false) };
        }
        Err(source) => return Err(DataError::Io { path, source }),
    };
    let stamp: Stamp = toml::from_str(&text).map_err(|error| other(&path, error.message().to_owned()))?;
    if stamp.version != VERSION {
        let reason =
            format!("scenes of version {}, this program makes version {VERSION}: remove the folder", stamp.version);
        return Err(other(&path, reason));
    }
    let (there, wanted) = (&stamp.streets, config);
    let differs = [
        ("train", there.train as u64, wanted.train as u64),
        ("val", there.val as u64, wanted.val as u64),
        ("height", there.height as u64, wanted.height as u64),
        ("width", there.width as u64, wanted.width as u64),
        ("seed", there.seed, wanted.seed),
    ];
    match differs.iter().find(|(_, there, wanted)| there != wanted) {
        None => Ok(true),
        Some((key, there, wanted)) => {
            Err(other(&path, format!("{key} is {there}, not the {wanted} that is asked for")))
        }
    }
}

fn other(path: &Path, reason: String) -> DataError {
    DataError::Streets { path: path.to_owned(), reason }
}
