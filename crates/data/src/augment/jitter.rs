//! Colour jitter, as torchvision's `ColorJitter` with its order fixed: brightness, contrast, saturation, hue.

use std::array;

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
        // What depends on one channel's level alone is looked up.
        let brightened: [f32; 256] = array::from_fn(|level| (level as f32 * self.brightness).min(255.0));
        let weighted = Weighted::new(&brightened);
        let pixels = (photo.len() / 3) as f64;
        // An f64 sum of this many f32 is rounded alike everywhere: its order is the pixels'.
        let sum: f64 = photo.as_chunks::<3>().0.iter().map(|&pixel| f64::from(weighted.grey(pixel))).sum();
        let mean = (sum / pixels) as f32;
        let levels = brightened.map(|level| blend(level, mean, self.contrast));
        let weighted = Weighted::new(&levels);
        for pixels in photo.as_chunks_mut::<3>().0.chunks_mut(LANES) {
            // Lanes beyond a short last block stay black and are not read.
            let mut colors = [[0.0; LANES]; 3];
            let mut greys = [0.0; LANES];
            for (lane, &pixel) in pixels.iter().enumerate() {
                greys[lane] = weighted.grey(pixel);
                for channel in 0..3 {
                    colors[channel][lane] = levels[usize::from(pixel[channel])];
                }
            }
            for color in &mut colors {
                for lane in 0..LANES {
                    color[lane] = blend(color[lane], greys[lane], self.saturation);
                }
            }
            if self.hue != 0.0 {
                turn_hues(&mut colors, self.hue);
            }
            for (lane, pixel) in pixels.iter_mut().enumerate() {
                *pixel = array::from_fn(|channel| (colors[channel][lane] + 0.5) as u8);
            }
        }
    }
}

/// Pixels that are worked on side by side, so that the arithmetic vectorises.
const LANES: usize = 16;

/// The weights of ITU-R BT.601's luma, those of Pillow's grey.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Each channel's share of a pixel's grey, by the channel's level.
struct Weighted([[f32; 256]; 3]);

impl Weighted {
    fn new(levels: &[f32; 256]) -> Self {
        Self(LUMA.map(|weight| levels.map(|level| weight * level)))
    }

    fn grey(&self, [r, g, b]: [u8; 3]) -> f32 {
        self.0[0][usize::from(r)] + self.0[1][usize::from(g)] + self.0[2][usize::from(b)]
    }
}

fn blend(level: f32, center: f32, factor: f32) -> f32 {
    let blended = center + (level - center) * factor;
    least(greatest(blended, 0.0), 255.0)
}

/// `f32::max` of numbers: one instruction, which std's is not, as it minds NaN.
fn greatest(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

fn least(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Turns the hues of colours in HSV, by at most one circle either way; value and saturation stay. Without a branch: both sides of
/// each choice are computed.
fn turn_hues(colors: &mut [[f32; LANES]; 3], turn: f32) {
    let [red, green, blue] = colors;
    for lane in 0..LANES {
        let (r, g, b) = (red[lane], green[lane], blue[lane]);
        let value = greatest(greatest(r, g), b);
        let chroma = value - least(least(r, g), b);
        // In sixths of the circle, red at 0.
        let (distance, from) = if r >= g && r >= b {
            (g - b, 0.0)
        } else if g >= b {
            (b - r, 2.0)
        } else {
            (r - g, 4.0)
        };
        let hue = distance / chroma + from + 6.0 * turn;
        // Each channel is a trapezoid over the circle, a third of a turn after the one before.
        let turned = [5.0, 3.0, 1.0].map(|offset| {
            let k = offset + hue; // in -6..16
            let k = if k < 0.0 { k + 6.0 } else { k };
            let k = if k >= 6.0 { k - 6.0 } else { k };
            let k = if k >= 6.0 { k - 6.0 } else { k };
            value - chroma * least(greatest(least(k, 4.0 - k), 0.0), 1.0)
        });
        // Grey has no hue.
        let grey = chroma == 0.0;
        red[lane] = if grey { r } else { turned[0] };
        green[lane] = if grey { g } else { turned[1] };
        blue[lane] = if grey { b } else { turned[2] };
    }
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
        let turn_hue = |color: [f32; 3], turn| {
            let mut colors = color.map(|level| [level; LANES]);
            turn_hues(&mut colors, turn);
            colors.map(|lanes| lanes[LANES - 1])
        };
        let third = |color| turn_hue(color, 1.0 / 3.0).map(|level| level.round() as u8);
        assert_eq!(
            [third([255.0, 0.0, 0.0]), third([0.0, 255.0, 0.0]), third([0.0, 0.0, 255.0])],
            [[0, 255, 0], [0, 0, 255], [255, 0, 0]]
        );
        assert_eq!(turn_hue([255.0, 0.0, 0.0], -0.5).map(|level| level.round() as u8), [0, 255, 255]);
        assert_eq!(turn_hue([90.0; 3], 0.3).map(|level| level as u8), [90; 3]);
        assert_eq!(turn_hue([200.0, 100.0, 50.0], 1.0 / 6.0).map(|level| level.round() as u8), [150, 200, 50]);
    }

    /// The same arithmetic, one pixel and one step after the other.
    fn plain(jitter: Jitter, photo: &mut RgbImage) {
        let grey = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
        let blend = |level: f32, center: f32, factor: f32| (center + (level - center) * factor).clamp(0.0, 255.0);
        let turn_hue = |[r, g, b]: [f32; 3]| {
            let value = r.max(g).max(b);
            let chroma = value - r.min(g).min(b);
            if chroma == 0.0 {
                return [r, g, b];
            }
            let hue = if r >= g && r >= b {
                (g - b) / chroma
            } else if g >= b {
                (b - r) / chroma + 2.0
            } else {
                (r - g) / chroma + 4.0
            };
            let hue = hue + 6.0 * jitter.hue;
            [5.0, 3.0, 1.0].map(|offset: f32| {
                let k = (offset + hue).rem_euclid(6.0);
                value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
            })
        };
        let brightened = |pixel: Rgb<u8>| pixel.0.map(|level| (f32::from(level) * jitter.brightness).min(255.0));
        let sum: f64 = photo.pixels().map(|&pixel| f64::from(grey(brightened(pixel)))).sum();
        let mean = (sum / photo.pixels().len() as f64) as f32;
        for pixel in photo.pixels_mut() {
            let color = brightened(*pixel).map(|level| blend(level, mean, jitter.contrast));
            let own = grey(color);
            let color = color.map(|level| blend(level, own, jitter.saturation));
            let color = if jitter.hue == 0.0 { color } else { turn_hue(color) };
            pixel.0 = color.map(|level| (level + 0.5) as u8);
        }
    }

    #[test]
    fn blocks_of_pixels_change_as_single_pixels_do() {
        let mut draws = crate::keyed::rng(3, "jitter", &[]);
        for round in 0..60 {
            // Sizes that leave short blocks; few levels, so that channels are often equal.
            let levels = [0_u8, 1, 64, 127, 128, 254, 255];
            let mut level = || if round % 2 == 0 { levels[draws.below(7)] } else { draws.below(256) as u8 };
            let photo = RgbImage::from_fn(1 + round, 37, |_, _| Rgb([level(), level(), level()]));
            let mut around = |center: f32, range: f32| center + range * draws.between(-1.0, 1.0);
            let jitter = Jitter {
                brightness: around(1.0, 1.0),
                contrast: around(1.0, 1.0),
                saturation: around(1.0, 1.0),
                hue: if round % 5 == 0 { 0.0 } else { around(0.0, 0.5) },
            };
            let (mut blocks, mut single) = (photo.clone(), photo);
            jitter.apply(&mut blocks);
            plain(jitter, &mut single);
            assert!(blocks == single, "{jitter:?}");
        }
    }
}
