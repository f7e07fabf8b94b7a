//! Random changes to a training sample: scale and crop, mirror, colour jitter, blur, noise, erasing. One draw changes photo, label map
//! and labels together. `CutMix` takes two samples, which the loader brings together.

mod blur;
mod cut_mix;
mod erase;
mod gaussian;
mod jitter;
mod noise;
mod rectangle;

use image::{Rgb, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::keyed::KeyedRng;
use erase::Erase;
use jitter::Jitter;

pub(crate) use cut_mix::CutMix;

use crate::{DataError, MAX_SIDE, Sample, VOID, resize};

/// What a photo shows beyond its edge.
const GREY: Rgb<u8> = Rgb([128; 3]);

/// The `[data.augment]` section of a recipe: the ranges that random changes are drawn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Least and greatest size before cropping, relative to what networks see, each in 0.1..=10;
    /// 286 pixels cropped to 256, as pix2pix does, is `[1.1171875, 1.1171875]`.
    /// Below 1, mid grey surrounds the photo and void the label map.
    pub scale: [f64; 2],
    /// Height and width in pixels of what is cut out of the scaled sample, each 1..=16384: networks learn from windows, and predict whole
    /// photos. None is the size that networks predict at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<[usize; 2]>,
    /// Probability of a mirror image, 0..=1.
    pub flip: f64,
    /// Photo brightness is multiplied by a factor in 1 - this ..= 1 + this; 0..=1.
    pub brightness: f64,
    /// As `brightness`, for the distance from the photo's mean grey.
    pub contrast: f64,
    /// As `brightness`, for the distance from each pixel's own grey.
    pub saturation: f64,
    /// Hues turn by at most this part of the colour circle, either way; 0..=0.5.
    pub hue: f64,
    /// Greatest standard deviation, in pixels that networks see, of a Gaussian blur of the photo, drawn uniformly from 0 on; 0..=10.
    pub blur: f64,
    /// Greatest standard deviation of Gaussian noise on each pixel and channel of the photo, in levels of 255, drawn uniformly from 0
    /// on; 0..=100.
    pub noise: f64,
    /// Probability that a rectangle of the photo is hidden under grey, 0..=1 (random erasing: Zhong 2017). Its labels stay.
    pub erase: f64,
    /// Probability that a rectangle of photo, label map and labels comes from another sample, 0..=1 (`CutMix`: Yun 2019).
    pub cut_mix: f64,
}

impl AugmentConfig {
    /// No change at all.
    pub const NONE: Self = Self {
        scale: [1.0, 1.0],
        crop: None,
        flip: 0.0,
        brightness: 0.0,
        contrast: 0.0,
        saturation: 0.0,
        hue: 0.0,
        blur: 0.0,
        noise: 0.0,
        erase: 0.0,
        cut_mix: 0.0,
    };

    /// Checks the ranges; the error names the key.
    pub fn validate(&self) -> Result<(), DataError> {
        let setting = |key, reason| Err(DataError::Setting { key, reason });
        let [least, greatest] = self.scale;
        if !(0.1 <= least && least <= greatest && greatest <= 10.0) {
            return setting(
                "data.augment.scale",
                format!("[{least}, {greatest}] is not a least and a greatest scale within 0.1..=10"),
            );
        }
        if let Some([height, width]) = self.crop
            && [height, width].iter().any(|side| !(1..=MAX_SIDE).contains(side))
        {
            let reason = format!("[{height}, {width}] is not a height and a width within 1..={MAX_SIDE}");
            return setting("data.augment.crop", reason);
        }
        for (key, value, greatest) in [
            ("data.augment.flip", self.flip, 1.0),
            ("data.augment.brightness", self.brightness, 1.0),
            ("data.augment.contrast", self.contrast, 1.0),
            ("data.augment.saturation", self.saturation, 1.0),
            ("data.augment.hue", self.hue, 0.5),
            ("data.augment.blur", self.blur, 10.0),
            ("data.augment.noise", self.noise, 100.0),
            ("data.augment.erase", self.erase, 1.0),
            ("data.augment.cut_mix", self.cut_mix, 1.0),
        ] {
            if !(0.0..=greatest).contains(&value) {
                return setting(key, format!("{value} is not in 0..={greatest}"));
            }
        }
        Ok(())
    }

    /// The height and width of changed samples, where networks predict at `size`.
    pub(crate) fn size(&self, size: (usize, usize)) -> (usize, usize) {
        self.crop.map_or(size, |[height, width]| (height, width))
    }

    /// Takes the next draw. Every part of it is drawn whether or not it is used, so that one setting does not move another's draws.
    fn draw(&self, draws: &mut KeyedRng) -> Change {
        let [least, greatest] = self.scale;
        let scale = least + (greatest - least) * draws.unit_f64();
        let place = [draws.unit_f64(), draws.unit_f64()];
        let mirror = draws.chance(self.flip);
        let mut around = |center: f64, range: f64| (center + range * (2.0 * draws.unit_f64() - 1.0)) as f32;
        let jitter = Jitter {
            brightness: around(1.0, self.brightness),
            contrast: around(1.0, self.contrast),
            saturation: around(1.0, self.saturation),
            hue: around(0.0, self.hue),
        };
        let blur = self.blur * draws.unit_f64();
        let noise = (self.noise * draws.unit_f64()) as f32;
        let erase = Erase::draw(self.erase, draws);
        Change { scale, place, mirror, jitter, blur, noise, erase }
    }
}

/// One draw: what happens to a sample.
struct Change {
    scale: f64,
    /// Where the crop lies in what it is cut from, or the sample in what surrounds it: from the top and from the left, in [0, 1).
    place: [f64; 2],
    mirror: bool,
    jitter: Jitter,
    /// Standard deviations, in pixels and in levels.
    blur: f64,
    noise: f32,
    erase: Option<Erase>,
}

/// A sample at the size that networks see, without any random change.
pub fn fit(sample: &Sample, height: usize, width: usize) -> Sample {
    let (stored_width, stored_height) = sample.photo.dimensions();
    let stored = (stored_height as usize, stored_width as usize);
    Sample {
        name: sample.name.clone(),
        photo: resize::photo(&sample.photo, height, width),
        label_map: resize::label_map(&sample.label_map, height, width),
        labels: resize::labels(&sample.labels, stored, height, width),
    }
}

/// A sample at the size that networks learn from, changed by the next draw; `height` and `width` are those that they predict at.
/// `void_color` is the label map's colour beyond its edge. Noise takes a draw a pixel, after all others.
pub(crate) fn augment(
    sample: &Sample,
    config: &AugmentConfig,
    (height, width): (usize, usize),
    void_color: [u8; 3],
    draws: &mut KeyedRng,
) -> Sample {
    let change = config.draw(draws);
    let scaled = |side: usize| ((change.scale * side as f64).round() as usize).max(1);
    let (scaled_height, scaled_width) = (scaled(height), scaled(width));
    let (height, width) = config.size((height, width));
    let mut scaled = fit(sample, scaled_height, scaled_width);
    change.jitter.apply(&mut scaled.photo);
    let window =
        [Window::new(scaled_height, height, change.place[0]), Window::new(scaled_width, width, change.place[1])];
    let mut photo = cut(&scaled.photo, window.map(Window::inside), GREY);
    blur::blur(&mut photo, change.blur);
    noise::add_noise(&mut photo, change.noise, draws);
    let mut photo = cut(&photo, window.map(Window::around), GREY);
    let mut label_map = cut(&scaled.label_map, window, Rgb(void_color));
    let mut labels = cut_labels(&scaled.labels, scaled_width, window);
    if change.mirror {
        imageops::flip_horizontal_in_place(&mut photo);
        imageops::flip_horizontal_in_place(&mut label_map);
        labels.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    if let Some(erase) = change.erase {
        erase.apply(&mut photo);
    }
    Sample { name: scaled.name, photo, label_map, labels }
}

/// Along one axis: `len` pixels are copied from `from` to `to`, of `size` pixels that are made.
#[derive(Clone, Copy)]
struct Window {
    size: usize,
    from: usize,
    to: usize,
    len: usize,
}

impl Window {
    fn new(stored: usize, size: usize, place: f64) -> Self {
        let shift = (place * (stored.abs_diff(size) + 1) as f64) as usize;
        let (from, to) = if stored > size { (shift, 0) } else { (0, shift) };
        Self { size, from, to, len: stored.min(size) }
    }

    /// What is copied, without what surrounds it.
    fn inside(self) -> Self {
        Self { size: self.len, to: 0, ..self }
    }

    /// What surrounds it, for what [`Self::inside`] has cut.
    fn around(self) -> Self {
        Self { from: 0, ..self }
    }
}

fn cut(image: &RgbImage, [rows, columns]: [Window; 2], beyond: Rgb<u8>) -> RgbImage {
    let mut made = RgbImage::from_pixel(columns.size as u32, rows.size as u32, beyond);
    let (stored_row, made_row) = (3 * image.width() as usize, 3 * columns.size);
    let bytes: &mut [u8] = &mut made;
    for row in 0..rows.len {
        let from = (rows.from + row) * stored_row + 3 * columns.from;
        let to = (rows.to + row) * made_row + 3 * columns.to;
        bytes[to..to + 3 * columns.len].copy_from_slice(&image.as_raw()[from..from + 3 * columns.len]);
    }
    made
}

fn cut_labels(labels: &[u8], stored_width: usize, [rows, columns]: [Window; 2]) -> Vec<u8> {
    let mut made = vec![VOID; rows.size * columns.size];
    for row in 0..rows.len {
        let from = (rows.from + row) * stored_width + columns.from;
        let to = (rows.to + row) * columns.size + columns.to;
        made[to..to + columns.len].copy_from_slice(&labels[from..from + columns.len]);
    }
    made
}

#[cfg(test)]
mod tests;
