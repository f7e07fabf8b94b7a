//! Colour jitter, as torchvision's `ColorJitter` with its order fixed: brightness, contrast, saturation, hue.

use image::RgbImage;

/// The change of one photo; its arithmetic is exactly rounded, so that it is the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Jitter {
    /// Factor of all levels.
    pub(crate) brightness: f32,
    /// Factor of the distance from the photo's mean grey.
    pub(crate) contrast: f32,
    /// Factor of the distance from a pixel's own grey.
    pub(crate) saturation: f32,
    /// Turn of the hue, as a part of the colour circle.
    pub(crate) hue: f32,
}

impl Jitter {
    /// Leaves every photo as it is.
    const NONE: Self = Self { brightness: 1.0, contrast: 1.0, saturation: 1.0, hue: 0.0 };

    pub(crate) fn apply(self, photo: &mut RgbImage) {
        if self == Self::NONE || photo.is_empty() {
            return;
        }
        let brightened = |pixel: &[u8]| [0, 1, 2].map(|c| (f32::from(pixel[c]) * self.brightness).min(255.0));
        let pixels = (photo.len() / 3) as f64;
        // An f64 sum of this many f32 is rounded alike everywhere: its order is the pixels'.
        let sum: f64 = photo.as_raw().chunks_exact(3).map(|pixel| f64::from(grey(brightened(pixel)))).sum();
        let mean = (sum / pixels) as f32;
        for pixel in photo.as_chunks_mut::<3>().0 {
            let mut color = brightened(pixel).map(|level| blend(level, mean, self.contrast));
            let grey = grey(color);
            color = color.map(|level| blend(level, grey, self.saturation));
            if self.hue != 0.0 {
                color = turn_hue(color, self.hue);
            }
            *pixel = color.map(|level| (level + 0.5) as u8);
        }
    }
}

/// Luma of ITU-R BT.601, the weights of Pillow's grey.
fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn blend(level: f32, center: f32, factor: f32) -> f32 {
    (center + (level - center) * factor).clamp(0.0, 255.0)
}

/// Turns a colour's hue in HSV; value and saturation stay.
fn turn_hue([r, g, b]: [f32; 3], turn: f32) -> [f32; 3] {
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma == 0.0 {
        return [r, g, b];
    }
    // In sixths of the circle, red at 0.
    let hue = if r >= g && r >= b {
        (g - b) / chroma
    } else if g >= b {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let hue = hue + 6.0 * turn;
    // Each channel is a trapezoid over the circle, a third of a turn after the one before.
    [5.0, 3.0, 1.0].map(|offset| {
        let mut k = offset + hue; // a few circles at most
        while k < 0.0 {
            k += 6.0;
        }
        while k >= 6.0 {
            k -= 6.0;
        }
        value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn photo() -> RgbImage {
        RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 16) as u8, (y * 16) as u8, (x * y) as u8]))
    }

    fn changed(jitter: Jitter) -> RgbImage {
        let mut photo = photo();
        jitter.apply(&mut photo);
        photo
    }

    #[test]
    fn no_change_changes_nothing() {
        assert_eq!(changed(Jitter::NONE), photo());
        // A full turn goes all the way through the arithmetic.
        assert_eq!(changed(Jitter { hue: 1.0, ..Jitter::NONE }), photo());
    }

    #[test]
    fn each_part_does_what_it_says() {
        let half = changed(Jitter { brightness: 0.5, ..Jitter::NONE });
        assert!(half.iter().zip(photo().iter()).all(|(&half, &full)| half == (f32::from(full) * 0.5).round() as u8));
        let flat = changed(Jitter { contrast: 0.0, ..Jitter::NONE });
        assert!(
            flat.pixels().all(|pixel| pixel == flat.get_pixel(0, 0) && pixel[0] == pixel[1] && pixel[1] == pixel[2])
        );
        let grey = changed(Jitter { saturation: 0.0, ..Jitter::NONE });
        assert!(grey.pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
        assert!(grey.pixels().any(|pixel| pixel != grey.get_pixel(0, 0)));
    }

    #[test]
    fn hues_turn() {
        let third = |color| turn_hue(color, 1.0 / 3.0).map(|level| level.round() as u8);
        assert_eq!(
            [third([255.0, 0.0, 0.0]), third([0.0, 255.0, 0.0]), third([0.0, 0.0, 255.0])],
            [[0, 255, 0], [0, 0, 255], [255, 0, 0]]
        );
        assert_eq!(turn_hue([255.0, 0.0, 0.0], -0.5).map(|level| level.round() as u8), [0, 255, 255]);
        assert_eq!(turn_hue([90.0; 3], 0.3).map(|level| level as u8), [90; 3]);
        assert_eq!(turn_hue([200.0, 100.0, 50.0], 1.0 / 6.0).map(|level| level.round() as u8), [150, 200, 50]);
    }
}
