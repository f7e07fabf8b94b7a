//! Folders: `ROOT/SPLIT/images/NAME.*` and `ROOT/SPLIT/masks/NAME.*`, masks of class indices or of colours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};

use super::{Item, files};
use crate::decode::{self, Mask};
use crate::{ClassTable, DataError, Sample, Split, VOID};

pub(crate) fn list(root: &Path, split: Split) -> Result<Vec<Item>, DataError> {
    let folder = root.join(split.name());
    let (images, masks) = (folder.join("images"), folder.join("masks"));
    let photos = files::images(&images)?;
    let mut mates = BTreeMap::new();
    for mask in files::images(&masks)? {
        insert_once(&mut mates, mask)?;
    }
    let mut seen = BTreeMap::new();
    let mut items = Vec::new();
    for photo in photos {
        let stem = photo.file_stem().unwrap_or_default();
        let mask = mates.get(stem).cloned();
        let mask =
            mask.ok_or_else(|| DataError::NoMate { path: photo.clone(), missing: "mask", folder: masks.clone() })?;
        insert_once(&mut seen, photo.clone())?;
        items.push(Item { name: files::stem(&photo), photo, mask: Some(mask) });
    }
    if let Some((_, path)) = mates.into_iter().find(|(stem, _)| !seen.contains_key(stem)) {
        return Err(DataError::NoMate { path, missing: "photo", folder: images });
    }
    Ok(items)
}

fn insert_once(paths: &mut BTreeMap<std::ffi::OsString, PathBuf>, path: PathBuf) -> Result<(), DataError> {
    let stem = path.file_stem().unwrap_or_default().to_owned();
    match paths.insert(stem, path.clone()) {
        Some(other) => Err(DataError::SameName { path, other }),
        None => Ok(()),
    }
}

/// Reads a photo and its mask, which decodes by values or by colours.
pub(crate) fn read(item: &Item, table: &ClassTable) -> Result<Sample, DataError> {
    let photo = decode::read_image(&item.photo)?;
    let mask_path = item.mask.as_deref().unwrap_or(&item.photo);
    let (label_map, labels) = match decode::read_mask(mask_path)? {
        Mask::Indices(indices) => decode_indices(mask_path, &indices, table)?,
        Mask::Colors(colors) => {
            let labels = table.decode_image(&colors);
            (colors, labels)
        }
    };
    if label_map.dimensions() != photo.dimensions() {
        let ((width, height), (photo_width, photo_height)) = (label_map.dimensions(), photo.dimensions());
        return Err(DataError::SizesDiffer { path: mask_path.to_owned(), width, height, photo_width, photo_height });
    }
    Ok(Sample { name: item.name.clone(), photo, label_map, labels })
}

/// The labels of mask values, and a picture of them in the table's colours.
fn decode_indices(path: &Path, indices: &GrayImage, table: &ClassTable) -> Result<(RgbImage, Vec<u8>), DataError> {
    let (width, height) = indices.dimensions();
    let meanings: [Option<u8>; 256] = std::array::from_fn(|value| table.label_of_index(value as u32));
    if let Some(at) = indices.iter().position(|&value| meanings[usize::from(value)].is_none()) {
        let (value, at) = (indices.as_raw()[at], at as u32);
        let table = table.name().to_owned();
        return Err(DataError::UnknownIndex { path: path.to_owned(), value, x: at % width, y: at / width, table });
    }
    let labels: Vec<u8> = indices.iter().map(|&value| meanings[usize::from(value)].unwrap_or(VOID)).collect();
    let label_map = table.paint(&labels, width, height).unwrap_or_default();
    Ok((label_map, labels))
}
