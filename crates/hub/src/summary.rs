use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use img2seg_data::Layout;
use serde::{Deserialize, Serialize};

use crate::HubError;

const FILE: &str = "hub.toml";

/// What a folder of pairs was made from; stands in it as `hub.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The data set, as it was asked for.
    pub name: String,
    /// The commit of the repository on the Hub.
    pub commit: String,
    /// The configuration; empty where the repository has no such folder.
    pub configuration: String,
    /// The column of side-by-side pairs, or that of the photos and that of the label maps.
    pub columns: Vec<String>,
    /// Pairs in `train`.
    pub train: usize,
    /// Pairs in `val`.
    pub val: usize,
    /// Pairs in `test`.
    pub test: usize,
    /// How many pairs of `val` are the last rows of the Hub's train split, because it has no validation split: a tenth, rounded
    /// up, or 0.
    pub val_from_train: usize,
    /// The parquet files, in the order in which they were read.
    pub files: Vec<String>,
    /// The parquet files of splits that are neither train, validation nor test.
    pub left_out: Vec<String>,
    /// Whether the folder was there and is as it was.
    #[serde(skip)]
    pub reused: bool,
}

impl Summary {
    /// How the files lie: pairs where the Hub has one image a row, folders where it has two.
    pub fn layout(&self) -> Layout {
        if self.columns.len() == 1 { Layout::Pairs } else { Layout::Folders }
    }

    /// The summary of a folder; `None` if it has none.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>, HubError> {
        let path = root.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map(Some).map_err(|error| HubError::Occupied {
                root: root.to_owned(),
                holds: format!("its {FILE} cannot be read ({})", error.message()),
            }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(HubError::io(path)(error)),
        }
    }

    pub(crate) fn write(&self, root: &Path) -> Result<(), HubError> {
        let path = root.join(FILE);
        let text = toml::to_string(self)
            .map_err(|error| HubError::Io { path: path.clone(), source: std::io::Error::other(error) })?;
        fs::write(&path, format!("# Where these pairs come from on the Hugging Face Hub.\n{text}"))
            .map_err(HubError::io(path))
    }
}
