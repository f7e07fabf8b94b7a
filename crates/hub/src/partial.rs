use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::HubError;

/// A folder that is being written beside the place that it will take, `.NAME.partial`.
///
/// One process has it at a time. What an interrupted one left there is removed by the next, and an unfinished one goes when
/// it is dropped.
pub(crate) struct Partial {
    root: PathBuf,
    folder: PathBuf,
    /// Holds the lock; `None` once the folder has taken its place.
    lock: Option<File>,
}

const LOCK: &str = ".lock";

impl Partial {
    /// Makes the empty folder beside `root`, and the folders above both.
    pub(crate) fn claim(root: &Path) -> Result<Self, HubError> {
        let Some(name) = root.file_name() else {
            return Err(HubError::Occupied { root: root.to_owned(), holds: "not the name of a folder".to_owned() });
        };
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".partial");
        let folder = root.with_file_name(hidden);
        fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        let path = folder.join(LOCK);
        let lock = File::create(&path).map_err(HubError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HubError::Busy { root: root.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(HubError::io(&path)(error)),
        }
        let partial = Self { root: root.to_owned(), folder, lock: Some(lock) };
        for entry in fs::read_dir(&partial.folder).map_err(HubError::io(&partial.folder))? {
            let path = entry.map_err(HubError::io(&partial.folder))?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path).map_err(HubError::io(&path))?;
            } else if path.file_name() != Some(LOCK.as_ref()) {
                fs::remove_file(&path).map_err(HubError::io(&path))?;
            }
        }
        Ok(partial)
    }

    /// Where to write.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts the folder in its place.
    pub(crate) fn finish(mut self) -> Result<(), HubError> {
        let lock = self.folder.join(LOCK);
        fs::remove_file(&lock).map_err(HubError::io(lock))?;
        fs::rename(&self.folder, &self.root).map_err(HubError::io(&self.root))?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.lock.take().is_some() {
            // Nothing can be said about a failure here, and the next claim removes what is left.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sets/streets");
        let hidden = folder.path().join("sets/.streets.partial");

        let partial = Partial::claim(&root).unwrap();
        assert_eq!(partial.folder(), hidden);
        fs::write(partial.folder().join("a"), "a").unwrap();
        drop(partial);
        assert!(!hidden.exists() && !root.exists());

        let partial = Partial::claim(&root).unwrap();
        fs::write(partial.folder().join("b"), "b").unwrap();
        partial.finish().unwrap();
        let names: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["b"]);
        assert!(!hidden.exists());
    }

    #[test]
    fn what_an_interrupted_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let hidden = folder.path().join(".streets.partial");
        fs::create_dir_all(hidden.join("train/images")).unwrap();
        for file in [".lock", "hub.toml", "train/images/00000.png"] {
            fs::write(hidden.join(file), "old").unwrap();
        }
        Partial::claim(&folder.path().join("streets")).unwrap().finish().unwrap();
        assert_eq!(fs::read_dir(folder.path().join("streets")).unwrap().count(), 0);
    }

    #[test]
    fn one_process_has_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("streets");
        let partial = Partial::claim(&root).unwrap();
        fs::write(partial.folder().join("a"), "a").unwrap();
        let error = Partial::claim(&root).err().unwrap().to_string();
        assert_eq!(error, format!("{}: another process is writing it", root.display()));
        partial.finish().unwrap();
        assert!(root.join("a").exists());
    }

    #[test]
    fn a_root_needs_a_name() {
        assert!(Partial::claim(Path::new("/")).is_err());
        assert!(Partial::claim(Path::new("..")).is_err());
    }
}
