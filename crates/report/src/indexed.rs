use img2seg_data::{ClassTable, VOID};

use crate::ReportError;

/// Labels as a PNG file of class ids whose palette is the class table: viewers show the class colours, readers get the ids.
///
/// `labels` are class ids row by row. Palette entry 255 has the colour of void; entries that stand for no class are black.
///
/// # Errors
/// [`ReportError::Labels`] where there are not `width * height` labels.
pub fn indexed_png(labels: &[u8], width: u32, height: u32, table: &ClassTable) -> Result<Vec<u8>, ReportError> {
    let mut palette = vec![[0; 3]; 256];
    for (entry, class) in palette.iter_mut().zip(table.classes()) {
        *entry = class.color;
    }
    palette[usize::from(VOID)] = table.color_of(VOID);
    palette_png(labels, width, height, &palette)
}

/// A PNG file of one byte a pixel, each the number of a colour of the palette.
pub(crate) fn palette_png(pixels: &[u8], width: u32, height: u32, palette: &[[u8; 3]]) -> Result<Vec<u8>, ReportError> {
    if pixels.len() as u64 != u64::from(width) * u64::from(height) {
        return Err(ReportError::Labels { found: pixels.len(), width, height });
    }
    let encode = || -> Result<Vec<u8>, png::EncodingError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        encoder.set_palette(palette.concat());
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()?;
        Ok(file)
    };
    encode().map_err(|error| ReportError::Encoding {
        what: format!("a {width}x{height} palette image"),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_the_ids_and_the_table() {
        let table = ClassTable::load("camvid").unwrap();
        let labels = [0, 1, 10, VOID, 2, 3];
        let file = indexed_png(&labels, 3, 2, &table).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
        let palette = reader.info().palette.clone().unwrap();
        assert_eq!(palette.len(), 3 * 256);
        assert_eq!(palette[..3], table.classes()[0].color);
        assert_eq!(palette[30..33], table.classes()[10].color);
        assert_eq!(palette[3 * 255..], table.color_of(VOID));
        let mut indices = [9; 6];
        reader.next_frame(&mut indices).unwrap();
        assert_eq!(indices, labels);

        let shown = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(shown.get_pixel(2, 0).0, table.classes()[10].color);
        assert_eq!(shown.get_pixel(0, 1).0, table.color_of(VOID));
    }

    #[test]
    fn labels_must_fill_the_image() {
        let table = ClassTable::load("camvid").unwrap();
        let error = indexed_png(&[0; 5], 3, 2, &table).unwrap_err();
        assert_eq!(error.to_string(), "labels: 5 of them for 3x2 pixels");
        assert!(indexed_png(&[], 0, 0, &table).is_err());
    }
}
