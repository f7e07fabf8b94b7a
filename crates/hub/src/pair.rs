use std::fs;
use std::path::Path;

use image::ImageFormat;

use crate::HubError;

/// A row of a table: one cell with a side-by-side pair, or one with a photo and one with its label map.
pub(crate) struct Pair<'a> {
    /// The parquet file.
    pub(crate) file: &'a Path,
    /// The row in that file, from 0.
    pub(crate) row: usize,
    /// The column of each cell.
    pub(crate) columns: &'a [String],
    /// Encoded images; `None` where the table has none.
    pub(crate) cells: Vec<Option<&'a [u8]>>,
}

/// An encoded image that can be decoded.
struct Encoded<'a> {
    bytes: &'a [u8],
    extension: &'static str,
    width: u32,
    height: u32,
}

impl Pair<'_> {
    /// Writes the images as number `number` of a split; folders are made as needed.
    pub(crate) fn write(&self, split: &Path, number: usize) -> Result<(), HubError> {
        let images = self.columns.iter().zip(&self.cells).map(|(column, cell)| {
            decodable(*cell).map_err(|reason| self.broken(format!("column `{column}`: {reason}")))
        });
        match images.collect::<Result<Vec<_>, _>>()?.as_slice() {
            [Encoded { width, height, .. }] if width % 2 == 1 => {
                Err(self.broken(format!("not a photo and a label map side by side ({width}x{height})")))
            }
            [pair] => pair.write(split, number),
            [photo, label_map] if (photo.width, photo.height) != (label_map.width, label_map.height) => Err(self
                .broken(format!(
                    "the photo has {}x{}, its label map {}x{}",
                    photo.width, photo.height, label_map.width, label_map.height
                ))),
            [photo, label_map, ..] => {
                photo.write(&split.join("images"), number)?;
                label_map.write(&split.join("masks"), number)
            }
            [] => Err(self.broken("no image".to_owned())),
        }
    }

    fn broken(&self, reason: String) -> HubError {
        HubError::Row { file: self.file.to_owned(), row: self.row, reason }
    }
}

impl Encoded<'_> {
    fn write(&self, folder: &Path, number: usize) -> Result<(), HubError> {
        fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        let path = folder.join(format!("{number:05}.{}", self.extension));
        fs::write(&path, self.bytes).map_err(HubError::io(path))
    }
}

fn decodable(cell: Option<&[u8]>) -> Result<Encoded<'_>, String> {
    let bytes = cell.ok_or("no image")?;
    let extension = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => "png",
        Ok(ImageFormat::Jpeg) => "jpg",
        Ok(other) => return Err(format!("a {other:?} image, neither PNG nor JPEG")),
        Err(_) => return Err("neither PNG nor JPEG".to_owned()),
    };
    // As it will be read again, with the limits and refusals of that.
    let image = img2seg_data::decode_image(bytes)?;
    Ok(Encoded { bytes, extension, width: image.width(), height: image.height() })
}
