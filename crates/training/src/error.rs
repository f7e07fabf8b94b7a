//! What can go wrong in a run.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::Change;

/// An error of a run, naming the file, key or step that it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// A recipe that cannot be read, or that asks for what cannot be done.
    #[error("{origin}: {message}")]
    Recipe {
        /// The recipe's name or file.
        origin: String,
        /// What is wrong, with line and key where they are known.
        message: String,
    },
    /// A run that would overwrite another.
    #[error("{}: the run exists; --resume goes on with it, --run DIR starts another", path.display())]
    RunExists {
        /// The run directory.
        path: PathBuf,
    },
    /// A directory that holds no run.
    #[error("{}: not a run directory ({missing} is missing)", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The first file that should be there.
        missing: String,
    },
    /// A checkpoint that is incomplete, damaged, or of another network.
    #[error("{}: {complaint}", path.display())]
    Checkpoint {
        /// The checkpoint's directory or file.
        path: PathBuf,
        /// What is wrong with it.
        complaint: String,
    },
    /// A loss that is no finite number. Training stops before the weights that caused it reach a checkpoint.
    #[error("step {step}: the loss {loss} is {value} (batch: {batch})")]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// The name of the loss.
        loss: String,
        /// Its value: NaN or an infinity.
        value: f32,
        /// The names of the batch's samples.
        batch: String,
    },
    /// What made a run is not what it was.
    #[error("{}: {}; --allow-changes goes on all the same", path.display(), listed(changes))]
    Changed {
        /// The run's manifest.
        path: PathBuf,
        /// Everything that would make other results.
        changes: Vec<Change>,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
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
