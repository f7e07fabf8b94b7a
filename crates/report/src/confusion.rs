//! Confusion matrices as pictures: a row a true class, a column a predicted class.

use image::{Rgb, RgbImage, imageops};
use img2seg_data::ClassTable;

use crate::ReportError;
use crate::lettering::{Size, draw, fill};
use crate::write::png;

const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [27, 36, 48];
const SOFT: [u8; 3] = [91, 100, 114];
/// Of the rows of classes that do not occur.
const ABSENT: [u8; 3] = [222, 222, 222];
/// Of cells without a pixel: just enough for the eye to follow a row.
const NONE: [u8; 3] = [246, 247, 250];
/// Of a whole row in one cell; shares are between it and the colour of none.
const FULL: [u8; 3] = [12, 58, 130];

const MARGIN: u32 = 12;
/// Names are cut to so many letters.
const LETTERS: usize = 18;
/// With room for a percentage; more classes than fit a wide screen so get smaller cells without.
const CELL: u32 = 36;
const WIDEST: u32 = 1400;

/// The matrix as a PNG file, each row in shares of its class's pixels: whole percents stand in the cells where there is room.
/// `counts` is a square of the table's classes.
pub(crate) fn confusion_png(counts: &[Vec<u64>], table: &ClassTable) -> Result<Vec<u8>, ReportError> {
    png(&picture(counts, table), "a confusion matrix")
}

fn picture(counts: &[Vec<u64>], table: &ClassTable) -> RgbImage {
    let letters = Size(1);
    let names: Vec<String> = table.classes().iter().map(|class| class.name.chars().take(LETTERS).collect()).collect();
    let classes = names.len().max(1) as u32;
    let cell = CELL.min(WIDEST / classes).max(2);
    let roomy = cell == CELL;
    let widest = names.iter().map(|name| letters.width(name)).max().unwrap_or(0);
    // Names where a line of letters fits a cell, then a swatch of the class's colour.
    let (names_side, swatch) = if cell >= letters.height() { (widest + 8, 14) } else { (0, cell.min(14)) };
    let axis = letters.height() + 8;
    let corner = MARGIN + axis + names_side + swatch + 6;
    let side = corner + classes * cell + MARGIN;
    let mut image = RgbImage::from_pixel(side, side, Rgb(PAPER));

    // Each name beside its swatch, which touches the matrix: at the left of it names end, above it they begin and read upwards.
    let heads = |above: bool| {
        let mut band = RgbImage::from_pixel(corner - axis - MARGIN, classes * cell, Rgb(PAPER));
        for (row, (name, class)) in (0..).zip(names.iter().zip(table.classes())) {
            let (top, edge) = (row * cell, if above { 6 } else { band.width() - 6 - swatch });
            let height = swatch.min(cell - 1);
            fill(&mut band, (edge, top + (cell - height) / 2), (swatch, height), class.color);
            if names_side > 0 {
                let left = if above { edge + swatch + 8 } else { edge - 8 - letters.width(name) };
                draw(&mut band, (left, top + (cell - letters.height()) / 2), name, letters, INK);
            }
        }
        band
    };
    let title = |text: &str| {
        let mut line = RgbImage::from_pixel(letters.width(text), letters.height(), Rgb(PAPER));
        draw(&mut line, (0, 0), text, letters, SOFT);
        line
    };
    let middle = |length: u32| i64::from(corner) + (i64::from(classes * cell) - i64::from(length)).max(0) / 2;
    let (truth, predicted) = (imageops::rotate270(&title("true class")), title("predicted class"));
    imageops::replace(&mut image, &truth, i64::from(MARGIN), middle(truth.height()));
    imageops::replace(&mut image, &predicted, middle(predicted.width()), i64::from(MARGIN));
    imageops::replace(&mut image, &heads(false), i64::from(MARGIN + axis), i64::from(corner));
    imageops::replace(&mut image, &imageops::rotate270(&heads(true)), i64::from(corner), i64::from(MARGIN + axis));

    for (row, counts) in (0..).zip(counts) {
        let pixels: u64 = counts.iter().fold(0, |sum, &count| sum.saturating_add(count));
        for (column, &count) in (0..).zip(counts) {
            let share = if pixels == 0 { 0.0 } else { count as f64 / pixels as f64 };
            let color = if pixels == 0 { ABSENT } else { mixed(share) };
            let (left, top) = (corner + column * cell, corner + row * cell);
            fill(&mut image, (left, top), (cell - u32::from(cell > 4), cell - u32::from(cell > 4)), color);
            let percent = (100.0 * share).round();
            if roomy && percent >= 1.0 {
                let text = format!("{percent}");
                let color = if share > 0.3 { PAPER } else { INK };
                let left = left + (cell - letters.width(&text)) / 2;
                draw(&mut image, (left, top + (cell - letters.height()) / 2), &text, letters, color);
            }
        }
    }
    image
}

/// Between none and full; small shares are lifted, as they are what the eye looks for.
fn mixed(share: f64) -> [u8; 3] {
    let weight = share.clamp(0.0, 1.0).sqrt();
    [0, 1, 2].map(|channel| {
        let (from, to) = (f64::from(NONE[channel]), f64::from(FULL[channel]));
        (from + (to - from) * weight).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(classes: usize) -> ClassTable {
        let entry = |class: usize| format!("[[class]]\nname = 'class {class}'\ncolor = [{class}, 7, 9]\n");
        let entries: Vec<String> = (0..classes).map(entry).collect();
        ClassTable::from_toml(&format!("name = 'many'\n{}", entries.concat()), "many").unwrap()
    }

    #[test]
    fn rows_are_shares_of_their_class() {
        let counts = vec![vec![75, 25, 0], vec![0, 9, 0], vec![0, 0, 0]];
        let file = confusion_png(&counts, &table(3)).unwrap();
        let picture = image::load_from_memory(&file).unwrap().to_rgb8();
        let side = picture.width();
        assert_eq!(side, picture.height());
        // The upper left corner of a cell is free of letters.
        let cell = |row: u32, column: u32| {
            let from = side - MARGIN - 3 * CELL;
            picture.get_pixel(from + column * CELL + 1, from + row * CELL + 1).0
        };
        assert_eq!([cell(0, 0), cell(0, 1), cell(0, 2)], [mixed(0.75), mixed(0.25), NONE]);
        assert_eq!([cell(1, 0), cell(1, 1), cell(1, 2)], [NONE, FULL, NONE]);
        assert_eq!([cell(2, 0), cell(2, 1), cell(2, 2)], [ABSENT; 3]);
        // The swatch of each class stands beside its row and above its column.
        for class in 0..3 {
            let at = side - MARGIN - 3 * CELL + class * CELL + CELL / 2;
            let before = side - MARGIN - 3 * CELL - 8;
            assert_eq!(picture.get_pixel(before, at).0, [class as u8, 7, 9]);
            assert_eq!(picture.get_pixel(at, before).0, [class as u8, 7, 9]);
        }
    }

    #[test]
    fn any_number_of_classes_fits_a_screen() {
        for classes in [1, 2, 19, 40, 200, 255] {
            let counts = vec![vec![u64::MAX; classes]; classes];
            let picture = picture(&counts, &table(classes));
            assert!(picture.width() <= WIDEST + 220, "{classes}: {}", picture.width());
        }
    }
}
