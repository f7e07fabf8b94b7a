use image::{ExtendedColorType, ImageEncoder, Luma, LumaA, Rgb, Rgba, codecs};

use super::*;

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
    encoder.write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn rgb(bytes: &[u8]) -> Result<RgbImage, String> {
    decode_image(bytes).map(DynamicImage::into_rgb8)
}

fn picture() -> RgbImage {
    RgbImage::from_fn(24, 16, |x, y| Rgb([10 * x as u8, 15 * y as u8, 77]))
}

/// A PNG chunk with its checksum.
fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for &byte in kind.iter().chain(data) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    [&(data.len() as u32).to_be_bytes()[..], &kind, data, &(!crc).to_be_bytes()].concat()
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(*b"IHDR", &header)].concat()
}

#[test]
fn content_tells_the_format_and_every_depth_becomes_rgb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really a png.jpg");
    fs::write(&path, png(picture())).unwrap();
    assert_eq!(read_image(&path).unwrap(), picture());

    let grey = image::ImageBuffer::from_fn(3, 2, |x, y| Luma([(40 * x + y) as u8]));
    assert_eq!(rgb(&png(grey.clone())).unwrap().get_pixel(2, 1).0, [81; 3]);
    let alpha = image::ImageBuffer::from_fn(3, 2, |x, _| LumaA([40 * x as u8, 0]));
    assert_eq!(rgb(&png(alpha)).unwrap().get_pixel(2, 1).0, [80; 3]);
    let alpha = image::ImageBuffer::from_fn(3, 2, |x, y| Rgba([x as u8, y as u8, 9, 100]));
    assert_eq!(rgb(&png(alpha)).unwrap().get_pixel(2, 1).0, [2, 1, 9]);
    let deep = image::ImageBuffer::from_fn(3, 2, |x, _| Rgb([257 * x as u16, 65535, 128 * 257_u16]));
    assert_eq!(rgb(&png(DynamicImage::ImageRgb16(deep))).unwrap().get_pixel(2, 1).0, [2, 255, 128]);
}

#[test]
fn jpeg_files_are_read_progressive_ones_too() {
    let decoded = rgb(&jpeg(&picture())).unwrap();
    assert!(decoded.iter().zip(picture().iter()).all(|(a, &b)| a.abs_diff(b) < 16));
    let progressive = rgb(include_bytes!("progressive.jpg")).unwrap();
    assert_eq!(progressive.dimensions(), (16, 8));
    let close = |x, color: [u8; 3]| (0..3).all(|c| progressive.get_pixel(x, 4)[c].abs_diff(color[c]) < 12);
    assert!(close(2, [200, 40, 40]) && close(13, [40, 60, 200]), "{progressive:?}");
}

#[test]
fn files_that_end_early_are_refused_wherever_they_end() {
    for whole in [jpeg(&picture()), include_bytes!("progressive.jpg").to_vec(), png(picture())] {
        // A PNG's last 12 bytes say only that it is over.
        let kept = if whole.starts_with(b"\x89PNG") { whole.len() - 16 } else { whole.len() - 1 };
        for end in 0..kept {
            assert!(rgb(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
        }
    }
    let whole = jpeg(&picture());
    assert_eq!(rgb(&whole[..whole.len() / 2]).unwrap_err(), "a JPEG file that ends early");
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    assert_eq!(rgb(b"").unwrap_err(), "an empty file");
    assert_eq!(rgb(b"dear diary").unwrap_err(), "not a PNG or JPEG image");
    assert_eq!(rgb(b"GIF89a.....").unwrap_err(), "a GIF image, only PNG and JPEG are read");
    assert_eq!(rgb(b"RIFF....WEBPVP8 ").unwrap_err(), "a WEBP image, only PNG and JPEG are read");
    // The frame header of a baseline image of four components.
    let cmyk =
        b"\xFF\xD8\xFF\xC0\x00\x14\x08\x00\x08\x00\x08\x04\x01\x11\x00\x02\x11\x00\x03\x11\x00\x04\x11\x00\xFF\xD9";
    assert_eq!(rgb(cmyk).unwrap_err(), "a CMYK JPEG, only RGB and grey ones are read");
}

#[test]
fn claims_of_size_are_checked_before_memory_is_taken() {
    let size = |width, height| rgb(&[png_header(width, height), chunk(*b"IDAT", &[0; 9])].concat()).unwrap_err();
    assert_eq!(size(100_000, 100_000), "100000x100000, over the limit of 16384 pixels a side");
    assert_eq!(size(16_384, 16_384), "16384x16384, over the limit of 67108864 pixels");
    assert!(!size(0, 5).is_empty());
    assert!(size(0x7FFF_FFFF, 1).to_lowercase().contains("limit"));
    // A chunk that claims a gigabyte and ends.
    let claim = [&png_header(8, 8)[..], &(1_u32 << 30).to_be_bytes(), b"IDAT"].concat();
    assert!(rgb(&claim).is_err());
    let mut tall = jpeg(&picture());
    let frame = tall.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    tall[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
    assert_eq!(rgb(&tall).unwrap_err(), "65535x65535, over the limit of 16384 pixels a side");
    tall[frame + 5..frame + 9].copy_from_slice(&[0; 4]);
    assert!(rgb(&tall).is_err());
}

/// Found by fuzzing: png 0.18.1 indexes beyond a palette that ends within a colour.
#[test]
fn a_palette_that_ends_within_a_color_is_refused() {
    let header = [6_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat();
    let header = [&header[..], &[2, 3, 0, 0, 0]].concat();
    // One row of six values, stored by zlib as it is.
    let data = b"\x78\x01\x01\x03\x00\xFC\xFF\x00\x1B\x10\x00\x49\x00\x2C";
    for (length, reason) in
        [(50, "a palette of 50 bytes, which are no colours"), (2, "a palette of 2 bytes, which are no colours")]
    {
        let chunks = [chunk(*b"IHDR", &header), chunk(*b"PLTE", &[9; 64][..length]), chunk(*b"IDAT", data)];
        let bytes = [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat()].concat();
        assert_eq!(rgb(&bytes).unwrap_err(), reason);
        assert_eq!(decode_mask(&bytes).err().unwrap(), reason);
    }
}

#[test]
fn exif_orientation_is_applied() {
    let plain = jpeg(&picture());
    for (orientation, expected) in [(1, (24, 16)), (3, (24, 16)), (6, (16, 24)), (8, (16, 24))] {
        let tiff =
            [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0, 0, 0, 0, 0]].concat();
        let exif = [b"Exif\0\0".as_slice(), &tiff].concat();
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let turned = [&plain[..2], &[0xFF, 0xE1], &length, &exif, &plain[2..]].concat();
        assert_eq!(rgb(&turned).unwrap().dimensions(), expected, "orientation {orientation}");
    }
}

#[test]
fn masks_keep_the_values_of_grey_and_of_palettes() {
    let indices = |bytes: &[u8]| match decode_mask(bytes).unwrap() {
        Mask::Indices(indices) => indices.into_raw(),
        Mask::Colors(_) => panic!("colours"),
    };
    let values: Vec<u8> = (0..15).collect();
    assert_eq!(indices(&png(GrayImage::from_raw(5, 3, values.clone()).unwrap())), values);

    // Four values in 0..=15, packed into 1, 2, 4 and 8 bits, of grey and of a palette, in rows that end within a byte.
    for (depth, bits) in
        [(png::BitDepth::One, 1), (png::BitDepth::Two, 2), (png::BitDepth::Four, 4), (png::BitDepth::Eight, 8)]
    {
        for color in [png::ColorType::Grayscale, png::ColorType::Indexed] {
            let rows: [[u8; 3]; 2] = [[1, 0, 3], [2, 3, 1]];
            let rows = rows.map(|row| row.map(|value| value & ((1 << bits.min(7)) - 1)));
            let pack = |row: &[u8; 3]| -> Vec<u8> {
                let mut packed = vec![0; (3 * bits as usize).div_ceil(8)];
                for (x, value) in row.iter().enumerate() {
                    let bit = x * bits as usize;
                    packed[bit / 8] |= value << (8 - bits as usize - bit % 8);
                }
                packed
            };
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 3, 2);
            encoder.set_color(color);
            encoder.set_depth(depth);
            if color == png::ColorType::Indexed {
                // Colours that would not read back as the indices.
                encoder.set_palette(vec![200; 3 * (1 << bits.min(2))]);
            }
            encoder.write_header().unwrap().write_image_data(&rows.iter().flat_map(pack).collect::<Vec<_>>()).unwrap();
            assert_eq!(indices(&bytes), rows.concat(), "{color:?}, {bits} bits");
        }
    }
}

#[test]
fn masks_that_cannot_hold_indices_are_refused() {
    let refused = |bytes: &[u8]| decode_mask(bytes).err().unwrap();
    let deep = image::ImageBuffer::from_pixel(2, 2, Luma([7_u16]));
    assert_eq!(
        refused(&png(DynamicImage::ImageLuma16(deep))),
        "16-bit grey; a mask of class indices has at most 8 bits"
    );
    let alpha = image::ImageBuffer::from_pixel(2, 2, LumaA([7_u8, 9]));
    assert_eq!(refused(&png(alpha)), "grey with alpha; a mask of class indices has grey alone");
    let mut grey = Vec::new();
    codecs::jpeg::JpegEncoder::new(&mut grey).write_image(&[7; 64], 8, 8, ExtendedColorType::L8).unwrap();
    assert_eq!(refused(&grey), "a grey JPEG, which does not keep class indices; PNG does");
    assert!(refused(&[png_header(100_000, 1), chunk(*b"IDAT", &[])].concat()).contains("over the limit"));
    assert!(matches!(decode_mask(&png(picture())), Ok(Mask::Colors(colors)) if colors == picture()));
    assert!(matches!(decode_mask(&jpeg(&picture())), Ok(Mask::Colors(_))));
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let error = read_image(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "/dev/zero: not a regular file");
    let folder = tempfile::tempdir().unwrap();
    let error = read_image(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: not a regular file", folder.path().display()));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 400, failure_persistence: None, ..Default::default() })]
    #[test]
    fn damaged_files_are_read_or_refused(
        which in 0_usize..4,
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..6),
        cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
    ) {
        let grey = GrayImage::from_fn(9, 7, |x, y| Luma([(x + y) as u8]));
        let mut bytes = match which {
            0 => jpeg(&picture()),
            1 => include_bytes!("progressive.jpg").to_vec(),
            2 => png(picture()),
            _ => png(grey),
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = decode_image(&bytes);
        let _ = decode_mask(&bytes);
    }
}
