//! What a run leaves beside its checkpoints: losses, scores, times, samples.

mod append_file;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use append_file::AppendFile;
use serde_json::Value;

use crate::checkpoint::Progress;
use crate::loss::LossMeans;
use crate::run_dir::write_whole;
use crate::{Loss, RunDir, TrainingError};

/// How long a line of losses may wait in memory, where the disk takes it.
const DELAY: Duration = Duration::from_secs(1);

/// The records of a run. They are made in memory; what the disk does not take waits there and is tried again.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    losses: AppendFile,
    metrics: AppendFile,
    digests: AppendFile,
    times: AppendFile,
    sheets: Vec<(PathBuf, Vec<u8>)>,
    written: Instant,
}

impl Records {
    /// Opens the records where the run stands, forgets what was recorded beyond, and returns the means of the losses of the epoch
    /// that has begun.
    ///
    /// # Errors
    /// When `losses.txt` holds fewer steps, or a line that is none.
    pub(crate) fn open(run: &RunDir, progress: &Progress) -> Result<(Self, LossMeans), TrainingError> {
        let path = run.file("losses.txt");
        let (kept, means) = kept_losses(&path, progress.steps, progress.epochs + 1)?;
        let lines = |name| {
            let path = run.file(name);
            AppendFile::open(&path, kept_lines(&path, progress.epochs)?)
        };
        let records = Self {
            directory: run.path().to_owned(),
            losses: AppendFile::open(&path, kept)?,
            metrics: lines("metrics.jsonl")?,
            digests: lines("digests.jsonl")?,
            times: lines("times.jsonl")?,
            sheets: Vec::new(),
            written: Instant::now(),
        };
        Ok((records, means))
    }

    /// Records the losses of a step, in the shortest digits that read back to the same number.
    pub(crate) fn step(&mut self, epoch: usize, step: u64, losses: &[Loss]) {
        if self.losses.is_empty() {
            let names: Vec<&str> = losses.iter().map(|loss| loss.name).collect();
            self.losses.push(format!("# epoch step {}\n", names.join(" ")).as_bytes());
        }
        let values: Vec<String> = losses.iter().map(|loss| loss.value.to_string()).collect();
        self.losses.push(format!("{epoch} {step} {}\n", values.join(" ")).as_bytes());
        if self.written.elapsed() > DELAY {
            self.written = Instant::now();
            // For those who watch the file. Whoever needs it on the disk calls `write` and hears of failures there.
            let _ = self.losses.write(false);
        }
    }

    /// Records an epoch: scores, hashes of the weights, and times apart from them.
    pub(crate) fn epoch(&mut self, metrics: &Value, digests: &Value, times: &Value) {
        self.digests.push(format!("{digests}\n").as_bytes());
        self.metrics.push(format!("{metrics}\n").as_bytes());
        self.times.push(format!("{times}\n").as_bytes());
    }

    /// Records a sheet of samples under a name in `samples/`.
    pub(crate) fn sheet(&mut self, name: &str, png: Vec<u8>) {
        self.sheets.push((self.directory.join("samples").join(name), png));
    }

    /// Puts everything on the disk. A checkpoint must not know of steps that the records do not.
    pub(crate) fn write(&mut self) -> Result<(), TrainingError> {
        for file in [&mut self.losses, &mut self.metrics, &mut self.digests, &mut self.times] {
            file.write(true)?;
        }
        while let Some((path, png)) = self.sheets.first() {
            let folder = path.parent().unwrap_or(Path::new("."));
            // Not `create_dir_all`: a run directory that is gone shall not come back with a sheet alone in it.
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(TrainingError::file(folder)(error));
                }
                _ => write_whole(path, png)?,
            }
            self.sheets.remove(0);
        }
        Ok(())
    }
}

/// Bytes of `losses.txt` that tell of the first `steps` steps, and the means of the lines of `epoch` among them.
fn kept_losses(path: &Path, steps: u64, epoch: usize) -> Result<(u64, LossMeans), TrainingError> {
    let text = text_of(path)?;
    let mut kept = 0;
    let mut logged = 0;
    let mut names = Vec::new();
    let mut means = LossMeans::default();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if logged == steps {
            break;
        }
        let malformed = || {
            TrainingError::checkpoint(path, format!("line {}: not a line of losses: {}", index + 1, line.trim_end()))
        };
        if !line.ends_with('\n') {
            break; // cut short: the step was not counted as done
        }
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
        kept += line.len() as u64;
    }
    if logged != steps {
        let complaint = format!("holds {logged} steps, the checkpoint was made after {steps}");
        return Err(TrainingError::checkpoint(path, complaint));
    }
    Ok((kept, means))
}

/// Bytes of a file of JSON lines before the first whose `epoch` is above this one: those epochs are made again.
fn kept_lines(path: &Path, epoch: usize) -> Result<u64, TrainingError> {
    let text = text_of(path)?;
    let keeps = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        let line_epoch = value.and_then(|value| value["epoch"].as_u64());
        line.ends_with('\n') && line_epoch.is_some_and(|line_epoch| line_epoch <= epoch as u64)
    };
    Ok(text.split_inclusive('\n').take_while(keeps).map(|line| line.len() as u64).sum())
}

/// A file's text; none is empty.
fn text_of(path: &Path) -> Result<String, TrainingError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(TrainingError::file(path)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(path: PathBuf) -> RunDir {
        fs::create_dir_all(&path).unwrap();
        RunDir::at(path)
    }

    fn progress(steps: u64, epochs: usize) -> Progress {
        Progress { epochs, steps, ..Progress::default() }
    }

    fn record(run: &RunDir, steps: std::ops::RangeInclusive<u64>) -> Result<(), TrainingError> {
        let (mut records, _) = Records::open(run, &progress(steps.start() - 1, 0))?;
        for step in steps {
            records.step(1 + step as usize / 3, step, &[Loss { name: "mse", value: 1.0 / step as f32 }]);
        }
        records.write()
    }

    #[test]
    fn records_that_are_rewound_and_continued_equal_those_written_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (once, twice) = (run(folder.path().join("once")), run(folder.path().join("twice")));
        record(&once, 1..=8).unwrap();
        record(&twice, 1..=5).unwrap();
        record(&twice, 4..=8).unwrap();
        assert_eq!(fs::read(once.file("losses.txt")).unwrap(), fs::read(twice.file("losses.txt")).unwrap());

        let (_, means) = Records::open(&once, &progress(4, 1)).unwrap();
        let expected = f64::midpoint((1.0_f32 / 3.0).into(), 0.25);
        assert_eq!(means.means(), [("mse".to_owned(), expected)]);
    }

    #[test]
    fn too_few_steps_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path().to_owned());
        record(&run, 1..=3).unwrap();
        for text in [None, Some("# epoch step mse\n1 1 0.5\n1 2 0.25\n1 3 0.1")] {
            if let Some(text) = text {
                fs::write(run.file("losses.txt"), text).unwrap();
            }
            let steps = if text.is_some() { 3 } else { 7 };
            let error = Records::open(&run, &progress(steps, 0)).unwrap_err().to_string();
            let held = if text.is_some() { 2 } else { 3 };
            let expected = format!("losses.txt: holds {held} steps, the checkpoint was made after {steps}");
            assert!(error.contains(&expected), "{error}");
        }
    }

    #[test]
    fn later_epochs_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path().to_owned());
        let (mut records, _) = Records::open(&run, &Progress::default()).unwrap();
        for epoch in 1..=3 {
            let line = json!({ "epoch": epoch });
            records.epoch(&line, &line, &json!({ "epoch": epoch, "seconds": 1.5 }));
        }
        records.sheet("epoch-001.png", vec![1, 2]);
        records.write().unwrap();
        assert_eq!(fs::read(run.file("samples/epoch-001.png")).unwrap(), [1, 2]);
        Records::open(&run, &progress(0, 2)).unwrap();
        assert_eq!(fs::read_to_string(run.file("metrics.jsonl")).unwrap(), "{\"epoch\":1}\n{\"epoch\":2}\n");
        // Half a line is none.
        fs::write(run.file("metrics.jsonl"), "{\"epoch\":1}\n{\"epoch\":2}").unwrap();
        Records::open(&run, &progress(0, 2)).unwrap();
        assert_eq!(fs::read_to_string(run.file("metrics.jsonl")).unwrap(), "{\"epoch\":1}\n");
    }
}
