//! Trees, bushes and hedges.

use super::camera::{Point, dot};
use super::canvas::Paint;
use super::label::Label;
use super::light::Surface;
use super::noise::{fractal, speckle, unit};
use super::painter::{Facing, Figure, Painter, Thing};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

const SUMMER: [u32; 7] = [0x48_6b2c, 0x5c_7a34, 0x3a_5a30, 0x6e_7c3c, 0x50_6048, 0x72_8a48, 0x40_5238];
const AUTUMN: [u32; 8] = [0xb0_7a2c, 0x94_5028, 0x8a_3a2c, 0xa8_8c38, 0x76_6434, 0x6a_4a34, 0xc0_9440, 0x80_7058];

/// The leaves of a scene's plants.
#[derive(Clone)]
pub(super) struct Season {
    autumn: f64,
}

impl Season {
    pub(super) fn new(rng: &mut KeyedRng) -> Self {
        Self { autumn: if rng.chance(0.7) { 0.05 } else { rng.unit_f64() } }
    }

    fn leaves(&self, rng: &mut KeyedRng) -> Rgb {
        let colors: &[u32] = if rng.chance(self.autumn) { &AUTUMN } else { &SUMMER };
        Rgb::drawn(rng, colors, 0.25)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Round,
    Tall,
    Conifer,
    Bush,
}

/// A tree or a bush.
pub(super) struct Plant {
    foot: Point,
    shape: Shape,
    /// The height of its lowest leaves and of its top.
    crown: [f32; 2],
    radius: f32,
    leaves: Rgb,
    bark: Rgb,
    seed: u32,
}

impl Plant {
    pub(super) fn tree(rng: &mut KeyedRng, season: &Season, foot: Point, tall: f32) -> Self {
        let shape = [Shape::Round, Shape::Round, Shape::Round, Shape::Tall, Shape::Conifer][rng.below(5)];
        let tall = tall * rng.between(0.8, 1.25);
        Self::of(rng, season, foot, shape, tall)
    }

    /// A tree of an avenue, where all are alike.
    pub(super) fn street_tree(rng: &mut KeyedRng, season: &Season, foot: Point, tall: f32) -> Self {
        let tall = tall * rng.between(0.9, 1.1);
        Self::of(rng, season, foot, Shape::Round, tall)
    }

    pub(super) fn bush(rng: &mut KeyedRng, season: &Season, foot: Point) -> Self {
        let tall = rng.between(0.7, 2.6);
        Self::of(rng, season, foot, Shape::Bush, tall)
    }

    fn of(rng: &mut KeyedRng, season: &Season, foot: Point, shape: Shape, tall: f32) -> Self {
        let (bottom, radius) = match shape {
            Shape::Round => (tall * rng.between(0.22, 0.36), tall * rng.between(0.26, 0.38)),
            Shape::Tall => (tall * 0.12, tall * rng.between(0.13, 0.2)),
            Shape::Conifer => (tall * 0.08, tall * rng.between(0.18, 0.26)),
            Shape::Bush => (0.0, tall * rng.between(0.5, 0.9)),
        };
        let leaves = season.leaves(rng);
        let bark = Rgb::drawn(rng, &[0x54_463a, 0x6a_6258, 0x42_3a34, 0x88_8278], 0.2);
        Self { foot, shape, crown: [bottom, tall], radius, leaves, bark, seed: rng.bits() }
    }

    /// The clumps of leaves, from the back to the front: middle (x, y), radius.
    fn clumps(&self) -> impl Iterator<Item = ([f32; 2], f32)> {
        let [bottom, top] = self.crown;
        let count: u32 = match self.shape {
            Shape::Round => 16,
            Shape::Tall => 14,
            Shape::Conifer => 22,
            Shape::Bush => 8,
        };
        let (middle, half) = (f32::midpoint(bottom, top), (top - bottom) / 2.0);
        (0..count).map(move |i| {
            let [a, b, c] = [0, 1, 2].map(|n| unit(self.seed, i, n));
            if self.shape == Shape::Conifer {
                // Whorls of branches, the lower ones first and wider.
                let up = (i as f32 + 0.5 * a) / count as f32;
                let wide = self.radius * (1.0 - up) * 0.75;
                return (
                    [(b - 0.5) * 2.0 * wide, bottom + 2.0 * half * up],
                    (self.radius * (1.05 - up) * 0.62).max(0.15),
                );
            }
            // A place in the crown: on a ring of random radius, in a random direction (a point on the diamond, made round).
            let (dx, dy) = ((4.0 * b - 2.0).abs() - 1.0, (4.0 * (b + 0.25).fract() - 2.0).abs() - 1.0);
            let length = (dx * dx + dy * dy).sqrt().max(1e-3);
            let ring = a.sqrt() * 0.68;
            let size = self.radius.min(half) * (0.36 + 0.24 * c);
            ([dx / length * ring * self.radius, middle + dy / length * ring * half], size)
        })
    }

    fn paint_crown(&self, figure: &mut Figure, ambient: Rgb, sun_rgb: Rgb, sun: Point) {
        let [bottom, top] = self.crown;
        let (middle, half) = (f32::midpoint(bottom, top), (top - bottom) / 2.0);
        let grain = 5.0 / self.radius.clamp(0.8, 2.2);
        let offset = (self.seed & 255) as f32;
        let tone = figure.tone;
        for (at, size) in self.clumps() {
            let light = 0.8 + 0.4 * unit(self.seed, at[0].to_bits(), 5);
            let (cx, cy) = (at[0] / self.radius, (at[1] - middle) / half);
            let (middle, reach) = (figure.sample(at), [size * figure.scale; 2]);
            figure.canvas.ellipse(middle, reach, |sample, dx, dy| {
                let square = dx * dx + dy * dy;
                let (u, v) = ((at[0] + dx * size) * grain + offset, (at[1] - dy * size) * grain);
                let leaf = speckle(u * 0.5, v * 0.5);
                if square > 1.1 - 0.75 * leaf {
                    return;
                }
                // Of about length 1.3: half the clump's own roundness, half the crown's.
                let normal = [dx + 0.7 * cx, 0.8 * cy - dy, 0.5 * square - 1.2];
                let open = (0.62 + 0.33 * cy - 0.25 * dy).clamp(0.2, 1.1);
                let falling = ambient * open + sun_rgb * (dot(normal, sun).max(0.0) * (0.4 + 0.35 * open));
                let grain = 0.5 + speckle(u * 1.7, v * 1.7);
                *sample = Paint { rgb: tone.glow(self.leaves * falling * (grain * light)), label: Label::Vegetation };
            });
        }
    }
}

impl Thing for Plant {
    fn depth(&self) -> f32 {
        self.foot[2]
    }

    fn cast(&self, painter: &mut Painter) {
        let [x, _, z] = self.foot;
        let r = self.radius * 0.8;
        let foot =
            [[-1.0, 0.0], [-0.7, 0.7], [0.0, 1.0], [0.7, 0.7], [1.0, 0.0], [0.7, -0.7], [0.0, -1.0], [-0.7, -0.7]];
        let around = |r: f32| foot.map(|[dx, dz]| [x + dx * r, z + dz * r]);
        let [bottom, top] = self.crown;
        let low = bottom + 0.25 * (top - bottom);
        painter.sun_shadow(&around(r), [low, top - 0.25 * (top - bottom)]);
        if self.shape == Shape::Bush {
            painter.contact_shadow([x, z], [0.0, 1.0], [r, r]);
        } else {
            painter.sun_shadow(&around(0.12), [0.0, low]);
            painter.contact_shadow([x, z], [0.0, 1.0], [0.25, 0.25]);
        }
    }

    fn paint(&self, painter: &mut Painter) {
        let [bottom, top] = self.crown;
        let lit = painter.sunlit([self.foot[0], f32::midpoint(bottom, top), self.foot[2]]);
        let (ambient, sun_rgb, sun) = (painter.light.ambient, painter.light.sun_rgb * lit, painter.light.sun);
        let mut figure = painter.figure(self.foot, bottom);
        if self.shape != Shape::Bush {
            let width = 0.05 * top.min(14.0) + 0.06;
            let fork = bottom + 0.35 * (top - bottom);
            figure.limb(Label::Vegetation, self.bark, [0.0, 0.0], [0.0, fork], [width, width * 0.6]);
            for (x, y) in [(-0.4, 0.45), (0.45, 0.5), (0.1, 0.6)] {
                let end = [x * self.radius, bottom + y * (top - bottom)];
                figure.limb(Label::Vegetation, self.bark, [0.0, bottom * 0.9], end, [width * 0.5, width * 0.2]);
            }
        }
        self.paint_crown(&mut figure, ambient, sun_rgb, sun);
    }
}

/// A piece of a hedge.
pub(super) struct Hedge {
    pub(super) ends: [Point; 2],
    pub(super) height: f32,
    pub(super) leaves: Rgb,
}

impl Hedge {
    pub(super) fn leaves(rng: &mut KeyedRng, season: &Season) -> Rgb {
        season.leaves(rng) * 0.8
    }
}

impl Thing for Hedge {
    fn depth(&self) -> f32 {
        self.ends[0][2].max(self.ends[1][2])
    }

    fn cast(&self, painter: &mut Painter) {
        let foot = self.ends.map(|[x, _, z]| [x, z]);
        painter.sun_shadow(&foot, [0.0, self.height]);
    }

    fn paint(&self, painter: &mut Painter) {
        let [a, b] = self.ends;
        let over = self.height * 1.12;
        let corners = [a, b, [b[0], over, b[2]], [a[0], over, a[2]]];
        let start = a[2];
        painter.textured(&corners, Facing::Both, Label::Vegetation, |u, v| {
            let leaf = speckle((start + u) * 1.3, v * 1.3);
            if v > self.height * (0.88 + 0.24 * leaf) {
                return None;
            }
            let grain = 0.4 + 0.9 * fractal((start + u) * 2.7, v * 2.7);
            Some(Surface::matt(self.leaves * (grain * (0.55 + 0.6 * v / self.height))))
        });
    }
}
