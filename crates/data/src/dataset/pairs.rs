//! Pairs: `ROOT/SPLIT/*.{jpg,jpeg,png}`, photo and colour label map side by side in one file.

use std::path::Path;

use image::imageops::crop_imm;

use super::{Item, files};
use crate::{ClassTable, DataError, Direction, Sample, Split, decode};

pub(crate) fn list(root: &Path, split: Split) -> Result<Vec<Item>, DataError> {
    let paths = files::images(&root.join(split.name()))?;
    Ok(paths.into_iter().map(|photo| Item { name: files::stem(&photo), photo, mask: None }).collect())
}

/// Cuts a file into its two halves and decodes the colours of one of them.
pub(crate) fn read(item: &Item, direction: Direction, table: &ClassTable) -> Result<Sample, DataError> {
    let pair = decode::read_image(&item.photo)?;
    let (width, height) = pair.dimensions();
    if width % 2 != 0 {
        return Err(DataError::NotSideBySide { path: item.photo.clone(), width, height });
    }
    let half = width / 2;
    let (photo, label_map) = match direction {
        Direction::PhotoLeft => (0, half),
        Direction::LabelLeft => (half, 0),
    };
    let label_map = crop_imm(&pair, label_map, 0, half, height).to_image();
    let labels = table.decode_image(&label_map);
    Ok(Sample { name: item.name.clone(), photo: crop_imm(&pair, photo, 0, half, height).to_image(), label_map, labels })
}
