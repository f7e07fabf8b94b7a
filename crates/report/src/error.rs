use std::io;
use std::path::PathBuf;

use img2seg_data::shown;

/// What stops a page, a comparison or a picture from being made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file that cannot be read, for another reason than not being there.
    #[error("{}: {source}", shown(path))]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A page or table that cannot be written.
    #[error("{}: cannot be written: {source}", shown(path))]
    Unwritable {
        /// The file that was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory without the files that every run starts with.
    #[error("{}: not a run directory: it has no {missing}", shown(path))]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The first file that it lacks.
        missing: &'static str,
    },
    /// A line of a run's file that does not say what it should.
    #[error("{}:{line}: {message}", shown(path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A class table that cannot be read.
    #[error(transparent)]
    Classes(#[from] img2seg_data::DataError),
    /// A picture of a run that is not one, or does not fit the pictures beside it.
    #[error("{}: {message}", shown(path))]
    Picture {
        /// The picture's file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A comparison of nothing.
    #[error("no runs to compare")]
    NoRuns,
    /// A comparison of runs that have no scores yet.
    #[error("{}: not evaluated yet, so there is nothing to compare", runs.join(", "))]
    NotEvaluated {
        /// The names of all such runs.
        runs: Vec<String>,
    },
    /// A comparison of runs whose labels do not mean the same.
    #[error("{}: class tables differ from that of {reference}, so the scores cannot be compared", runs.join(", "))]
    DifferentClasses {
        /// The first run, whose table the others were held against.
        reference: String,
        /// The runs whose tables differ.
        runs: Vec<String>,
    },
    /// Labels that do not fill the picture that they were given for.
    #[error("labels: {found} of them for {width}x{height} pixels")]
    Labels {
        /// How many labels there are.
        found: usize,
        /// The picture's width.
        width: u32,
        /// The picture's height.
        height: u32,
    },
    /// A picture that could not be encoded.
    #[error("{what}: cannot be encoded: {message}")]
    Encoding {
        /// What was being encoded.
        what: String,
        /// What the encoder said.
        message: String,
    },
}
