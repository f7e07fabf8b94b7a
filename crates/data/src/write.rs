//! Pairs to PNG files. A file appears under its name when it is whole, never before.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use image::RgbImage;

use crate::{DataError, Direction};

/// Writes a photo and its label map side by side, as the pairs layout reads them.
pub fn write_pair(path: &Path, photo: &RgbImage, label_map: &RgbImage, direction: Direction) -> Result<(), DataError> {
    let (width, height) = photo.dimensions();
    if label_map.dimensions() != (width, height) {
        let (width, height) = label_map.dimensions();
        let (photo_width, photo_height) = photo.dimensions();
        return Err(DataError::SizesDiffer { path: path.to_owned(), width, height, photo_width, photo_height });
    }
    let (left, right) = match direction {
        Direction::PhotoLeft => (photo, label_map),
        Direction::LabelLeft => (label_map, photo),
    };
    let row = (3 * width as usize).max(1);
    let rows = left.as_raw().chunks_exact(row).zip(right.as_raw().chunks_exact(row));
    let bytes: Vec<u8> = rows.flat_map(|(left, right)| [left, right]).flatten().copied().collect();
    write_whole(path, &encode(path, 2 * width, height, &bytes)?)
}

fn encode(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_filter(png::Filter::Adaptive);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map_err(|error| DataError::image(path, error.to_string()))?;
    Ok(bytes)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let name = path.file_name().ok_or_else(|| DataError::image(path, "not the name of a file"))?;
    // Listings leave hidden files out.
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let partial = path.with_file_name(hidden);
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).map_err(|source| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
        DataError::Io { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::read_image;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let photo = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 7]));
        let label_map = RgbImage::from_pixel(3, 2, Rgb([70, 130, 180]));
        let path = folder.path().join("ä b.png");
        write_pair(&path, &photo, &label_map, Direction::PhotoLeft).unwrap();
        let pair = read_image(&path).unwrap();
        assert_eq!(pair.dimensions(), (6, 2));
        assert_eq!(image::imageops::crop_imm(&pair, 0, 0, 3, 2).to_image(), photo);
        assert_eq!(image::imageops::crop_imm(&pair, 3, 0, 3, 2).to_image(), label_map);
        write_pair(&path, &photo, &label_map, Direction::LabelLeft).unwrap();
        assert_eq!(image::imageops::crop_imm(&read_image(&path).unwrap(), 3, 0, 3, 2).to_image(), photo);
        // Nothing but the file itself is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/such.png");
        let photo = RgbImage::new(2, 2);
        let error = write_pair(&path, &photo, &photo, Direction::PhotoLeft).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
        let error = write_pair(Path::new("x.png"), &photo, &RgbImage::new(1, 2), Direction::PhotoLeft).unwrap_err();
        assert_eq!(error.to_string(), "x.png: 1x2, but its photo has 2x2");
    }
}
