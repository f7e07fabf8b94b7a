//! From light to pixels: the photo that a camera takes of a painted scene.

use super::light::{Light, Weather};
use super::noise::hash;
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

/// A camera's way with light.
pub(super) struct Lens {
    exposure: f32,
    cast: Rgb,
    saturation: f32,
    contrast: f32,
    /// The share of a pixel that comes from its neighbours, in each direction.
    blur: f32,
    vignette: f32,
    /// Standard deviation of the noise, for an output in [0, 1].
    noise: f32,
    seed: u32,
}

impl Lens {
    pub(super) fn new(rng: &mut KeyedRng, light: &Light) -> Self {
        // Cameras expose for an average grey; how far they miss it differs from photo to photo.
        let miss = rng.between(-0.4, 0.45);
        let exposure = if miss > 0.0 { 1.0 + miss } else { 1.0 / (1.0 - miss) };
        let dim = match light.weather {
            Weather::Dusk => 0.8,
            Weather::Fog => 0.85,
            _ => 1.15,
        };
        Self {
            exposure: exposure * dim / light.key(),
            cast: Rgb::new(1.0 + rng.between(-0.08, 0.08), 1.0, 1.0 + rng.between(-0.12, 0.12)),
            saturation: rng.between(0.75, 1.2),
            contrast: rng.between(0.2, 0.9),
            blur: rng.between(0.0, 0.16),
            vignette: rng.between(0.0, 0.35),
            noise: rng.between(0.004, 0.02),
            seed: rng.bits(),
        }
    }

    /// Develops an image of linear colours, row by row, into bytes.
    pub(super) fn develop(&self, mut colors: Vec<Rgb>, height: usize, width: usize) -> Vec<u8> {
        self.soften(&mut colors, width);
        let mut bytes = Vec::with_capacity(3 * height * width);
        for (index, &rgb) in colors.iter().enumerate() {
            let (x, y) = (index % width, index / width);
            let (dx, dy) = (2.0 * x as f32 / width as f32 - 1.0, 2.0 * y as f32 / height as f32 - 1.0);
            let gain = self.exposure * (1.0 - self.vignette * 0.5 * (dx * dx + dy * dy));
            let light = rgb * self.cast * gain;
            let grey = Rgb::grey(light.mean());
            let light = grey.mix(light, self.saturation);
            let bits = hash(x as u32, y as u32, self.seed);
            for (channel, v) in [light.r, light.g, light.b].into_iter().enumerate() {
                let v = self.curve(v.max(0.0)) + self.noise * grain(bits, channel);
                bytes.push((v * 255.0 + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
        bytes
    }

    /// Highlights are rolled off (Reinhard's curve with a white point); then a gamma of 2, and contrast by a smooth step.
    fn curve(&self, v: f32) -> f32 {
        const WHITE: f32 = 2.2;
        let v = (v * (1.0 + v / (WHITE * WHITE)) / (1.0 + v) * 1.25).sqrt().min(1.0);
        v + self.contrast * 0.5 * (v * v * (3.0 - 2.0 * v) - v)
    }

    /// Mixes each pixel with its neighbours, along rows and then along columns.
    fn soften(&self, colors: &mut [Rgb], width: usize) {
        if colors.is_empty() {
            return;
        }
        let mix = |before: Rgb, own: Rgb, after: Rgb| own * (1.0 - 2.0 * self.blur) + (before + after) * self.blur;
        for row in colors.chunks_exact_mut(width) {
            let mut before = row[0];
            for x in 0..width {
                let own = row[x];
                row[x] = mix(before, own, row[(x + 1).min(width - 1)]);
                before = own;
            }
        }
        let mut before = colors[..width].to_vec();
        for at in 0..colors.len() {
            let own = colors[at];
            colors[at] = mix(before[at % width], own, colors.get(at + width).copied().unwrap_or(own));
            before[at % width] = own;
        }
    }
}

/// Noise of mean 0 and standard deviation 1 for one of three channels: the sum of four uniform bytes, scaled. Channels share
/// bits, as sensors' neighbouring cells share light.
fn grain(bits: u32, channel: usize) -> f32 {
    const SHUFFLE: [u32; 3] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D];
    let mixed = bits.wrapping_mul(SHUFFLE[channel]);
    let sum: u32 = (mixed ^ mixed >> 15).to_le_bytes().into_iter().map(u32::from).sum();
    (sum as f32 - 510.0) * (1.0 / 147.8)
}
