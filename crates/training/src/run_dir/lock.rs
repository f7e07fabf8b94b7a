//! One run directory, one writer.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process;

use img2seg_data::shown;

use crate::TrainingError;

/// The file in a run directory that its writer holds locked. It has the writer's process id.
pub(super) const FILE: &str = "lock";

/// The right to write into a run directory, until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    file: File,
}

impl RunLock {
    /// Takes the lock of a directory.
    ///
    /// # Errors
    /// [`TrainingError::RunInUse`] with the other writer's process id.
    pub fn take(run: &Path) -> Result<Self, TrainingError> {
        let path = run.join(FILE);
        loop {
            let mut options = OpenOptions::new();
            let file = options.create(true).read(true).write(true).truncate(false).open(&path);
            let file = file.map_err(TrainingError::file(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(TrainingError::RunInUse { path: run.to_owned(), process: read_process(&file) });
                }
                Err(TryLockError::Error(error)) => {
                    // Some network file systems know no locks; a run there is not worth refusing.
                    tracing::warn!("{}: cannot be locked ({error}); two runs could write here", shown(&path));
                }
            }
            // The writer before may have removed the file after we opened it: the lock has to be on the one that others find.
            if is_still_at(&file, &path) {
                let mut lock = Self { path, file };
                lock.write_process().map_err(TrainingError::file(&lock.path))?;
                return Ok(lock);
            }
        }
    }

    fn write_process(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        write!(self.file, "{}", process::id())
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // What stays behind is harmless: a lock ends with its process.
        if cfg!(unix) {
            let _ = fs::remove_file(&self.path);
        } else {
            let _ = self.file.set_len(0);
        }
    }
}

/// The process id in the file; it may not be written yet.
fn read_process(mut file: &File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => identity(ours) == identity(theirs),
        _ => false,
    }
}

/// Elsewhere nobody removes it.
#[cfg(not(unix))]
fn is_still_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunLock::take(folder.path()).unwrap();
        let error = RunLock::take(folder.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{}: process {} is writing to this run", folder.path().display(), process::id()));
        drop(first);
        assert!(!folder.path().join(FILE).exists());
        RunLock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_lock_file_that_a_killed_process_left_locks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "123456789").unwrap();
        let lock = RunLock::take(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(&lock.path).unwrap(), process::id().to_string());
    }

    #[test]
    fn of_many_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let writers = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let Ok(_lock) = RunLock::take(folder.path()) else { continue };
                        assert_eq!(writers.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        // Long enough for others to open the file that is about to be removed.
                        std::thread::sleep(std::time::Duration::from_micros(20));
                        writers.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
