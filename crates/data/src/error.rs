use std::path::PathBuf;

/// What can go wrong between files and batches. Paths that are not UTF-8 are shown lossily.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not an image that can be used; the reason says why.
    #[error("{}: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the pairs layout cannot be cut into two equal halves.
    #[error("{}: not a photo and a label map side by side ({width}x{height})", path.display())]
    NotSideBySide {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// A photo and its label map differ in size.
    #[error("{}: {width}x{height}, but its photo has {photo_width}x{photo_height}", path.display())]
    SizesDiffer {
        /// The label map's file.
        path: PathBuf,
        /// The label map's width.
        width: u32,
        /// The label map's height.
        height: u32,
        /// The photo's width.
        photo_width: u32,
        /// The photo's height.
        photo_height: u32,
    },
    /// A mask holds a value that the class table does not have.
    #[error("{}: mask value {value} at ({x}, {y}) is not in the class table {table}", path.display())]
    UnknownIndex {
        /// The mask.
        path: PathBuf,
        /// The value.
        value: u8,
        /// Column of its first pixel, from 0 at the left.
        x: u32,
        /// Row of its first pixel, from 0 at the top.
        y: u32,
        /// The class table's name.
        table: String,
    },
    /// A photo without a mask, or a mask without a photo.
    #[error("{}: no {missing} belongs to it in {}", path.display(), folder.display())]
    NoMate {
        /// The file that stands alone.
        path: PathBuf,
        /// What it lacks: `photo` or `mask`.
        missing: &'static str,
        /// Where that was looked for.
        folder: PathBuf,
    },
    /// Two photos, or two masks, whose names differ in the extension only.
    #[error("{}: has the same name as {}", path.display(), other.display())]
    SameName {
        /// The second file.
        path: PathBuf,
        /// The first.
        other: PathBuf,
    },
    /// A split holds no image.
    #[error("{}: no images in it", path.display())]
    EmptySplit {
        /// The folder that was listed.
        path: PathBuf,
    },
    /// A folder is in none of the known layouts.
    #[error("{}: no data set found: looked for {looked_for}", path.display())]
    UnknownLayout {
        /// The root of the data set.
        path: PathBuf,
        /// The folders that would have told.
        looked_for: String,
    },
    /// A setting is out of its range.
    #[error("{key}: {reason}")]
    Setting {
        /// The setting, as recipes write it.
        key: &'static str,
        /// Its range, and what was given.
        reason: String,
    },
    /// A folder does not hold the generated street scenes that are asked for.
    #[error("{}: {reason}", path.display())]
    Streets {
        /// The folder, or the file in it that says so.
        path: PathBuf,
        /// What it holds instead.
        reason: String,
    },
    /// A class table is not well formed.
    #[error("{origin}:{line}: {reason}")]
    ClassTable {
        /// The file, or the name of a built-in table.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// A class table is neither built in nor a file that can be read.
    #[error("{name}: neither a built-in class table ({built_in}) nor a file that can be read ({source})")]
    NoClassTable {
        /// What was asked for.
        name: String,
        /// The built-in names.
        built_in: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tensor could not be made.
    #[error("batch: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl DataError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn image(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Image { path: path.into(), reason: reason.into() }
    }
}
