//! What can go wrong in a run.

use std::io;
use std::path::{Path, PathBuf};

use img2seg_data::shown;

use crate::manifest::Change;

/// An error of a run, naming the file, key or step that it is about. Paths stand in it as [`shown`] has them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// A recipe that cannot be read, or that asks for what cannot be done.
    #[error("{}: {message}", shown(origin.as_ref()))]
    Recipe {
        /// The recipe's name or file.
        origin: String,
        /// What is wrong, with line and key where they are known.
        message: String,
    },
    /// A run that would overwrite another.
    #[error("{}: the run exists; --resume goes on with it, --run DIR starts another", shown(path))]
    RunExists {
        /// The run directory.
        path: PathBuf,
    },
    /// A directory that holds no run.
    #[error("{}: not a run directory ({missing} is missing)", shown(path))]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The first file that should be there.
        missing: String,
    },
    /// A checkpoint that is incomplete, damaged, or of another network.
    #[error("{}: {complaint}", shown(path))]
    Checkpoint {
        /// The checkpoint's directory or file.
        path: PathBuf,
        /// What is wrong with it.
        complaint: String,
    },
    /// A run that another process is writing to.
    #[error("{}: {} is writing to this run", shown(path), process_name(*.process))]
    RunInUse {
        /// The run directory.
        path: PathBuf,
        /// The process id, if it could be read.
        process: Option<u32>,
    },
    /// A run that could not be saved when it had to be.
    #[error("{source}; {} not saved, {}", steps_name(*.step, *.saved), saved_name(*.saved))]
    NotSaved {
        /// The step after which it had to be saved.
        step: u64,
        /// The step of the newest checkpoint that was saved.
        saved: Option<u64>,
        /// Why.
        source: Box<TrainingError>,
    },
    /// A loss or a gradient that is not finite, found before it reached a weight.
    #[error("{tensor} is not finite ({part})")]
    NotFinite {
        /// The part of the learner's step.
        part: &'static str,
        /// The first tensor with a bad value.
        tensor: String,
    },
    /// A run that has diverged. It stops before what is not finite reaches a weight or a checkpoint.
    #[error("step {step}: {tensor} is not finite ({part}; batch: {batch}); {}", dump_name(.dump))]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// The part of the learner's step.
        part: &'static str,
        /// The first tensor with a bad value.
        tensor: String,
        /// The names of the batch's samples.
        batch: String,
        /// The folder that reproduces the step, or why there is none.
        dump: Result<PathBuf, String>,
    },
    /// What made a run is not what it was.
    #[error("{}: {}; --allow-changes goes on all the same", shown(path), listed(changes))]
    Changed {
        /// The run's manifest.
        path: PathBuf,
        /// Everything that would make other results.
        changes: Vec<Change>,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", shown(path))]
    File {
        /// The file.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] img2seg_data::DataError),
    /// An error of tensors, networks or the device.
    #[error("{}", without_backtrace(.0))]
    Tensor(candle_core::Error),
}

/// Not by `#[from]`: that would also name candle's error, which may carry a backtrace, as the cause of this one.
impl From<candle_core::Error> for TrainingError {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error)
    }
}

impl TrainingError {
    /// For `map_err`: an I/O error with the file that it is about.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(crate) fn checkpoint(path: &Path, complaint: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_owned(), complaint: complaint.into() }
    }
}

fn process_name(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

fn steps_name(step: u64, saved: Option<u64>) -> String {
    match saved {
        Some(saved) if saved + 1 < step => format!("steps {} to {step} are", saved + 1),
        _ => format!("step {step} is"),
    }
}

fn saved_name(saved: Option<u64>) -> String {
    saved.map_or_else(|| "there is no checkpoint".to_owned(), |step| format!("the newest checkpoint is of step {step}"))
}

fn dump_name(dump: &Result<PathBuf, String>) -> String {
    match dump {
        Ok(path) => format!("{} reproduces the step", shown(path)),
        Err(reason) => format!("the step could not be dumped: {reason}"),
    }
}

/// candle appends a backtrace to its messages when `RUST_BACKTRACE` is set; users want the message.
fn without_backtrace(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        candle_core::Error::Context { inner, context } => format!("{context}: {}", without_backtrace(inner)),
        other => other.to_string(),
    }
}

fn listed(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
