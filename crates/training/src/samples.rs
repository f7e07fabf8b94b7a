//! Sheets of samples: photo, truth and prediction side by side, row by row.

use std::io::Cursor;

use image::ImageFormat;
use img2seg_data::{ClassTable, sheet};

use crate::evaluate::Picture;
use crate::{RunDir, TrainingError};

/// Writes `samples/epoch-NNN.png`.
pub fn write(run: &RunDir, epoch: usize, pictures: &[Picture], classes: &ClassTable) -> Result<(), TrainingError> {
    let directory = run.file("samples");
    std::fs::create_dir_all(&directory).map_err(TrainingError::file(&directory))?;
    let tiles: Vec<_> = pictures
        .iter()
        .flat_map(|picture| [picture.photo.clone(), picture.label_map.clone(), picture.predicted.to_image(classes)])
        .collect();
    let Some(sheet) = sheet(&tiles, 3, 4) else { return Ok(()) };
    let mut bytes = Vec::new();
    sheet.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(candle_core::Error::wrap)?;
    crate::run_dir::write_whole(&directory.join(format!("epoch-{epoch:03}.png")), &bytes)
}
