//! Sheets of samples: photo, truth and prediction side by side, row by row.

use std::io::Cursor;

use image::ImageFormat;
use img2seg_data::{ClassTable, sheet};

use crate::TrainingError;
use crate::evaluate::Picture;

/// The PNG of a sheet; none without pictures.
pub fn png(pictures: &[Picture], classes: &ClassTable) -> Result<Option<Vec<u8>>, TrainingError> {
    let tiles: Vec<_> = pictures
        .iter()
        .flat_map(|picture| [picture.photo.clone(), picture.label_map.clone(), picture.predicted.to_image(classes)])
        .collect();
    let Some(sheet) = sheet(&tiles, 3, 4) else { return Ok(None) };
    let mut bytes = Vec::new();
    sheet.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(candle_core::Error::wrap)?;
    Ok(Some(bytes))
}
