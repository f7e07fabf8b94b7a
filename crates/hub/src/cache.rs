//! The local Hub cache: `datasets--OWNER--NAME/{refs/REVISION,snapshots/COMMIT/FILE,blobs}`, shared with Python's libraries.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::shards::{Shard, first_gap};
use crate::{DataSetName, HubError};

/// The branch in which the Hub keeps its own conversion to parquet, and which `candle_datasets::hub` downloads.
pub(crate) const CONVERTED: &str = "refs/convert/parquet";

/// A data set's parquet files as of one commit.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) folder: PathBuf,
    pub(crate) commit: String,
    /// In order of their names; at least one.
    pub(crate) shards: Vec<Shard>,
}

/// What the cache has of a data set.
#[derive(Debug)]
pub(crate) enum Cached {
    Whole(Snapshot),
    /// Nothing that can be used, and why.
    Lacking(String),
}

/// The folder of a data set in a cache.
pub(crate) fn folder_name(name: &DataSetName) -> String {
    format!("datasets--{}", name.repository().replace('/', "--"))
}

/// Where the cache notes the commit of [`CONVERTED`].
pub(crate) fn converted_ref(cache: &Path, name: &DataSetName) -> PathBuf {
    cache.join(folder_name(name)).join("refs").join(CONVERTED)
}

/// Stands in a data set's folder while we download into it: file names alone do not tell how many there will be.
pub(crate) fn download_mark(cache: &Path, name: &DataSetName) -> PathBuf {
    cache.join(folder_name(name)).join(".img2seg-download")
}

/// Looks for a data set: first the Hub's conversion, then the parquet files of its main branch.
pub(crate) fn find(cache: &Path, name: &DataSetName) -> Result<Cached, HubError> {
    let folder = cache.join(folder_name(name));
    let mut lacking = format!("{} has no parquet file", folder_name(name));
    if !folder.exists() {
        lacking = format!("no {} in it", folder_name(name));
    }
    for revision in [CONVERTED, "main"] {
        let Some(commit) = commit_of(&folder.join("refs").join(revision))? else { continue };
        if revision == CONVERTED && download_mark(cache, name).exists() {
            "its download was cut off".clone_into(&mut lacking);
            continue;
        }
        let snapshot = folder.join("snapshots").join(&commit);
        let mut files = Vec::new();
        list_parquet(&snapshot, "", &mut files)?;
        files.sort();
        let shards: Vec<_> = files.iter().map(|file| Shard::new(file)).collect();
        if shards.is_empty() {
            continue;
        }
        // A file of a snapshot links to a blob, and blobs are what people delete to make room.
        let broken =
            files.iter().find(|file| !snapshot.join(file).is_file()).map(|file| format!("{file} is a broken link"));
        match broken.or_else(|| first_gap(&shards)) {
            None => return Ok(Cached::Whole(Snapshot { folder: snapshot, commit, shards })),
            Some(gap) => lacking = gap,
        }
    }
    Ok(Cached::Lacking(lacking))
}

/// The commit that a ref's file holds, if it is there and could be one.
fn commit_of(path: &Path) -> Result<Option<String>, HubError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(HubError::io(path)(error)),
    };
    let commit = text.trim();
    let is_name = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Ok(is_name.then(|| commit.to_owned()))
}

/// Adds the parquet files below a folder as paths from the snapshot's top; a folder that is not there has none.
fn list_parquet(folder: &Path, above: &str, files: &mut Vec<String>) -> Result<(), HubError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HubError::io(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(HubError::io(folder))?;
        let kind = entry.file_type().map_err(HubError::io(entry.path()))?;
        // Parquet files and folders with other names were not written by any Hub library.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let file = if above.is_empty() { name } else { format!("{above}/{name}") };
        // Files are links; folders never are, so that a walk ends.
        if kind.is_dir() {
            list_parquet(&entry.path(), &file, files)?;
        } else if Path::new(&file).extension().is_some_and(|extension| extension == "parquet") {
            files.push(file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn lacking(cache: &Path, name: &DataSetName) -> String {
        match find(cache, name).unwrap() {
            Cached::Lacking(lacking) => lacking,
            Cached::Whole(snapshot) => panic!("{snapshot:?}"),
        }
    }

    #[test]
    fn the_conversion_comes_before_the_main_branch() {
        let cache = tempfile::tempdir().unwrap();
        let name: DataSetName = "owner/streets".parse().unwrap();
        let folder = cache.path().join("datasets--owner--streets");
        assert_eq!(lacking(cache.path(), &name), "no datasets--owner--streets in it");

        write(&folder.join("refs/main"), "aaa\n");
        write(&folder.join("snapshots/aaa/README.md"), "");
        assert_eq!(lacking(cache.path(), &name), "datasets--owner--streets has no parquet file");

        write(&folder.join("snapshots/aaa/data/train-00000-of-00001.parquet"), "");
        let Cached::Whole(main) = find(cache.path(), &name).unwrap() else { panic!("not found") };
        assert_eq!((main.commit.as_str(), main.shards.len()), ("aaa", 1));

        write(&converted_ref(cache.path(), &name), "bbb");
        write(&folder.join("snapshots/bbb/default/train/0000.parquet"), "");
        write(&folder.join("snapshots/bbb/default/train/0001.parquet"), "");
        let Cached::Whole(converted) = find(cache.path(), &name).unwrap() else { panic!("not found") };
        assert_eq!(converted.commit, "bbb");
        let files: Vec<_> = converted.shards.iter().map(|shard| shard.file.as_str()).collect();
        assert_eq!(files, ["default/train/0000.parquet", "default/train/0001.parquet"]);
    }

    #[test]
    fn a_snapshot_that_is_not_whole_is_not_used() {
        let cache = tempfile::tempdir().unwrap();
        let name: DataSetName = "owner/streets".parse().unwrap();
        let folder = cache.path().join("datasets--owner--streets");
        write(&converted_ref(cache.path(), &name), "bbb");
        write(&folder.join("snapshots/bbb/default/train/0001.parquet"), "");
        assert_eq!(lacking(cache.path(), &name), "1 of the 2 train files in default/train are there");

        write(&folder.join("snapshots/bbb/default/train/0000.parquet"), "");
        assert!(matches!(find(cache.path(), &name).unwrap(), Cached::Whole(_)));
        write(&download_mark(cache.path(), &name), "");
        assert_eq!(lacking(cache.path(), &name), "its download was cut off");
        fs::remove_file(download_mark(cache.path(), &name)).unwrap();

        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../gone", folder.join("snapshots/bbb/default/train/0002.parquet")).unwrap();
            assert_eq!(lacking(cache.path(), &name), "default/train/0002.parquet is a broken link");
        }
    }

    #[test]
    fn a_ref_is_not_followed_out_of_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let name: DataSetName = "owner/streets".parse().unwrap();
        let folder = cache.path().join("datasets--owner--streets");
        write(&cache.path().join("elsewhere/train.parquet"), "");
        for hostile in ["../../elsewhere", "", "/etc", "a/b", ".."] {
            write(&folder.join("refs/main"), hostile);
            assert_eq!(lacking(cache.path(), &name), "datasets--owner--streets has no parquet file", "{hostile}");
        }
    }
}
