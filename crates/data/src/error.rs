use std::path::{Path, PathBuf};

/// What can go wrong between files and batches. Texts hold paths as [`shown`] has them, so that they are one line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", shown(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not an image that can be used; the reason says why.
    #[error("{}: {reason}", shown(path))]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the pairs layout cannot be cut into two equal halves.
    #[error("{}: not a photo and a label map side by side ({width}x{height})", shown(path))]
    NotSideBySide {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
    },
    /// A photo and its label map differ in size.
    #[error("{}: {width}x{height}, but its photo has {photo_width}x{photo_height}", shown(path))]
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
    #[error("{}: mask value {value} at ({x}, {y}) is not in the class table {table}", shown(path))]
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
    #[error("{}: no {missing} belongs to it in {}", shown(path), shown(folder))]
    NoMate {
        /// The file that stands alone.
        path: PathBuf,
        /// What it lacks: `photo` or `mask`.
        missing: &'static str,
        /// Where that was looked for.
        folder: PathBuf,
    },
    /// Two photos, or two masks, whose names differ in the extension only.
    #[error("{}: has the same name as {}", shown(path), shown(other))]
    SameName {
        /// The second file.
        path: PathBuf,
        /// The first.
        other: PathBuf,
    },
    /// A split holds no image.
    #[error("{}: no images in it", shown(path))]
    EmptySplit {
        /// The folder that was listed.
        path: PathBuf,
    },
    /// A folder is in none of the known layouts.
    #[error("{}: no data set found: looked for {looked_for}", shown(path))]
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
    #[error("{}: {reason}", shown(path))]
    Streets {
        /// The folder, or the file in it that says so.
        path: PathBuf,
        /// What it holds instead.
        reason: String,
    },
    /// A class table is not well formed.
    #[error("{}:{line}: {reason}", shown(origin.as_ref()))]
    ClassTable {
        /// The file, or the name of a built-in table.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// A class table is neither built in nor a file that can be read.
    #[error("{}: neither a built-in class table ({built_in}) nor a file that can be read: {source}", shown(name.as_ref()))]
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

/// A path as text for people, on one line: control characters and bytes that are not UTF-8 become escapes like `\n` and `\xFF`, so that
/// no file name ends a line, moves a terminal's cursor, or looks like another one.
///
/// ```
/// assert_eq!(img2seg_data::shown("data/a\nb.png".as_ref()), r"data/a\nb.png");
/// ```
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() { text.extend(letter.escape_default()) } else { text.push(letter) }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    text
}
