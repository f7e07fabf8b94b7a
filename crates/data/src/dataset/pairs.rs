//! Pairs: `ROOT/SPLIT/*.{jpg,jpeg,png}`, photo and colour label map side by side in one file.

use std::path::Path;

use image::RgbImage;

use super::{Item, files};
use crate::{ClassTable, DataError, Direction, Sample, Split, decode};

pub(crate) fn list(root: &Path, split: Split) -> Result<Vec<Item>, DataError> {
    let paths = files::images(&root.join(split.name()))?;
    Ok(paths.into_iter().map(|photo| Item { name: files::stem(&photo), photo, mask: None }).collect())
}

/// Reads a file and decodes the colours of its label half.
pub(crate) fn read(item: &Item, direction: Direction, table: &ClassTable) -> Result<Sample, DataError> {
    let (photo, label_map) = split_pair(&decode::read_image(&item.photo)?, direction, &item.photo)?;
    let labels = table.decode_image(&label_map);
    Ok(Sample { name: item.name.clone(), photo, label_map, labels })
}

/// Cuts a pair into its halves: photo and label map. An odd width is an error that names `path`.
pub fn split_pair(pair: &RgbImage, direction: Direction, path: &Path) -> Result<(RgbImage, RgbImage), DataError> {
    let (width, height) = pair.dimensions();
    if width % 2 != 0 {
        return Err(DataError::NotSideBySide { path: path.to_owned(), width, height });
    }
    let half_row = 3 * width as usize / 2;
    let half = |begin: usize| {
        let mut half = RgbImage::new(width / 2, height);
        let rows = pair.as_raw().chunks_exact((2 * half_row).max(1));
        for (half, row) in half.chunks_exact_mut(half_row.max(1)).zip(rows) {
            half.copy_from_slice(&row[begin..begin + half_row]);
        }
        half
    };
    Ok(match direction {
        Direction::PhotoLeft => (half(0), half(half_row)),
        Direction::LabelLeft => (half(half_row), half(0)),
    })
}
