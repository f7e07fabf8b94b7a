//! Digests of data: the names, the sizes and the contents of all files of a split.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use img2seg_data::{Dataset, shown};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::changes::short;
use super::sha256;
use crate::TrainingError;
use crate::checkpoint::hex;
use crate::run_dir::write_whole;

/// A file this young may be written again without its time showing it: it is not kept in the cache.
const SETTLED: Duration = Duration::from_secs(2);

/// The data of one split. It does not depend on where the data lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitDigest {
    /// Samples.
    pub images: usize,
    /// Of all files.
    pub bytes: u64,
    /// Over every sample's name and each of its files' size and SHA-256, in file order.
    pub sha256: String,
}

impl fmt::Display for SplitDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images {}", self.images, short(&self.sha256))
    }
}

/// A file's digest, and what tells that it is still that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileDigest {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    sha256: String,
}

/// Digests of files by their absolute paths.
type Known = BTreeMap<String, FileDigest>;

/// Digests a split, reading in parallel every file that the cache, a folder, does not know by its path, size and time.
///
/// A cache that cannot be read or written costs time, nothing else. `progress` is told files done and all.
pub fn digest(
    dataset: &Dataset,
    cache: Option<&Path>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<SplitDigest, TrainingError> {
    let cache = cache.and_then(|folder| cache_file(folder, dataset));
    let known = cache.as_deref().map(read_cache).unwrap_or_default();
    let files = |index| std::iter::once(dataset.path(index)).chain(dataset.mask_path(index));
    let paths: Vec<&Path> = (0..dataset.len()).flat_map(files).collect();
    let now = SystemTime::now();
    let done = AtomicUsize::new(0);
    let file_digest = |path: &&Path| {
        let digest = file_digest(path, &known)?;
        progress(1 + done.fetch_add(1, Ordering::Relaxed), paths.len());
        Ok(digest)
    };
    let digests: Vec<FileDigest> = paths.par_iter().map(file_digest).collect::<Result<_, TrainingError>>()?;

    let (mut hash, mut bytes, mut next) = (Sha256::new(), 0, digests.iter());
    for index in 0..dataset.len() {
        hash.update(dataset.name(index).as_bytes());
        hash.update([0]);
        for file in next.by_ref().take(files(index).count()) {
            hash.update(file.size.to_le_bytes());
            hash.update(file.sha256.as_bytes());
            bytes += file.size;
        }
        hash.update([1]);
    }
    if let Some(cache) = cache {
        let settled = now.checked_sub(SETTLED).and_then(nanoseconds).unwrap_or(0);
        let entries = paths.iter().zip(digests).filter(|(_, file)| file.modified > 0 && file.modified < settled);
        let kept: Known = entries.filter_map(|(path, file)| Some((absolute(path)?, file))).collect();
        if kept != known {
            write_cache(&cache, &kept);
        }
    }
    Ok(SplitDigest { images: dataset.len(), bytes, sha256: hex(&hash.finalize()) })
}

fn file_digest(path: &Path, known: &Known) -> Result<FileDigest, TrainingError> {
    // Before the content: what is written while it is read is younger than what is noted.
    let metadata = fs::metadata(path).map_err(TrainingError::file(path))?;
    if !metadata.is_file() {
        // Reading a named pipe would wait for its writer.
        return Err(TrainingError::file(path)(io::Error::other("not a regular file")));
    }
    let (size, modified) = (metadata.len(), modified(&metadata));
    let found = absolute(path).and_then(|path| known.get(&path));
    if let Some(found) = found.filter(|found| found.size == size && found.modified == modified && modified > 0) {
        return Ok(found.clone());
    }
    let bytes = fs::read(path).map_err(TrainingError::file(path))?;
    Ok(FileDigest { size: bytes.len() as u64, modified, sha256: sha256(&bytes) })
}

/// 0 where it is unknown.
fn modified(metadata: &Metadata) -> u64 {
    metadata.modified().ok().and_then(nanoseconds).unwrap_or(0)
}

fn nanoseconds(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// A path that is no text has no entry.
fn absolute(path: &Path) -> Option<String> {
    std::path::absolute(path).ok()?.into_os_string().into_string().ok()
}

/// One file a split, so that what no longer exists is forgotten with the next digest.
fn cache_file(folder: &Path, dataset: &Dataset) -> Option<PathBuf> {
    let key = format!("{} {}", dataset.split(), absolute(dataset.path(0).parent()?)?);
    Some(folder.join(format!("digests-{}.json", &sha256(key.as_bytes())[..16])))
}

fn read_cache(path: &Path) -> Known {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!("{}: {error}", shown(path));
            return Known::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::info!("{}: not read, and made anew: {error}", shown(path));
        Known::new()
    })
}

fn write_cache(path: &Path, known: &Known) {
    let write = || -> Result<(), TrainingError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(TrainingError::file(folder))?;
        write_whole(path, &serde_json::to_vec(known).map_err(candle_core::Error::wrap)?)
    };
    if let Err(error) = write() {
        tracing::info!("digests of the data are not kept: {error}");
    }
}
