//! The directory of one run: what is where, and how it is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use img2seg_data::ClassTable;

use crate::loss::LossMeans;
use crate::{Loss, RunConfig, TrainingError};

/// The directory of one run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory of a new run and files its recipe and class table there.
    ///
    /// # Errors
    /// [`TrainingError::RunExists`] when the path is a directory that is not empty.
    pub fn create(path: &Path, config: &RunConfig, classes: &ClassTable) -> Result<Self, TrainingError> {
        let occupied = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(TrainingError::file(path)(error)),
        };
        if occupied {
            return Err(TrainingError::RunExists { path: path.to_owned() });
        }
        fs::create_dir_all(path).map_err(TrainingError::file(path))?;
        let run = Self { path: path.to_owned() };
        write_whole(&run.file("classes.toml"), classes.to_toml().as_bytes())?;
        // Written last: a directory with this file is a run.
        write_whole(&run.file("config.toml"), config.to_toml()?.as_bytes())?;
        Ok(run)
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
        let text = fs::read_to_string(&path).map_err(TrainingError::file(&path))?;
        RunConfig::from_toml(&text, &path.display().to_string(), &[])
    }

    /// The class table that the run was started with.
    pub fn classes(&self) -> Result<ClassTable, TrainingError> {
        let path = self.file("classes.toml");
        let text = fs::read_to_string(&path).map_err(TrainingError::file(&path))?;
        Ok(ClassTable::from_toml(&text, &path.display().to_string())?)
    }

    /// Appends one line to a file of JSON lines.
    pub fn append_json(&self, name: &str, value: &serde_json::Value) -> Result<(), TrainingError> {
        let path = self.file(name);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(TrainingError::file(&path))?;
        // One write: a kill leaves a whole line or none.
        file.write_all(format!("{value}\n").as_bytes()).map_err(TrainingError::file(&path))
    }

    /// Keeps the lines of a file of JSON lines whose `epoch` is at most this one: those of later epochs are made again.
    pub fn rewind_json(&self, name: &str, epoch: usize) -> Result<(), TrainingError> {
        let path = self.file(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(TrainingError::file(&path)(error)),
        };
        let keeps = |line: &&str| {
            let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
            value.and_then(|value| value["epoch"].as_u64()).is_some_and(|line_epoch| line_epoch <= epoch as u64)
        };
        let kept: String = text.lines().filter(keeps).flat_map(|line| [line, "\n"]).collect();
        if kept == text { Ok(()) } else { write_whole(&path, kept.as_bytes()) }
    }
}

/// `losses.txt`: one line a step, in the shortest digits that read back to the same number.
#[derive(Debug)]
pub struct LossLog {
    path: PathBuf,
    file: io::BufWriter<File>,
    empty: bool,
}

impl LossLog {
    /// Opens the log after `steps` steps, forgetting what was logged beyond them, and returns the means of the lines of `epoch`.
    ///
    /// # Errors
    /// When the log holds fewer steps than that, or a line that is none.
    pub fn open(run: &RunDir, steps: u64, epoch: usize) -> Result<(Self, LossMeans), TrainingError> {
        let path = run.file("losses.txt");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(TrainingError::file(&path)(error)),
        };
        let mut kept = 0;
        let mut logged = 0;
        let mut names = Vec::new();
        let mut means = LossMeans::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if logged == steps {
                break;
            }
            let malformed = || {
                TrainingError::checkpoint(
                    &path,
                    format!("line {}: not a line of losses: {}", index + 1, line.trim_end()),
                )
            };
            if index == 0 {
                names = line.trim_end().trim_start_matches("# ").split(' ').skip(2).map(str::to_owned).collect();
            } else {
                let mut fields = line.trim_end().split(' ');
                let line_epoch: usize = fields.next().and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
                logged = fields.next().and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
                let values: Vec<f32> = fields.map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
                if line_epoch == epoch && values.len() == names.len() {
                    means.add(names.iter().map(String::as_str).zip(values));
                }
            }
            kept += line.len();
        }
        if logged != steps {
            let complaint = format!("holds {logged} steps, the checkpoint was made after {steps}");
            return Err(TrainingError::checkpoint(&path, complaint));
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(TrainingError::file(&path))?;
        file.set_len(kept as u64).map_err(TrainingError::file(&path))?;
        Ok((Self { path, file: io::BufWriter::new(file), empty: kept == 0 }, means))
    }

    /// Logs one step.
    pub fn add(&mut self, epoch: usize, step: u64, losses: &[Loss]) -> Result<(), TrainingError> {
        self.write(epoch, step, losses).map_err(TrainingError::file(&self.path))
    }

    fn write(&mut self, epoch: usize, step: u64, losses: &[Loss]) -> io::Result<()> {
        if self.empty {
            write!(self.file, "# epoch step")?;
            losses.iter().try_for_each(|loss| write!(self.file, " {}", loss.name))?;
            writeln!(self.file)?;
            self.empty = false;
        }
        write!(self.file, "{epoch} {step}")?;
        losses.iter().try_for_each(|loss| write!(self.file, " {}", loss.value))?;
        writeln!(self.file)
    }

    /// Hands everything to the disk. A checkpoint must not know of steps that the log does not.
    pub fn sync(&mut self) -> Result<(), TrainingError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_data()).map_err(TrainingError::file(&self.path))
    }
}

/// Writes a file whole or not at all: beside it, synced, renamed.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainingError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        readable_by_all(file.path())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_directory(directory)
    };
    write().map_err(TrainingError::file(path))
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
    use super::*;

    fn log(run: &RunDir, steps: std::ops::RangeInclusive<u64>) -> Result<(), TrainingError> {
        let (mut log, _) = LossLog::open(run, steps.start() - 1, 1)?;
        for step in steps {
            log.add(1 + step as usize / 3, step, &[Loss { name: "mse", value: 1.0 / step as f32 }])?;
        }
        log.sync()
    }

    #[test]
    fn a_log_that_is_rewound_and_continued_equals_one_written_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (once, twice) = (directory.path().join("once"), directory.path().join("twice"));
        fs::create_dir_all(&once).unwrap();
        fs::create_dir_all(&twice).unwrap();
        let (once, twice) = (RunDir { path: once }, RunDir { path: twice });
        log(&once, 1..=8).unwrap();
        log(&twice, 1..=5).unwrap();
        log(&twice, 4..=8).unwrap();
        assert_eq!(fs::read(once.file("losses.txt")).unwrap(), fs::read(twice.file("losses.txt")).unwrap());

        let (_, means) = LossLog::open(&once, 4, 2).unwrap();
        let expected = f64::midpoint((1.0_f32 / 3.0).into(), 0.25);
        assert_eq!(means.means(), [("mse".to_owned(), expected)]);
    }

    #[test]
    fn a_log_with_too_few_steps_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir { path: directory.path().to_owned() };
        log(&run, 1..=3).unwrap();
        let error = LossLog::open(&run, 7, 1).unwrap_err().to_string();
        assert!(error.contains("losses.txt: holds 3 steps, the checkpoint was made after 7"), "{error}");
    }

    #[test]
    fn later_epochs_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDir { path: directory.path().to_owned() };
        for epoch in 1..=3 {
            run.append_json("metrics.jsonl", &serde_json::json!({ "epoch": epoch })).unwrap();
        }
        run.rewind_json("metrics.jsonl", 2).unwrap();
        assert_eq!(fs::read_to_string(run.file("metrics.jsonl")).unwrap(), "{\"epoch\":1}\n{\"epoch\":2}\n");
    }
}
