//! The ground: road with its markings, kerbs, pavements, grass.

use super::canvas::Paint;
use super::label::Label;
use super::noise::{cell, fractal, speckle, wrap};
use super::painter::Painter;
use super::rgb::Rgb;
use super::street::{Frontage, Street};
use crate::keyed::KeyedRng;

/// Colours as screens write them.
const ASPHALT: [u32; 9] =
    [0x57_5757, 0x6e_6c69, 0x48_4a4e, 0x82_7f7a, 0x63_6670, 0x9a_958c, 0x75_6c66, 0x3c_3d40, 0xa8_a5a0];
const PAVING: [u32; 9] =
    [0x8f_8b85, 0xa8_a298, 0x7b_7876, 0x9c_8878, 0x8d_6f62, 0xb5_afa4, 0x66_6668, 0x84_8a90, 0x57_5757];
pub(super) const GRASS: [u32; 8] =
    [0x5d_7a35, 0x70_8240, 0x48_6a30, 0x8a_8448, 0x94_8660, 0x66_6a3c, 0xa0_9468, 0x7a_6a50];

/// How the ground of a scene looks.
pub(super) struct Ground {
    asphalt: Rgb,
    /// Share by which patches, wheel tracks and stains change the asphalt.
    wear: f32,
    paint: Rgb,
    /// Share of the markings' paint that is still there.
    fresh: f32,
    dash: [f32; 2],
    edge_lines: bool,
    middle: Middle,
    /// Where the outermost lanes end, left and right of the axis.
    edges: [f32; 2],
    paving: [Rgb; 2],
    slab: [f32; 2],
    kerb: Rgb,
    strip: Rgb,
    yards: [(Label, Rgb); 2],
    wet: f32,
    seed: u32,
}

/// What divides the two directions of traffic.
#[derive(Clone, Copy, PartialEq)]
enum Middle {
    None,
    Dashed,
    Solid,
    Double,
}

impl Ground {
    pub(super) fn new(rng: &mut KeyedRng, street: &Street) -> Self {
        let asphalt = Rgb::drawn(rng, &ASPHALT, 0.25);
        let paving = if rng.chance(0.12) { asphalt * rng.between(0.85, 1.2) } else { Rgb::drawn(rng, &PAVING, 0.2) };
        let yard = |rng: &mut KeyedRng, frontage| match frontage {
            Frontage::Row => (Label::Sidewalk, paving * rng.between(0.8, 1.1)),
            _ => (Label::Terrain, Rgb::drawn(rng, &GRASS, 0.2)),
        };
        let dashes = rng.between(2.0, 4.5);
        let one_way = street.lanes.iter().all(|lane| lane.ahead);
        let paint = if rng.chance(0.15) { Rgb::hex(0xd8_b048) } else { Rgb::hex(0xe4_e2da) };
        let middle = match rng.below(10) {
            _ if one_way => Middle::None,
            0..1 => Middle::None,
            1..6 => Middle::Dashed,
            6..8 => Middle::Solid,
            _ => Middle::Double,
        };
        Self {
            asphalt,
            wear: rng.between(0.2, 0.8),
            paint,
            fresh: rng.between(0.35, 1.0),
            dash: [dashes, dashes + rng.between(2.0, 6.0)],
            edge_lines: rng.chance(0.35),
            middle,
            edges: [false, true].map(|ahead| {
                let lanes = street.lanes.iter().filter(|lane| lane.ahead == ahead).count();
                lanes as f32 * street.lane_width
            }),
            paving: [paving, paving * rng.between(0.8, 1.2)],
            slab: [rng.between(0.5, 1.6), rng.between(0.5, 1.6)],
            kerb: Rgb::drawn(rng, &[0xa5_a29c, 0xc0_bdb6, 0x84_8280], 0.15),
            strip: Rgb::drawn(rng, &GRASS, 0.2),
            yards: [yard(rng, street.sides[0].frontage), yard(rng, street.sides[1].frontage)],
            wet: if rng.chance(0.2) { rng.between(0.05, 0.3) } else { 0.02 },
            seed: rng.bits(),
        }
    }

    /// Paints everything below the horizon.
    pub(super) fn paint(&self, painter: &mut Painter) {
        let Painter { canvas, camera, light, street } = painter;
        let falling = [light.falls_on([0.0, 1.0, 0.0], 0.0), light.falls_on([0.0, 1.0, 0.0], 1.0)];
        let sunny = light.sun_rgb != Rgb::BLACK;
        let first = (camera.horizon() + 0.25).ceil().max(0.0) as usize;
        for (y, row) in canvas.rows().enumerate().skip(first) {
            let z = camera.position[1] / -camera.ray(0.0, y as f32)[1];
            let metres = 1.0 / camera.scale(z);
            let clarity = light.clarity(z);
            let haze = light.horizon * (1.0 - clarity);
            // Seen at a low angle everything mirrors the sky.
            let sheen = light.horizon * (self.wet * z / (z + 8.0));
            for (x, sample) in row.iter_mut().enumerate() {
                let place = camera.position[0] + camera.ray(x as f32, y as f32)[0] * z;
                let (label, albedo) = self.at(street, place - street.shift(z), z, metres);
                let lit = if sunny { street.sunlit([place, 0.0, z], light.sun) } else { 0.0 };
                let mirrored = if label == Label::Road { sheen } else { Rgb::BLACK };
                let rgb = (albedo * falling[0].mix(falling[1], lit) + mirrored) * clarity + haze;
                *sample = Paint { rgb, label };
            }
        }
    }

    /// What lies at (t, s); `metres` is the width of a sample there.
    fn at(&self, street: &Street, t: f32, s: f32, metres: f32) -> (Label, Rgb) {
        let right = t > 0.0;
        let side = &street.sides[usize::from(right)];
        let out = t.abs();
        if out < side.kerb || street.crossed(usize::from(right), s, 0.0) {
            return (Label::Road, self.road(street, t, s));
        }
        let soft = fractal(t * 0.3, s * 0.3);
        let near_crossing = street.crossed(usize::from(right), s, 3.0);
        if out < side.kerb + 0.18 && (side.strip > side.kerb || side.pavement > side.strip) {
            let joint = if wrap(s, 1.0) < 0.04 + metres * 0.5 { 0.8 } else { 1.0 };
            return (Label::Sidewalk, self.kerb * (joint * (0.8 + 0.4 * soft)));
        }
        if out < side.strip && !near_crossing {
            return (Label::Terrain, grass(self.strip, t, s));
        }
        if out < side.pavement || near_crossing {
            return (Label::Sidewalk, self.slabs(t, s, metres) * (0.75 + 0.5 * soft));
        }
        let (label, albedo) = self.yards[usize::from(right)];
        (label, if label == Label::Terrain { grass(albedo, t, s) } else { albedo * (0.75 + 0.5 * soft) })
    }

    fn slabs(&self, t: f32, s: f32, metres: f32) -> Rgb {
        let [i, j] = [t / self.slab[0], s / self.slab[1]];
        let tone = cell(i, j, self.seed);
        let joint = 0.03 + metres * 0.3;
        let edge = wrap(t, self.slab[0]) < joint || wrap(s, self.slab[1]) < joint;
        self.paving[0].mix(self.paving[1], tone) * if edge && s < 30.0 { 0.82 } else { 1.0 }
    }

    fn road(&self, street: &Street, t: f32, s: f32) -> Rgb {
        let grain = speckle(t * 1.7, s * 1.7);
        let stains = fractal(t * 0.25 + 3.0, s * 0.04);
        let lane = wrap(t / street.lane_width, 1.0);
        let track = ((lane - 0.25).abs().min((lane - 0.75).abs()) * 7.0).min(1.0);
        let mut rgb =
            self.asphalt * (1.0 + self.wear * ((grain - 0.5) * 0.6 + (stains - 0.5) * 0.5 + (track - 0.6) * 0.25));
        // Squares of newer or older asphalt, and covers.
        let patch = cell(t / 2.6, s / 7.0, self.seed);
        if patch < 0.1 * self.wear {
            rgb = rgb * (0.75 + 5.0 * patch);
        }
        let (dt, ds) = (wrap(t, 2.6) - 1.3, wrap(s, 7.0) - 3.0);
        if dt * dt + ds * ds < 0.12 && cell(t / 2.6, s / 7.0, self.seed ^ 1) < 0.06 {
            rgb = rgb * 0.55;
        }
        if self.marked(street, t, s) {
            let worn = (self.fresh * 1.5 - grain * 0.8).clamp(0.1, 1.0);
            rgb = rgb.mix(self.paint, worn);
        }
        rgb
    }

    /// Whether there is paint at (t, s).
    fn marked(&self, street: &Street, t: f32, s: f32) -> bool {
        let kerbs = [-street.sides[0].kerb, street.sides[1].kerb];
        if t < kerbs[0] || t > kerbs[1] {
            return false;
        }
        if let Some(crossing) = street.crossing {
            let before = crossing.s[0] - s;
            if before < 0.0 && s < crossing.s[1] {
                return false;
            }
            if crossing.zebra && (1.0..4.2).contains(&before) {
                return wrap(t, 1.0) < 0.5 && t > kerbs[0] + 0.3 && t < kerbs[1] - 0.3;
            }
            if (5.2..5.6).contains(&before) {
                return t > 0.1;
            }
            if before > 0.0 && before < 5.2 {
                return false;
            }
        }
        let width = street.lane_width;
        let dashed = wrap(s, self.dash[1]) < self.dash[0];
        let off_axis = t.abs();
        let edge = self.edges[usize::from(t > 0.0)];
        if off_axis < 0.5 {
            return match self.middle {
                Middle::None => false,
                Middle::Dashed => dashed && off_axis < 0.07,
                Middle::Solid => off_axis < 0.07,
                Middle::Double => (0.07..0.2).contains(&off_axis),
            };
        }
        if off_axis > edge - 0.3 {
            let parking = street.sides[usize::from(t > 0.0)].parking;
            return (self.edge_lines || parking) && (off_axis - edge).abs() < 0.06 && (!parking || dashed);
        }
        let divider = wrap(off_axis / width, 1.0);
        dashed && divider.min(1.0 - divider) * width < 0.07
    }
}

/// Grass, or earth, with its tufts.
fn grass(albedo: Rgb, t: f32, s: f32) -> Rgb {
    let tufts = fractal(t * 0.9, s * 0.5);
    let fields = fractal(t * 0.06 + 5.0, s * 0.06);
    albedo * (0.55 + 0.5 * tufts + 0.4 * fields) * Rgb::new(0.9 + 0.2 * fields, 1.0, 0.95)
}
