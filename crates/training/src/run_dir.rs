//! The directory of one run: what is where, and how it is written.

mod lock;
mod records;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use img2seg_data::{ClassTable, read_text, shown};
pub use lock::RunLock;
pub(crate) use records::Records;

use crate::{RunConfig, TrainingError};

/// How the names of files and folders begin that are being written, or removed.
const UNFINISHED: &str = ".writing-";

/// The directory of one run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory of a new run, locks it, and files the class table there. It is a run once it has a recipe:
    /// [`RunDir::begin`].
    ///
    /// # Errors
    /// [`TrainingError::RunExists`] when the path is a directory with other things in it than what a run leaves that was killed
    /// before it began; [`TrainingError::RunInUse`] when another process has locked it.
    pub fn create(path: &Path, classes: &ClassTable) -> Result<(Self, RunLock), TrainingError> {
        let refuse_occupied = || match is_occupied(path) {
            Ok(true) => Err(TrainingError::RunExists { path: path.to_owned() }),
            Ok(false) => Ok(()),
            Err(error) => Err(TrainingError::file(path)(error)),
        };
        refuse_occupied()?;
        fs::create_dir_all(path).map_err(TrainingError::file(path))?;
        let lock = RunLock::take(path)?;
        // Another process may have been quicker between the look and the lock.
        refuse_occupied()?;
        let run = Self { path: path.to_owned() };
        run.clear_unfinished()?;
        write_whole(&run.file("classes.toml"), classes.to_toml().as_bytes())?;
        Ok((run, lock))
    }

    /// Files the recipe: from now on the directory is a run, and can be resumed.
    pub fn begin(&self, config: &RunConfig) -> Result<(), TrainingError> {
        write_whole(&self.file("config.toml"), config.to_toml()?.as_bytes())
    }

    /// Removes what a killed process had begun to write. Only for who holds the lock.
    pub fn clear_unfinished(&self) -> Result<(), TrainingError> {
        for folder in ["", "samples", "checkpoints", "diverged"].map(|name| self.file(name)) {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(TrainingError::file(&folder)(error)),
            };
            for entry in entries {
                let path = entry.map_err(TrainingError::file(&folder))?.path();
                if is_unfinished(&path) {
                    let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                    removed.map_err(TrainingError::file(&path))?;
                }
            }
        }
        Ok(())
    }

    /// Opens the directory of a run.
    ///
    /// # Errors
    /// [`TrainingError::NotARun`] when its recipe or class table is missing.
    pub fn open(path: &Path) -> Result<Self, TrainingError> {
        for file in ["config.toml", "classes.toml"] {
            if !path.join(file).is_file() {
                return Err(TrainingError::NotARun { path: path.to_owned(), missing: file.to_owned() });
            }
        }
        Ok(Self { path: path.to_owned() })
    }

    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the directory.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The merged recipe that the run was started with.
    pub fn config(&self) -> Result<RunConfig, TrainingError> {
        let path = self.file("config.toml");
        let text = read_text(&path).map_err(TrainingError::file(&path))?;
        RunConfig::from_toml(&text, &shown(&path), &[])
    }

    /// The class table that the run was started with.
    pub fn classes(&self) -> Result<ClassTable, TrainingError> {
        let path = self.file("classes.toml");
        let text = read_text(&path).map_err(TrainingError::file(&path))?;
        Ok(ClassTable::from_toml(&text, &shown(&path))?)
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes()))
}

/// Whether a directory holds anything but what is left of a run that was killed before it began.
fn is_occupied(directory: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let named = |name: &str| paths.iter().any(|path| path.file_name().is_some_and(|file| file == name));
    let beginnings = [lock::FILE, "classes.toml", "manifest.json", "checkpoints"];
    let ours = |path: &PathBuf| {
        is_unfinished(path) || path.file_name().is_some_and(|name| beginnings.iter().any(|known| name == *known))
    };
    // Only a run's own lock tells that the rest is a run's.
    Ok(!(paths.is_empty() || named(lock::FILE) && paths.iter().all(ours)))
}

/// Writes a file whole or not at all: beside it, synced, renamed.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainingError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory).map_err(without_path)?;
        file.write_all(bytes)?;
        readable_by_all(file.path())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_directory(directory)
    };
    write().map_err(TrainingError::file(path))
}

/// A folder that is being written. It is removed when it is dropped, unless it was renamed.
pub(crate) fn unfinished_folder(directory: &Path) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(directory).map_err(without_path)
}

/// tempfile's errors end with the temporary path, which says nothing to who reads them.
#[allow(clippy::needless_pass_by_value, reason = "the signature is `map_err`'s")]
fn without_path(error: io::Error) -> io::Error {
    error.kind().into()
}

/// Temporary files and folders are made for their owner alone; what stays follows the usual modes.
pub(crate) fn readable_by_all(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Makes a rename inside the directory last. Only Unix can open a directory for that.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::learner::{self, tests::recipe};
    use crate::manifest::Manifest;
    use crate::{checkpoint, divergence};

    #[test]
    fn a_run_that_was_killed_before_it_began_is_begun_again_and_others_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let classes = ClassTable::load("cityscapes").unwrap();
        let path = folder.path().join("run");
        let (run, lock) = RunDir::create(&path, &classes).unwrap();
        assert!(matches!(RunDir::create(&path, &classes), Err(TrainingError::RunInUse { .. })));
        assert!(matches!(RunDir::open(&path), Err(TrainingError::NotARun { .. })));
        // A killed process leaves its lock file and what it was writing.
        let left = [run.file(lock::FILE), run.file(format!("{UNFINISHED}abc"))];
        drop(lock);
        for path in &left {
            fs::write(path, "").unwrap();
        }
        let (_, lock) = RunDir::create(&path, &classes).unwrap();
        assert!(!left[1].exists());
        drop(lock);

        let other = folder.path().join("notes");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("classes.toml"), "mine").unwrap();
        assert!(matches!(RunDir::create(&other, &classes), Err(TrainingError::RunExists { .. })));
        assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(other.join("classes.toml")).unwrap(), "mine");
    }

    /// What a stranger's run may hold in place of a file's text: more than fits, or a pipe that nobody writes to.
    #[cfg(unix)]
    #[test]
    fn texts_are_read_from_small_regular_files_only() {
        type Read = fn(&RunDir) -> Option<TrainingError>;
        let reads: [(&str, Read); 5] = [
            ("config.toml", |run| run.config().err()),
            ("classes.toml", |run| run.classes().err()),
            ("manifest.json", |run| Manifest::read(run).err()),
            ("dump.json", |run| divergence::replay(run.path(), &Device::Cpu).err()),
            ("checkpoints/last/progress.json", |run| {
                let (config, classes) = (recipe("smoke-unet", &[]), ClassTable::load("cityscapes").unwrap());
                let learner = learner::build(&config, &classes, &Device::Cpu).unwrap();
                checkpoint::load(run, checkpoint::Which::Last, learner.as_ref()).err()
            }),
        ];
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::at(folder.path().to_owned());
        fs::create_dir_all(run.file("checkpoints/last")).unwrap();
        let (mut errors, mut expected) = (Vec::new(), Vec::new());
        for (name, read) in reads {
            let path = run.file(name);
            fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
            errors.push(read(&run).map(|error| error.to_string()));
            expected.push(Some(format!("{}: more than 1048576 bytes long", path.display())));

            fs::remove_file(&path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            let (sender, receiver) = std::sync::mpsc::channel();
            let other = run.clone();
            std::thread::spawn(move || sender.send(read(&other).map(|error| error.to_string())));
            errors.push(receiver.recv_timeout(std::time::Duration::from_secs(10)).ok().flatten());
            expected.push(Some(format!("{}: not a regular file", path.display())));
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(errors, expected);
    }
}
