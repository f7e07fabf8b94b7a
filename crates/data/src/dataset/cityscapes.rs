//! Cityscapes as it is downloaded: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` with `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Item, files};
use crate::{DataError, Split};

const PHOTO: &str = "_leftImg8bit.png";
const MASK: &str = "_gtFine_labelIds.png";

/// Photos with their masks; both are read as those of the folders layout, whose mask values are ids.
pub(crate) fn list(root: &Path, split: Split) -> Result<Vec<Item>, DataError> {
    let photos_of = root.join("leftImg8bit").join(split.name());
    let masks_of = root.join("gtFine").join(split.name());
    let photos = scan(&photos_of, PHOTO)?;
    let mut masks: BTreeSet<PathBuf> = scan(&masks_of, MASK)?.into_iter().map(|(_, path)| path).collect();
    let mut items = Vec::new();
    for (name, photo) in photos {
        let city = photo.parent().and_then(Path::file_name).unwrap_or_default();
        let folder = masks_of.join(city);
        let mask = folder.join(format!("{name}{MASK}"));
        if !masks.remove(&mask) {
            return Err(DataError::NoMate { path: photo, missing: "mask", folder });
        }
        items.push(Item { name, photo, mask: Some(mask) });
    }
    if let Some(path) = masks.pop_first() {
        let city = path.parent().and_then(Path::file_name).unwrap_or_default();
        let folder = photos_of.join(city);
        return Err(DataError::NoMate { path, missing: "photo", folder });
    }
    items.sort_by(|a, b| {
        files::name_bytes(&a.photo).cmp(files::name_bytes(&b.photo)).then_with(|| a.photo.cmp(&b.photo))
    });
    Ok(items)
}

/// The files of all cities whose names end so, each with the part of its name before that. Other files, as gtFine's
/// instance ids, are no part of the layout, nor are names that are not UTF-8: the data set has none.
fn scan(folder: &Path, ending: &str) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for city in files::folders(folder)? {
        for path in files::images(&city)? {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ending));
            if let Some(name) = name {
                found.push((name.to_owned(), path));
            }
        }
    }
    Ok(found)
}
