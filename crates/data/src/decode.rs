//! Files to pixels: PNG and JPEG, told by their content, within stated limits.

mod jpeg;
mod palette;

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::DataError;
use crate::config::MAX_SIDE;

/// The largest image that is read, in pixels: 200 MB as RGB.
const MAX_PIXELS: u64 = 1 << 26;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 28;

/// What a decoder may allocate beside the image itself.
const MAX_SIDE_ALLOCATION: u64 = 1 << 26;

/// What a mask file holds.
pub(crate) enum Mask {
    /// Class indices: 8-bit grey or palette PNG.
    Indices(GrayImage),
    /// Class colours: everything else.
    Colors(RgbImage),
}

/// Reads a PNG or JPEG file as 8-bit RGB.
///
/// Grey becomes RGB, 16-bit samples are rounded to 8 bits, alpha is dropped, and the orientation in EXIF is applied. Refused by
/// name: other formats, CMYK, more than 16384 pixels a side or 2^26 in all, files over 256 MiB, and JPEG files that end early.
pub fn read_image(path: &Path) -> Result<RgbImage, DataError> {
    let bytes = read_bytes(path)?;
    decode_image(&bytes).map(DynamicImage::into_rgb8).map_err(|reason| DataError::image(path, reason))
}

/// Reads a mask: the raw values of grey and palette PNG files of up to 8 bits, the colours of all others.
pub(crate) fn read_mask(path: &Path) -> Result<Mask, DataError> {
    let bytes = read_bytes(path)?;
    decode_mask(&bytes).map_err(|reason| DataError::image(path, reason))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    // Opening a named pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(DataError::io(path))?;
    if !metadata.is_file() {
        return Err(DataError::image(path, "not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(DataError::io(path))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(DataError::image(path, format!("a file over {} MiB", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

fn format_of(bytes: &[u8]) -> Result<ImageFormat, String> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => Ok(format),
        Ok(other) => Err(format!("a {} image, only PNG and JPEG are read", format!("{other:?}").to_uppercase())),
        Err(_) if bytes.is_empty() => Err("an empty file".into()),
        Err(_) => Err("not a PNG or JPEG image".into()),
    }
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    let longest = width.max(height);
    if width == 0 || height == 0 {
        Err(format!("{width}x{height}, an image without pixels"))
    } else if longest as usize > MAX_SIDE {
        Err(format!("{width}x{height}, over the limit of {MAX_SIDE} pixels a side"))
    } else if u64::from(width) * u64::from(height) > MAX_PIXELS {
        Err(format!("{width}x{height}, over the limit of {MAX_PIXELS} pixels"))
    } else {
        Ok(())
    }
}

/// Decodes the bytes of a PNG or JPEG file as [`read_image`] does, in the colours and depth that they have; the error is the reason.
pub fn decode_image(bytes: &[u8]) -> Result<DynamicImage, String> {
    let format = format_of(bytes)?;
    match format {
        ImageFormat::Jpeg => jpeg::check(bytes)?,
        _ => palette::check(bytes)?,
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_SIDE_ALLOCATION);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn decode_mask(bytes: &[u8]) -> Result<Mask, String> {
    if format_of(bytes)? == ImageFormat::Jpeg {
        let image = decode_image(bytes)?;
        if image.color() == ColorType::L8 {
            return Err("a grey JPEG, which does not keep class indices; PNG does".into());
        }
        return Ok(Mask::Colors(image.into_rgb8()));
    }
    palette::check(bytes)?;
    // The image crate turns palette indices into colours.
    let limits = png::Limits { bytes: MAX_SIDE_ALLOCATION as usize };
    let decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let (width, height) = reader.info().size();
    let (color, depth) = (reader.info().color_type, reader.info().bit_depth);
    match (color, depth) {
        (png::ColorType::Rgb | png::ColorType::Rgba, _) => {
            return decode_image(bytes).map(DynamicImage::into_rgb8).map(Mask::Colors);
        }
        (png::ColorType::GrayscaleAlpha, _) => {
            return Err("grey with alpha; a mask of class indices has grey alone".into());
        }
        (_, png::BitDepth::Sixteen) => return Err("16-bit grey; a mask of class indices has at most 8 bits".into()),
        (png::ColorType::Grayscale | png::ColorType::Indexed, _) => check_size(width, height)?,
    }
    let size = reader.output_buffer_size().ok_or("too large")?;
    let mut packed = vec![0; size];
    let frame = reader.next_frame(&mut packed).map_err(|error| error.to_string())?;
    let indices =
        packed.chunks_exact(frame.line_size).flat_map(|row| unpack(row, depth as usize, width as usize)).collect();
    let indices = GrayImage::from_raw(width, height, indices).ok_or("fewer rows than its header says")?;
    let mut image = DynamicImage::ImageLuma8(indices);
    if let Some(orientation) = reader.info().exif_metadata.as_deref().and_then(Orientation::from_exif_chunk) {
        image.apply_orientation(orientation);
    }
    Ok(Mask::Indices(image.into_luma8()))
}

/// The values of a row that packs 8 / `bits` of them into a byte, the first one highest.
fn unpack(row: &[u8], bits: usize, width: usize) -> impl Iterator<Item = u8> {
    let per_byte = 8 / bits;
    (0..width).map(move |x| row[x / per_byte] << (bits * (x % per_byte)) >> (8 - bits))
}

#[cfg(test)]
mod tests;
