//! Cars, vans, trucks, buses and trams.

use super::camera::Point;
use super::car::{ESTATE, HATCHBACK, Profile, SALOON, VAN};
use super::label::Label;
use super::light::Surface;
use super::painter::{Facing, Painter, Thing};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

const BODY: [u32; 18] = [
    0xc8_cacc, 0x9a_9c9e, 0x70_7376, 0x42_4548, 0x20_2224, 0xea_eaea, 0x2c_4878, 0x48_6c94, 0x8a_2424, 0xb0_3028,
    0x38_5a44, 0x68_7058, 0xb8_a888, 0x78_6450, 0x54_3844, 0xd0_a030, 0x5a_6a74, 0x16_1c2c,
];
pub(super) const GLASS: Rgb = Rgb::new(0.03, 0.035, 0.04);
pub(super) const TYRE: Rgb = Rgb::grey(0.015);

/// The unit circle at steps of 22.5 degrees.
const CIRCLE: [[f32; 2]; 16] = {
    const A: f32 = 0.923_879_5;
    const B: f32 = 0.707_106_77;
    const C: f32 = 0.382_683_43;
    #[rustfmt::skip]
    let circle = [
        [1.0, 0.0], [A, C], [B, B], [C, A], [0.0, 1.0], [-C, A], [-B, B], [-A, C],
        [-1.0, 0.0], [-A, -C], [-B, -B], [-C, -A], [0.0, -1.0], [C, -A], [B, -B], [A, -C],
    ];
    circle
};

/// What stands or drives on a road.
pub(super) struct Vehicle {
    /// The middle of its footprint.
    middle: Point,
    /// The direction of its front, of length 1, on the ground.
    forward: [f32; 2],
    pub(super) length: f32,
    pub(super) width: f32,
    pub(super) height: f32,
    pub(super) color: Rgb,
    pub(super) second: Rgb,
    make: Make,
    /// 1 with its lamps on.
    pub(super) lamps: f32,
    braking: bool,
}

#[derive(Clone, Copy)]
enum Make {
    Car(Profile),
    /// A box with windows all around: a bus or a tram.
    Coach(Label),
    /// A cab and a load.
    Truck {
        tarpaulin: bool,
    },
}

impl Vehicle {
    pub(super) fn car(rng: &mut KeyedRng, middle: Point, forward: [f32; 2], lamps: f32) -> Self {
        let (profile, size) = match rng.below(20) {
            0..6 => (SALOON, [4.6, 1.8, 1.45]),
            6..12 => (HATCHBACK, [4.0, 1.75, 1.48]),
            12..15 => (ESTATE, [4.6, 1.8, 1.5]),
            15..18 => (ESTATE, [4.5, 1.88, 1.72]),
            _ => (VAN, [5.2, 1.98, 2.2]),
        };
        let size = size.map(|side: f32| side * rng.between(0.95, 1.06));
        Self::of(rng, middle, forward, size, Make::Car(profile), lamps)
    }

    pub(super) fn truck(rng: &mut KeyedRng, middle: Point, forward: [f32; 2], lamps: f32) -> Self {
        let size = [rng.between(7.0, 10.0), 2.45, rng.between(2.9, 3.7)];
        let tarpaulin = rng.chance(0.6);
        Self::of(rng, middle, forward, size, Make::Truck { tarpaulin }, lamps)
    }

    pub(super) fn bus(rng: &mut KeyedRng, middle: Point, forward: [f32; 2], lamps: f32) -> Self {
        let size = [rng.between(10.5, 12.5), 2.5, rng.between(2.9, 3.2)];
        Self::of(rng, middle, forward, size, Make::Coach(Label::Bus), lamps)
    }

    pub(super) fn tram(rng: &mut KeyedRng, middle: Point, forward: [f32; 2], lamps: f32) -> Self {
        let size = [rng.between(20.0, 28.0), 2.4, 3.3];
        Self::of(rng, middle, forward, size, Make::Coach(Label::Train), lamps)
    }

    fn of(
        rng: &mut KeyedRng,
        middle: Point,
        forward: [f32; 2],
        [length, width, height]: [f32; 3],
        make: Make,
        lamps: f32,
    ) -> Self {
        let color = Rgb::drawn(rng, &BODY, 0.25);
        let second = Rgb::drawn(rng, &BODY, 0.25);
        let lamps = if rng.chance(0.25) { 1.0 } else { lamps };
        Self { middle, forward, length, width, height, color, second, make, lamps, braking: rng.chance(0.4) }
    }

    /// A place in the vehicle: metres ahead of its middle, to its right, and up.
    pub(super) fn at(&self, ahead: f32, right: f32, up: f32) -> Point {
        let [fx, fz] = self.forward;
        [self.middle[0] + ahead * fx + right * fz, self.middle[1] + up, self.middle[2] + ahead * fz - right * fx]
    }

    fn footprint(&self) -> [[f32; 2]; 4] {
        let (a, b) = (self.length * 0.48, self.width * 0.46);
        [(-a, -b), (a, -b), (a, b), (-a, b)].map(|(ahead, right)| {
            let [x, _, z] = self.at(ahead, right, 0.0);
            [x, z]
        })
    }

    pub(super) fn label(&self) -> Label {
        match self.make {
            Make::Car(_) => Label::Car,
            Make::Coach(label) => label,
            Make::Truck { .. } => Label::Truck,
        }
    }

    pub(super) fn wheels(&self, painter: &mut Painter, axles: &[f32], radius: f32, sunlit: f32) {
        for right in [-1.0, 1.0] {
            for &axle in axles {
                let disc = |r: f32, out: f32| {
                    CIRCLE.map(|[c, s]| self.at(axle + c * r, right * (self.width / 2.0 * 0.97 + out), radius + s * r))
                };
                let inside = self.at(axle, 0.0, radius);
                let label = self.label();
                painter.flat(
                    &disc(radius * 1.18, 0.0),
                    Facing::Away(inside),
                    label,
                    Surface::matt(Rgb::grey(0.01)),
                    sunlit,
                );
                painter.flat(&disc(radius, 0.02), Facing::Away(inside), label, Surface::matt(TYRE), sunlit);
                painter.flat(
                    &disc(radius * 0.55, 0.03),
                    Facing::Away(inside),
                    label,
                    Surface::matt(Rgb::grey(0.3)),
                    sunlit,
                );
            }
        }
    }

    pub(super) fn front_lamp(&self) -> Surface {
        let glow = Rgb::new(1.35, 1.25, 1.0) * self.lamps;
        Surface { albedo: Rgb::grey(0.5), gloss: 0.3, glow, clear: 0.0 }
    }

    pub(super) fn rear_lamp(&self) -> Surface {
        let on = if self.braking { 1.0 } else { 0.42 * self.lamps };
        Surface { albedo: Rgb::new(0.38, 0.02, 0.02), gloss: 0.04, glow: Rgb::new(1.0, 0.06, 0.04) * on, clear: 0.0 }
    }

    /// Front and rear lamps, at a height and a reach from the middle, on the side that is seen.
    pub(super) fn lamps(&self, painter: &mut Painter, ahead: f32, height: f32, size: [f32; 2], sunlit: f32) {
        let inside = self.at(0.0, 0.0, height);
        let half = self.width / 2.0;
        for right in [-1.0, 1.0] {
            let (near, far) = (half * 0.94 - size[0], half * 0.94);
            let corners = [(near, 0.0), (far, 0.0), (far, size[1]), (near, size[1])]
                .map(|(r, up)| self.at(ahead, right * r, height + up));
            let surface = if ahead > 0.0 { self.front_lamp() } else { self.rear_lamp() };
            painter.flat(&corners, Facing::Away(inside), self.label(), surface, sunlit);
        }
    }
}

impl Thing for Vehicle {
    fn depth(&self) -> f32 {
        // What is beside a long vehicle is seldom before its far half.
        self.middle[2] - 0.2 * (self.length - 4.0).max(0.0) * self.forward[1].abs()
    }

    fn cast(&self, painter: &mut Painter) {
        let foot = self.footprint();
        painter.sun_shadow(&foot, [0.1, self.height * 0.85]);
        let [x, _, z] = self.middle;
        painter.contact_shadow([x, z], self.forward, [0.5 * self.length, 0.5 * self.width]);
    }

    fn paint(&self, painter: &mut Painter) {
        let sunlit = painter.sunlit(self.at(0.0, 0.0, self.height * 0.6));
        match &self.make {
            Make::Car(profile) => self.paint_car(painter, profile, sunlit),
            Make::Coach(_) => self.paint_coach(painter, sunlit),
            Make::Truck { tarpaulin } => self.paint_truck(painter, *tarpaulin, sunlit),
        }
    }
}
