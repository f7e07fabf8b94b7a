//! The light of a scene: time of day, weather, haze.

use super::camera::{Point, direction, dot};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

/// Time of day and weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Clear,
    Overcast,
    Golden,
    Dusk,
    Fog,
}

/// How a surface answers light.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Surface {
    /// The share of light that it scatters.
    pub(super) albedo: Rgb,
    /// The share of the sky that it mirrors.
    pub(super) gloss: f32,
    /// Light of its own.
    pub(super) glow: Rgb,
    /// The share of what is behind that is seen through it.
    pub(super) clear: f32,
}

impl Surface {
    pub(super) fn matt(albedo: Rgb) -> Self {
        Self { albedo, ..Self::default() }
    }

    pub(super) fn glossy(albedo: Rgb, gloss: f32) -> Self {
        Self { albedo, gloss, ..Self::default() }
    }
}

/// The light of a scene.
#[derive(Clone, Debug)]
pub(super) struct Light {
    pub(super) weather: Weather,
    /// The direction to the sun, of length 1.
    pub(super) sun: Point,
    /// What the sun adds to a surface that faces it.
    pub(super) sun_rgb: Rgb,
    /// What the whole sky adds to a surface that faces up.
    pub(super) ambient: Rgb,
    /// The sky overhead.
    pub(super) zenith: Rgb,
    /// The sky at the horizon.
    pub(super) horizon: Rgb,
    /// The distance in metres over which haze hides about half.
    sight: f32,
    /// 0 by day, 1 when lamps are lit.
    pub(super) lamps: f32,
}

impl Light {
    pub(super) fn new(rng: &mut KeyedRng) -> Self {
        let weather = match rng.below(100) {
            0..40 => Weather::Clear,
            40..67 => Weather::Overcast,
            67..83 => Weather::Golden,
            83..93 => Weather::Dusk,
            _ => Weather::Fog,
        };
        let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
        let height = match weather {
            Weather::Golden => rng.between(0.16, 0.4),
            _ => rng.between(0.5, 1.3),
        };
        let sun = direction([side * rng.between(0.25, 1.0), height, rng.between(-1.0, 0.9)]);
        let pale = rng.unit_f32();
        let grey = Rgb::new(1.0, 1.0, 1.0 + 0.12 * rng.between(-1.0, 1.0));
        let (sun_rgb, ambient, zenith, horizon) = match weather {
            Weather::Clear => (
                Rgb::new(1.0, 0.94, 0.84) * rng.between(1.3, 1.9),
                Rgb::new(0.46, 0.52, 0.62),
                Rgb::hex(0x3a_78cc).mix(Rgb::hex(0x80_aee2), pale) * 1.5,
                Rgb::hex(0xb4_d0ea).mix(Rgb::hex(0xdc_e6ee), pale) * 1.35,
            ),
            Weather::Overcast => (
                Rgb::new(1.0, 0.97, 0.92) * rng.between(0.0, 0.18),
                grey * 0.85,
                grey * rng.between(0.3, 0.7),
                grey * rng.between(0.5, 0.95),
            ),
            Weather::Golden => (
                Rgb::new(1.0, 0.68, 0.38) * rng.between(1.4, 2.2),
                Rgb::new(0.44, 0.42, 0.48),
                Rgb::hex(0x54_83be).mix(Rgb::hex(0x8d_93b8), pale),
                Rgb::hex(0xf6_d09a).mix(Rgb::hex(0xf0_b4a0), rng.unit_f32()) * 1.1,
            ),
            Weather::Dusk => (
                Rgb::BLACK,
                Rgb::new(0.3, 0.31, 0.4),
                Rgb::hex(0x28_3a66).mix(Rgb::hex(0x48_5280), pale) * 0.9,
                Rgb::hex(0xe0_9a72).mix(Rgb::hex(0x92_86ae), rng.unit_f32()) * 0.75,
            ),
            Weather::Fog => (Rgb::BLACK, grey * 0.8, grey * rng.between(0.55, 0.8), grey * rng.between(0.5, 0.8)),
        };
        let sight = match weather {
            Weather::Fog => rng.between(50.0, 120.0),
            Weather::Clear => rng.between(260.0, 1500.0),
            _ => rng.between(200.0, 900.0),
        };
        let lamps = if weather == Weather::Dusk { 1.0 } else { 0.0 };
        Self { weather, sun, sun_rgb, ambient, zenith, horizon, sight, lamps }
    }

    /// The brightness of a grey street in this light: what a camera exposes for.
    pub(super) fn key(&self) -> f32 {
        (self.ambient + self.sun_rgb * self.sun[1]).mean()
    }

    /// The cloudless sky seen along a ray that rises by that many metres a metre.
    pub(super) fn sky(&self, rise: f32) -> Rgb {
        let rise = rise.max(0.0);
        self.horizon.mix(self.zenith, rise / (rise + 0.22))
    }

    /// What falls on a surface with that normal; `sunlit` is the share of the sun that reaches it.
    pub(super) fn falls_on(&self, normal: Point, sunlit: f32) -> Rgb {
        let facing = dot(normal, self.sun).max(0.0) * sunlit;
        self.ambient * (0.68 + 0.32 * normal[1]) + self.sun_rgb * facing
    }

    /// What a lit surface sends out.
    pub(super) fn reflect(&self, surface: Surface, falling: Rgb) -> Rgb {
        surface.albedo * falling + self.horizon.mix(self.zenith, 0.45) * surface.gloss + surface.glow
    }

    /// The share of a colour that haze leaves at distance z.
    pub(super) fn clarity(&self, z: f32) -> f32 {
        let depth = z / self.sight;
        1.0 / (1.0 + depth + 0.4 * depth * depth)
    }

    /// A colour seen through z metres of haze.
    pub(super) fn veil(&self, rgb: Rgb, z: f32) -> Rgb {
        self.horizon.mix(rgb, self.clarity(z))
    }

    /// What falls on upright things that stand before us: their middle, and how it changes towards their right edge.
    pub(super) fn tone(&self, sunlit: f32, z: f32) -> Tone {
        let front = self.falls_on([0.0, 0.25, -0.97], sunlit);
        let [left, right] = [-0.85, 0.85].map(|x| self.falls_on([x, 0.25, -0.46], sunlit));
        let clarity = self.clarity(z);
        Tone { left, front, right, clarity, haze: self.horizon * (1.0 - clarity) }
    }
}

/// The light on an upright thing at one distance, haze included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tone {
    left: Rgb,
    front: Rgb,
    right: Rgb,
    clarity: f32,
    haze: Rgb,
}

impl Tone {
    /// The colour of a round surface: `across` runs from -1 at its left edge to 1 at its right edge.
    pub(super) fn color(&self, albedo: Rgb, across: f32) -> Rgb {
        let edge = if across < 0.0 { self.left } else { self.right };
        albedo * self.front.mix(edge, across.abs().min(1.0)) * self.clarity + self.haze
    }

    /// The colour of something that shines by itself.
    pub(super) fn glow(&self, rgb: Rgb) -> Rgb {
        rgb * self.clarity + self.haze
    }
}
