//! A data set at a glance: photos beside their label maps, and a legend of the classes with their shares.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use img2seg_data::{ClassTable, Sample, VOID};

use crate::lettering::{Size, draw, fill};

const TITLE: Size = Size(2);
const TEXT: Size = Size(1);

const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [31, 41, 55];
const FAINT: [u8; 3] = [107, 114, 128];
const TRACK: [u8; 3] = [233, 236, 240];

/// A photo's larger side is brought into this range, in pixels, by whole factors.
pub(crate) const SIDES: (u32, u32) = (128, 320);
const MARGIN: u32 = 24;
/// Between a photo and its label map.
const SEAM: u32 = 4;
const BAR: u32 = 120;
/// Of a line of the legend.
const LINE: u32 = 24;
const SWATCH: u32 = 14;

/// Draws samples as rows of photo | label map, and beside them the class legend with the share of each class as a bar.
///
/// `frequencies` are fractions of all pixels, one an evaluated class in the table's order and void's last; missing ones are left
/// out. Large samples are shrunk and small ones enlarged by whole factors. Without samples the sheet is the legend alone.
pub fn dataset_sheet(samples: &[Sample], table: &ClassTable, frequencies: &[f64], title: &str) -> RgbImage {
    let pairs: Vec<(RgbImage, &str)> = samples.iter().map(|sample| (pair(sample), sample.name.as_str())).collect();
    let cell_width = pairs.iter().map(|(pair, _)| pair.width()).max().unwrap_or(0);
    let caption = TEXT.height() + 6;
    let cell_height = pairs.iter().map(|(pair, _)| pair.height()).max().unwrap_or(0) + caption;
    // A pair is about twice as wide as it is high: this makes the block of pairs about square.
    let columns = (pairs.len() as f64 / 2.0).sqrt().round().max(1.0) as u32;
    let rows = (pairs.len() as u32).div_ceil(columns);

    let legend = Legend::new(table, frequencies);
    let top = MARGIN + TITLE.height() + 20;
    let grid_width = if pairs.is_empty() { 0 } else { columns * (cell_width + MARGIN) };
    let sheet_width = (MARGIN + grid_width + legend.width()).max(MARGIN + TITLE.width(title)) + MARGIN;
    let sheet_height = top + (rows * (cell_height + 12)).max(legend.height()) + MARGIN;
    let mut sheet = RgbImage::from_pixel(sheet_width, sheet_height, Rgb(PAPER));

    draw(&mut sheet, (MARGIN, MARGIN), title, TITLE, INK);
    for (index, (pair, name)) in (0..).zip(&pairs) {
        let x = MARGIN + index % columns * (cell_width + MARGIN);
        let y = top + index / columns * (cell_height + 12);
        imageops::replace(&mut sheet, pair, i64::from(x), i64::from(y));
        let name: String = name.chars().take((cell_width / TEXT.width("x")) as usize).collect();
        draw(&mut sheet, (x, y + pair.height() + 4), &name, TEXT, FAINT);
    }
    legend.draw(&mut sheet, MARGIN + grid_width, top);
    sheet
}

/// A sample's photo and label map side by side, at a size that fits a sheet.
fn pair(sample: &Sample) -> RgbImage {
    let photo = fitted(&sample.photo, FilterType::Triangle);
    let label_map = fitted(&sample.label_map, FilterType::Nearest);
    let mut pair = RgbImage::from_pixel(2 * photo.width() + SEAM, photo.height(), Rgb(PAPER));
    imageops::replace(&mut pair, &photo, 0, 0);
    imageops::replace(&mut pair, &label_map, i64::from(photo.width() + SEAM), 0);
    pair
}

/// A picture with its larger side in the range of a sheet's, by whole factors: small ones keep their pixels, large ones are shrunk with the
/// filter, which for label maps is the nearest pixel, so that no colour is mixed.
pub(crate) fn fitted(picture: &RgbImage, smaller: FilterType) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = width.max(height).max(1);
    if side > SIDES.1 {
        let factor = side.div_ceil(SIDES.1);
        imageops::resize(picture, (width / factor).max(1), (height / factor).max(1), smaller)
    } else {
        let factor = SIDES.0.div_ceil(side);
        imageops::resize(picture, (width * factor).max(1), (height * factor).max(1), FilterType::Nearest)
    }
}

struct Legend {
    /// Colour, name, and share where it is known.
    entries: Vec<([u8; 3], String, Option<f64>)>,
    longest_name: u32,
    largest_share: f64,
}

impl Legend {
    fn new(table: &ClassTable, frequencies: &[f64]) -> Self {
        let classes = table.classes().iter().map(|class| (class.color, class.name.clone()));
        let void = std::iter::once((table.color_of(VOID), "void".to_owned()));
        let entries: Vec<_> = classes
            .chain(void)
            .enumerate()
            .map(|(index, (color, name))| (color, name, frequencies.get(index).copied()))
            .collect();
        Self {
            longest_name: entries.iter().map(|(_, name, _)| TEXT.width(name)).max().unwrap_or(0),
            largest_share: frequencies.iter().copied().fold(0.0, f64::max),
            entries,
        }
    }

    fn width(&self) -> u32 {
        SWATCH + 10 + self.longest_name + 12 + BAR + 8 + TEXT.width("100.00%")
    }

    fn height(&self) -> u32 {
        (self.entries.len() as u32 + 1) * LINE
    }

    fn draw(&self, sheet: &mut RgbImage, left: u32, top: u32) {
        draw(sheet, (left, top), "classes and their share of all pixels", TEXT, FAINT);
        let name_left = left + SWATCH + 10;
        let bar_left = name_left + self.longest_name + 12;
        for (index, (color, name, share)) in (1..).zip(&self.entries) {
            let y = top + index * LINE;
            fill(sheet, (left, y), (SWATCH, SWATCH), FAINT);
            fill(sheet, (left + 1, y + 1), (SWATCH - 2, SWATCH - 2), *color);
            draw(sheet, (name_left, y - 1), name, TEXT, INK);
            let Some(share) = share else { continue };
            fill(sheet, (bar_left, y + 2), (BAR, SWATCH - 4), TRACK);
            let length = share / self.largest_share.max(f64::MIN_POSITIVE) * f64::from(BAR);
            fill(sheet, (bar_left, y + 2), (length.round().clamp(0.0, f64::from(BAR)) as u32, SWATCH - 4), FAINT);
            let percent = format!("{:6.2}%", 100.0 * share);
            draw(sheet, (bar_left + BAR + 8, y - 1), &percent, TEXT, INK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, width: u32, height: u32) -> Sample {
        Sample {
            name: name.to_owned(),
            photo: RgbImage::from_pixel(width, height, Rgb([1, 2, 3])),
            label_map: RgbImage::from_pixel(width, height, Rgb([128, 64, 128])),
            labels: vec![3; (width * height) as usize],
        }
    }

    #[test]
    fn photos_and_label_maps_stand_side_by_side() {
        let table = ClassTable::load("camvid").unwrap();
        let sheet = dataset_sheet(&[sample("a", 200, 100), sample("b", 200, 100)], &table, &[], "two");
        let top = MARGIN + TITLE.height() + 20;
        assert_eq!(sheet.get_pixel(MARGIN, top).0, [1, 2, 3]);
        assert_eq!(sheet.get_pixel(MARGIN + 199, top + 99).0, [1, 2, 3]);
        assert_eq!(sheet.get_pixel(MARGIN + 200, top).0, PAPER);
        assert_eq!(sheet.get_pixel(MARGIN + 204, top).0, [128, 64, 128]);
        let second = top + 100 + TEXT.height() + 6 + 12;
        assert_eq!(sheet.get_pixel(MARGIN, second).0, [1, 2, 3]);
        assert!(sheet.height() >= second + 100);
    }

    #[test]
    fn sizes_are_brought_into_range_by_whole_factors() {
        assert_eq!(pair(&sample("tiny", 16, 8)).dimensions(), (2 * 128 + SEAM, 64));
        assert_eq!(pair(&sample("full", 2048, 1024)).dimensions(), (2 * 292 + SEAM, 146));
        assert_eq!(pair(&sample("fits", 256, 256)).dimensions(), (2 * 256 + SEAM, 256));
    }

    #[test]
    fn the_legend_shows_colors_and_shares() {
        let table = ClassTable::load("camvid").unwrap();
        let mut frequencies = vec![0.0; table.len() + 1];
        frequencies[0] = 0.6;
        frequencies[1] = 0.3;
        let sheet = dataset_sheet(&[], &table, &frequencies, "legend");
        let (left, first) = (MARGIN, MARGIN + TITLE.height() + 20 + LINE);
        assert_eq!(sheet.get_pixel(left + 3, first + 3).0, table.classes()[0].color);
        let bar = left + SWATCH + 10 + TEXT.width("SignSymbol") + 12;
        assert_eq!(sheet.get_pixel(bar + BAR - 1, first + 4).0, FAINT);
        assert_eq!(sheet.get_pixel(bar + BAR / 2 - 1, first + LINE + 4).0, FAINT);
        assert_eq!(sheet.get_pixel(bar + BAR / 2, first + LINE + 4).0, TRACK);
        assert_eq!(sheet.get_pixel(bar, first + 2 * LINE + 4).0, TRACK);
    }
}
