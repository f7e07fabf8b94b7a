mod cityscapes;
pub(crate) mod files;
#[cfg(test)]
pub(crate) mod fixture;
mod folders;
mod pairs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{ClassTable, DataConfig, DataError, Direction, Layout, Sample, Split};

pub use pairs::split_pair;

/// The files of one split, listed but not yet read.
#[derive(Clone, Debug)]
pub struct Dataset {
    items: Vec<Item>,
    split: Split,
    layout: Layout,
    direction: Direction,
    table: Arc<ClassTable>,
}

/// Where a sample comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: String,
    /// The photo, or the file of both.
    pub(crate) photo: PathBuf,
    pub(crate) mask: Option<PathBuf>,
}

impl Layout {
    /// Tells the layout of the data set at `root` by the folders that are there; never [`Layout::Auto`].
    pub fn detect(root: &Path) -> Result<Self, DataError> {
        fs::read_dir(root).map_err(DataError::io(root))?;
        if root.join("leftImg8bit").is_dir() && root.join("gtFine").is_dir() {
            return Ok(Self::Cityscapes);
        }
        let splits = Split::ALL.map(|split| root.join(split.name()));
        if splits.iter().any(|split| split.join("images").is_dir() && split.join("masks").is_dir()) {
            return Ok(Self::Folders);
        }
        // A split that is there but empty is told by the one who lists it.
        if splits.iter().any(|split| files::has_images(split)) || splits.iter().any(|split| split.is_dir()) {
            return Ok(Self::Pairs);
        }
        let looked_for = "leftImg8bit and gtFine (cityscapes), images and masks in train, val or test (folders), \
                          image files in train, val or test (pairs)";
        Err(DataError::UnknownLayout { path: root.to_owned(), looked_for: looked_for.into() })
    }

    /// The folder of a split's photos.
    fn folder(self, root: &Path, split: Split) -> PathBuf {
        match self {
            Self::Auto | Self::Pairs => root.join(split.name()),
            Self::Folders => root.join(split.name()).join("images"),
            Self::Cityscapes => root.join("leftImg8bit").join(split.name()),
        }
    }

    /// The splits whose folders are at `root`, in their usual order.
    pub fn splits(self, root: &Path) -> Result<Vec<Split>, DataError> {
        let layout = if self == Self::Auto { Self::detect(root)? } else { self };
        Ok(Split::ALL.into_iter().filter(|&split| layout.folder(root, split).is_dir()).collect())
    }
}

/// Scores, pictures and draws go by names.
fn check_names(items: &[Item]) -> Result<(), DataError> {
    let mut seen = BTreeMap::new();
    for item in items {
        if let Some(other) = seen.insert(item.name.as_str(), &item.photo) {
            return Err(DataError::SameName { path: item.photo.clone(), other: other.clone() });
        }
    }
    Ok(())
}

impl Dataset {
    /// Lists the files of a split, sorted bytewise by name; no file is opened yet.
    ///
    /// Errors name what is missing: a folder, a photo's mask, a mask's photo, every image of the split; and files whose samples would have
    /// one name.
    pub fn open(root: &Path, split: Split, config: &DataConfig, table: Arc<ClassTable>) -> Result<Self, DataError> {
        let layout = if config.layout == Layout::Auto { Layout::detect(root)? } else { config.layout };
        let items = match layout {
            Layout::Auto | Layout::Pairs => pairs::list(root, split)?,
            Layout::Folders => folders::list(root, split)?,
            Layout::Cityscapes => cityscapes::list(root, split)?,
        };
        if items.is_empty() {
            return Err(DataError::EmptySplit { path: layout.folder(root, split) });
        }
        check_names(&items)?;
        Ok(Self { items, split, layout, direction: config.direction, table })
    }

    /// How many samples there are, at least one.
    #[allow(clippy::len_without_is_empty, reason = "an empty split does not open")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Which split this is.
    pub fn split(&self) -> Split {
        self.split
    }

    /// The layout that was named or found; never [`Layout::Auto`].
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What label maps are decoded by.
    pub fn table(&self) -> &Arc<ClassTable> {
        &self.table
    }

    /// The name of sample `i` of 0..[`len`](Self::len). Panics beyond.
    pub fn name(&self, i: usize) -> &str {
        &self.items[i].name
    }

    /// The file of sample `i`'s photo; in pairs, of both. Panics beyond the last.
    pub fn path(&self, i: usize) -> &Path {
        &self.items[i].photo
    }

    /// The file of sample `i`'s mask; none in pairs. Panics beyond the last.
    pub fn mask_path(&self, i: usize) -> Option<&Path> {
        self.items[i].mask.as_deref()
    }

    /// Reads sample `i` at its stored size. Panics beyond the last.
    pub fn sample(&self, i: usize) -> Result<Sample, DataError> {
        let item = &self.items[i];
        match self.layout {
            Layout::Auto | Layout::Pairs => pairs::read(item, self.direction, &self.table),
            Layout::Folders | Layout::Cityscapes => folders::read(item, &self.table),
        }
    }

    /// Only the first `len` samples, at least one: for quick looks.
    #[must_use]
    pub fn take(mut self, len: usize) -> Self {
        self.items.truncate(len.max(1));
        self
    }
}

#[cfg(test)]
mod tests;
