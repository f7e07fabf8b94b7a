//! A file that grows by whole records, however the disk behaves.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::TrainingError;

/// A file that grows at its end. What could not be written stays in memory, and the next [`AppendFile::write`] tries again.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    /// Bytes of the file that are ours; what a failed attempt left beyond them is cut off.
    length: u64,
    pending: Vec<u8>,
}

impl AppendFile {
    /// A file of which the first `length` bytes are kept. The others are cut off at once.
    pub(crate) fn open(path: &Path, length: u64) -> Result<Self, TrainingError> {
        let cut = || match fs::metadata(path) {
            Ok(metadata) if metadata.len() == length => Ok(()),
            Ok(_) => OpenOptions::new().write(true).open(path)?.set_len(length),
            Err(error) if error.kind() == io::ErrorKind::NotFound && length == 0 => Ok(()),
            Err(error) => Err(error),
        };
        cut().map_err(TrainingError::file(path))?;
        Ok(Self { path: path.to_owned(), length, pending: Vec::new() })
    }

    /// Whether nothing was ever written or pushed.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0 && self.pending.is_empty()
    }

    /// Appends bytes, in memory for now.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Writes what waits, and with `sync` has it put on the disk.
    ///
    /// # Errors
    /// When the file cannot be written, or is shorter than what was written to it: somebody has replaced it. Everything then still waits.
    pub(crate) fn write(&mut self, sync: bool) -> Result<(), TrainingError> {
        self.try_write(sync).map_err(TrainingError::file(&self.path))
    }

    fn try_write(&mut self, sync: bool) -> io::Result<()> {
        if self.pending.is_empty() && (!sync || self.length == 0) {
            return Ok(()); // a file appears with its first bytes
        }
        let mut file = OpenOptions::new().create(self.length == 0).write(true).truncate(false).open(&self.path)?;
        let length = file.metadata()?.len();
        if length < self.length {
            return Err(io::Error::other(format!("shrank from {} to {length} bytes", self.length)));
        }
        if length > self.length {
            file.set_len(self.length)?;
        }
        file.seek(SeekFrom::Start(self.length))?;
        file.write_all(&self.pending)?;
        if sync {
            file.sync_data()?;
        }
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, aside) = (folder.path().join("run"), folder.path().join("aside"));
        fs::create_dir(&inner).unwrap();
        let path = inner.join("losses.txt");
        let mut file = AppendFile::open(&path, 0).unwrap();
        assert!(file.is_empty());
        file.write(true).unwrap();
        assert!(!path.exists());
        file.push(b"1\n");
        file.write(true).unwrap();

        // Its folder is gone for a while.
        fs::rename(&inner, &aside).unwrap();
        file.push(b"2\n");
        let error = file.write(true).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        // Somebody has made another: that is no place to go on.
        fs::create_dir(&inner).unwrap();
        file.write(true).unwrap_err();
        assert!(!path.exists());
        fs::remove_dir(&inner).unwrap();
        fs::rename(&aside, &inner).unwrap();

        // Half a record of a failed attempt is cut off.
        fs::write(&path, "1\n2 and more than comes now").unwrap();
        file.push(b"3\n");
        file.write(false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n3\n");

        fs::write(&path, "1").unwrap();
        file.push(b"4\n");
        assert!(file.write(false).unwrap_err().to_string().ends_with("shrank from 6 to 1 bytes"));
    }

    #[test]
    fn what_is_not_kept_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "one\ntwo\n").unwrap();
        AppendFile::open(&path, 4).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        AppendFile::open(&folder.path().join("none"), 3).unwrap_err();
    }
}
