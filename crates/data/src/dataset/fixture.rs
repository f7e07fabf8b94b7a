//! Small data sets that tests write.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::{AugmentConfig, ClassTable, DataConfig, Dataset, Direction, Layout, Split, write_pair};

/// What the table of [`table`] calls road, sky and void.
pub(crate) const ROAD: [u8; 3] = [128, 64, 128];
pub(crate) const SKY: [u8; 3] = [70, 130, 180];
pub(crate) const UNKNOWN: [u8; 3] = [0, 0, 0];

/// Mask values 0 and 1 are the classes road and sky, 2 is void.
pub(crate) fn table() -> Arc<ClassTable> {
    let entry = |name, color| format!("[[class]]\nname = '{name}'\ncolor = {color:?}\n");
    let entries = [entry("road", ROAD), entry("sky", SKY), entry("unknown", UNKNOWN)].concat();
    Arc::new(ClassTable::from_toml(&format!("name = 'street'\nvoid = [2]\n{entries}"), "street").unwrap())
}

pub(crate) fn config(layout: Layout) -> DataConfig {
    let text = r#"
        layout = "auto"
        direction = "photo-left"
        classes = "camvid"
        height = 8
        width = 12
        batch_size = 1
        cache_mib = 0
        [augment]
        scale = [1.0, 1.0]
        flip = 0.0
        brightness = 0.0
        contrast = 0.0
        saturation = 0.0
        hue = 0.0
        blur = 0.0
        noise = 0.0
        erase = 0.0
        cut_mix = 0.0
    "#;
    DataConfig { layout, augment: AugmentConfig::NONE, ..toml::from_str(text).unwrap() }
}

pub(crate) fn open(root: &Path, layout: Layout) -> Result<Dataset, String> {
    Dataset::open(root, Split::Train, &config(layout), table()).map_err(|error| error.to_string())
}

/// A photo in which no two pixels are alike.
pub(crate) fn photo(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, seed as u8]))
}

/// Sky in the upper half, road below, void in the lower right corner.
pub(crate) fn label_map(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb(match (2 * x < width, 2 * y < height) {
            (_, true) => SKY,
            (true, false) => ROAD,
            (false, false) => UNKNOWN,
        })
    })
}

/// The same as mask values.
pub(crate) fn indices(width: u32, height: u32) -> GrayImage {
    let table = table();
    let value = |color| if color == UNKNOWN { 2 } else { table.decode(color) };
    GrayImage::from_fn(width, height, |x, y| Luma([value(label_map(width, height).get_pixel(x, y).0)]))
}

/// Writes `count` pairs of 10 x 6 pixels a half into `ROOT/train`.
pub(crate) fn write_pairs(root: &Path, count: u32) {
    fs::create_dir_all(root.join("train")).unwrap();
    for i in 0..count {
        let path = root.join(format!("train/{i:02}.png"));
        write_pair(&path, &photo(10, 6, i), &label_map(10, 6), Direction::PhotoLeft).unwrap();
    }
}
