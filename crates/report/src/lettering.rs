//! Letters on pictures: a bitmap font, so that a picture has the same bytes on every machine.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

/// Pixels of a letter's side at scale 1.
const SIDE: u32 = 8;

/// Letters of a size: twice as high as they are wide.
#[derive(Clone, Copy)]
pub(crate) struct Size(pub(crate) u32);

impl Size {
    /// How wide a text is.
    pub(crate) fn width(self, text: &str) -> u32 {
        text.chars().count() as u32 * SIDE * self.0
    }

    /// How high a line is.
    pub(crate) fn height(self) -> u32 {
        2 * SIDE * self.0
    }
}

/// Draws a text with its upper left corner at (x, y), as far as the image goes.
pub(crate) fn draw(image: &mut RgbImage, (x, y): (u32, u32), text: &str, Size(scale): Size, color: [u8; 3]) {
    for (index, letter) in text.chars().enumerate() {
        let Some(rows) = glyph(letter) else { continue };
        let left = x + index as u32 * SIDE * scale;
        for (row, bits) in (0..).zip(rows) {
            for column in (0..SIDE).filter(|column| bits >> column & 1 == 1) {
                fill(image, (left + column * scale, y + 2 * row * scale), (scale, 2 * scale), color);
            }
        }
    }
}

/// Fills a rectangle, given by its upper left corner and its (width, height), as far as the image goes.
pub(crate) fn fill(image: &mut RgbImage, (x, y): (u32, u32), (width, height): (u32, u32), color: [u8; 3]) {
    for y in y..(y + height).min(image.height()) {
        for x in x..(x + width).min(image.width()) {
            image.put_pixel(x, y, Rgb(color));
        }
    }
}

fn glyph(letter: char) -> Option<[u8; 8]> {
    let fonts = |letter| font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter));
    fonts(letter).or_else(|| font8x8::GREEK_FONTS.get(letter)).or_else(|| fonts('?'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_scale_and_stay_inside() {
        let ink = |scale: u32| {
            let mut image = RgbImage::new(40, 40);
            draw(&mut image, (0, 0), "I", Size(scale), [255; 3]);
            image.pixels().filter(|pixel| pixel.0 == [255; 3]).count()
        };
        assert!(ink(1) > 0);
        assert_eq!(ink(2), 4 * ink(1));
        assert_eq!((Size(2).width("abc"), Size(2).height()), (48, 32));

        let mut small = RgbImage::new(5, 5);
        draw(&mut small, (2, 3), "W\u{4e2d}", Size(2), [255; 3]);
        assert!(small.pixels().any(|pixel| pixel.0 == [255; 3]));
    }
}
