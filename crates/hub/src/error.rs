use std::io;
use std::path::PathBuf;

/// What can go wrong between a name on the Hub and a folder of pairs. Paths that are not UTF-8 are shown lossily.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text is not the name of a data set.
    #[error("{text:?}: not OWNER/NAME or OWNER/NAME/CONFIGURATION, as the data set's page on the Hub gives it")]
    Name {
        /// The text.
        text: String,
    },
    /// The data set is not in the cache, and the Hub does not answer.
    #[error(
        "{name}: not in the Hub cache {} ({lacking}), and the Hub cannot be reached ({reason}): connect to the network, or copy \
         {folder} from the Hub cache of a machine that has it (HF_HUB_CACHE or HF_HOME says where the cache is)",
        cache.display()
    )]
    Unreachable {
        /// The data set.
        name: String,
        /// The cache that was looked in.
        cache: PathBuf,
        /// What the cache lacks.
        lacking: String,
        /// Why the Hub cannot be reached.
        reason: String,
        /// The data set's folder in a cache.
        folder: String,
    },
    /// The Hub answers, but does not give the data set.
    #[error(
        "{name}: the Hub does not give it ({reason}): it may not exist, not be readable with your HF_TOKEN, or not have been \
         converted to parquet; if its own files are parquet, `hf download --repo-type dataset {name}` puts them into the cache"
    )]
    Refused {
        /// The data set.
        name: String,
        /// What the Hub said.
        reason: String,
    },
    /// What was downloaded is not the whole data set.
    #[error("{name}: downloaded, but not whole: {lacking}")]
    Incomplete {
        /// The data set.
        name: String,
        /// What it lacks.
        lacking: String,
    },
    /// The data set has several configurations and the name chooses none, or one that is not there.
    #[error("{name}: has the configurations {}: name one of them as OWNER/NAME/CONFIGURATION", found.join(", "))]
    Configuration {
        /// The data set.
        name: String,
        /// The configurations that it has, in order.
        found: Vec<String>,
    },
    /// The data set has no row in any split.
    #[error("{name}: no rows in it")]
    Empty {
        /// The data set.
        name: String,
    },
    /// A parquet file cannot be read, or its columns are not those of image pairs.
    #[error("{}: {reason}", file.display())]
    Table {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A row does not hold a pair of images.
    #[error("{}: row {row}: {reason}", file.display())]
    Row {
        /// The parquet file.
        file: PathBuf,
        /// The row in that file, from 0.
        row: usize,
        /// The column and what is wrong with it.
        reason: String,
    },
    /// The folder to write is there and holds something else.
    #[error("{}: {holds}: remove it or choose another folder", root.display())]
    Occupied {
        /// The folder.
        root: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// Someone else is writing the folder at this moment.
    #[error("{}: another process is writing it", root.display())]
    Busy {
        /// The folder.
        root: PathBuf,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HubError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
