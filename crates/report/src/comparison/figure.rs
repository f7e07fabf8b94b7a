//! What several runs make of the same photos, as one picture: for a text or a talk.

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::ReportError;
use crate::lettering::{Size, draw};
use crate::page::Column;
use crate::page::pictures::{Matched, matched, read};
use crate::sheet::{SIDES, fitted};
use crate::table::percent;
use crate::write::png;

const TEXT: Size = Size(1);
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [27, 36, 48];
const SOFT: [u8; 3] = [91, 100, 114];

/// Rows of the figure.
const MOST: usize = 6;
/// Between pictures, and around them.
const GAP: u32 = 6;
/// Below a picture, with its line of text.
const CAPTION: u32 = 22;

/// A PNG file: photo, label map, and a column for each run, a row an image, those first on which the runs differ most. Each prediction has
/// its pixel accuracy below it.
pub(crate) fn figure_png(columns: &[Column]) -> Result<Vec<u8>, ReportError> {
    let rows = matched(columns);
    let rows = rows.iter().take(MOST).map(Row::read).collect::<Result<Vec<_>, _>>()?;
    png(&drawn(columns, &rows), "the pictures")
}

/// Pictures and the text below each.
struct Row(Vec<Option<(RgbImage, String)>>);

impl Row {
    fn read(image: &Matched) -> Result<Self, ReportError> {
        let labelled = |dir: &Path, file: &str, text: String| -> Result<_, ReportError> {
            let smaller = if file == "photo.png" { FilterType::Triangle } else { FilterType::Nearest };
            Ok(Some((cell(&dir.join(file), smaller)?, text)))
        };
        let Matched { first, of } = image;
        let mut cells = vec![
            labelled(&first.dir, "photo.png", first.score.name.clone())?,
            labelled(&first.dir, "truth.png", "pixel accuracy:".to_owned())?,
        ];
        for picture in of {
            cells.push(match picture {
                Some(picture) => {
                    let accuracy = format!("{} %", percent(picture.score.pixel_accuracy));
                    labelled(&picture.dir, "prediction.png", accuracy)?
                }
                None => None,
            });
        }
        Ok(Self(cells))
    }

    /// The widest and the highest of its pictures.
    fn extent(&self) -> (u32, u32) {
        let sizes = self.0.iter().flatten().map(|(picture, _)| picture.dimensions());
        sizes.fold((0, 0), |most, size| (most.0.max(size.0), most.1.max(size.1)))
    }
}

/// A file at a size that fits the figure.
fn cell(path: &Path, smaller: FilterType) -> Result<RgbImage, ReportError> {
    Ok(fitted(&read(path)?.1.into_rgb8(), smaller))
}

fn drawn(columns: &[Column], rows: &[Row]) -> RgbImage {
    let width = rows.iter().map(|row| row.extent().0).max().unwrap_or(0).max(SIDES.0);
    let letters = (width / TEXT.width("x")) as usize;
    let names = ["photo", "label map"].into_iter().chain(columns.iter().map(|column| column.name.as_str()));
    let heads: Vec<Vec<String>> = names.map(|name| broken(name, letters)).collect();
    let lines = heads.iter().map(Vec::len).max().unwrap_or(0) as u32;

    let head = GAP + lines * TEXT.height() + GAP;
    let height: u32 = rows.iter().map(|row| row.extent().1 + CAPTION).sum();
    let left = |column: usize| GAP + column as u32 * (width + GAP);
    let mut figure = RgbImage::from_pixel(left(heads.len()), head + height + GAP, Rgb(PAPER));
    for (column, head) in heads.iter().enumerate() {
        // Short names end where long ones do, just above the pictures.
        for (line, text) in (lines - head.len() as u32..).zip(head) {
            draw(&mut figure, (left(column), GAP + line * TEXT.height()), text, TEXT, INK);
        }
    }
    let mut top = head;
    for row in rows {
        let height = row.extent().1;
        for (column, cell) in row.0.iter().enumerate() {
            let Some((picture, text)) = cell else { continue };
            imageops::replace(&mut figure, picture, i64::from(left(column)), i64::from(top));
            let text: String = text.chars().take(letters).collect();
            draw(&mut figure, (left(column), top + height + 2), &text, TEXT, SOFT);
        }
        top += height + CAPTION;
    }
    figure
}

/// A name in lines of at most so many letters, broken after hyphens and the like where that can be.
fn broken(name: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in name.split_inclusive(|letter: char| !letter.is_alphanumeric()) {
        let part: Vec<char> = part.chars().collect();
        for piece in part.chunks(letters.max(1)) {
            match lines.last_mut().filter(|line| line.chars().count() + piece.len() <= letters) {
                Some(line) => line.extend(piece),
                None => lines.push(piece.iter().collect()),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Output, write_run};
    use crate::run::Run;

    fn columns(runs: &[Run]) -> Vec<Column<'_>> {
        let column = |(series, run)| {
            let run: &Run = run;
            Column { name: run.name.clone(), series, run, evaluation: run.headline() }
        };
        runs.iter().enumerate().map(column).collect()
    }

    #[test]
    fn names_break_where_they_can() {
        assert_eq!(broken("adversary-alone-seed-0", 16), ["adversary-alone-", "seed-0"]);
        assert_eq!(broken("unet", 16), ["unet"]);
        assert_eq!(broken("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(broken("a b", 1), ["a", " ", "b"]);
        assert!(broken("", 5).is_empty());
    }

    #[test]
    fn a_column_each_and_a_hole_where_a_run_kept_no_picture() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["unet", "cgan-without-skips"].map(|name| dir.path().join(name));
        for dir in &dirs {
            write_run(dir, Output::Colors, 0.5);
        }
        let figure = |runs: &[Run]| image::load_from_memory(&figure_png(&columns(runs)).unwrap()).unwrap().into_rgb8();
        let open = || dirs.iter().map(|dir| Run::open(dir).unwrap()).collect::<Vec<_>>();
        let whole = figure(&open());
        // Two lines of names; pictures of 4x4 are enlarged 32 times.
        let side = 128;
        let head = GAP + 2 * TEXT.height() + GAP;
        assert_eq!(whole.dimensions(), (GAP + 4 * (side + GAP), head + side + CAPTION + GAP));
        let stored =
            |file: &str| image::open(dirs[0].join("evaluation/val/pictures/000").join(file)).unwrap().into_rgb8();
        for (column, file) in ["photo.png", "truth.png", "prediction.png", "prediction.png"].into_iter().enumerate() {
            for (x, y, color) in stored(file).enumerate_pixels() {
                let at = (GAP + column as u32 * (side + GAP) + 32 * x + 31, head + 32 * y + 31);
                assert_eq!(whole.get_pixel(at.0, at.1), color, "{file}");
            }
        }
        std::fs::remove_dir_all(dirs[1].join("evaluation/val/pictures")).unwrap();
        let holed = figure(&open());
        assert_eq!(holed.dimensions(), whole.dimensions());
        assert_eq!(holed.get_pixel(GAP + 3 * (side + GAP) + 5, head + 5).0, PAPER);
    }

    #[test]
    fn large_pictures_are_shrunk_and_their_colours_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, colors) = (dir.path().join("a.png"), [[128, 64, 128], [70, 70, 70]]);
        RgbImage::from_fn(2048, 1024, |x, _| Rgb(colors[(x / 3 % 2) as usize])).save(&path).unwrap();
        let small = cell(&path, FilterType::Nearest).unwrap();
        assert_eq!(small.dimensions(), (292, 146));
        assert!(small.pixels().all(|pixel| colors.contains(&pixel.0)));
        std::fs::write(&path, "no picture").unwrap();
        assert!(cell(&path, FilterType::Nearest).unwrap_err().to_string().contains("a.png: not a PNG"));
    }
}
