//! Passenger cars: a profile drawn across a width.

use super::camera::{Point, between, center};
use super::label::Label;
use super::light::Surface;
use super::painter::{Facing, Painter};
use super::rgb::Rgb;
use super::vehicle::{GLASS, TYRE, Vehicle};

/// The outline of a car from the side, from its rear bottom over its roof to its front bottom: (from its middle in lengths,
/// height in heights). Points 2 to 6 are the boot's edge, the foot of the rear window, the roof's ends, the foot of the
/// windscreen.
pub(super) type Profile = [[f32; 2]; 10];

#[rustfmt::skip]
pub(super) const SALOON: Profile = [
    [-0.49, 0.16], [-0.5, 0.42], [-0.485, 0.64], [-0.36, 0.67], [-0.2, 0.98],
    [0.08, 1.0], [0.25, 0.66], [0.45, 0.55], [0.5, 0.4], [0.49, 0.16],
];
#[rustfmt::skip]
pub(super) const HATCHBACK: Profile = [
    [-0.49, 0.16], [-0.5, 0.4], [-0.49, 0.6], [-0.47, 0.63], [-0.37, 0.97],
    [0.06, 1.0], [0.28, 0.64], [0.46, 0.54], [0.5, 0.38], [0.49, 0.16],
];
#[rustfmt::skip]
pub(super) const ESTATE: Profile = [
    [-0.49, 0.17], [-0.5, 0.42], [-0.49, 0.6], [-0.48, 0.63], [-0.42, 0.96],
    [0.1, 1.0], [0.28, 0.66], [0.46, 0.57], [0.5, 0.42], [0.49, 0.17],
];
#[rustfmt::skip]
pub(super) const VAN: Profile = [
    [-0.5, 0.14], [-0.5, 0.3], [-0.5, 0.5], [-0.5, 0.55], [-0.48, 0.98],
    [0.22, 1.0], [0.38, 0.6], [0.47, 0.5], [0.5, 0.36], [0.49, 0.14],
];

/// A car while it is painted.
struct Car<'a> {
    vehicle: &'a Vehicle,
    profile: &'a Profile,
    middle: Point,
    sunlit: f32,
}

impl Vehicle {
    pub(super) fn paint_car(&self, painter: &mut Painter, profile: &Profile, sunlit: f32) {
        let car = Car { vehicle: self, profile, middle: self.at(0.0, 0.0, self.height * 0.5), sunlit };
        car.paint_underside(painter);
        // Strips across the car, the farther ones first; its sides come before the strips of its near end.
        let depth = |i: usize| center(&[car.edge(i, 0.0), car.edge(i + 1, 0.0)])[2];
        let mut strips: Vec<usize> = (0..profile.len() - 1).collect();
        strips.sort_by(|&i, &j| depth(j).total_cmp(&depth(i)));
        let rear_is_near = depth(0) < depth(8);
        let (far, near): (Vec<_>, Vec<_>) = strips.into_iter().partition(|&i| if rear_is_near { i > 2 } else { i < 6 });
        for i in far {
            car.paint_strip(painter, i);
        }
        car.paint_sides(painter);
        for i in near {
            car.paint_strip(painter, i);
        }
        self.wheels(painter, &[-0.3 * self.length, 0.31 * self.length], 0.31, sunlit);
    }
}

impl Car<'_> {
    /// The left (-1) or right (1) end of a profile point's line across the car.
    fn edge(&self, i: usize, right: f32) -> Point {
        let [ahead, up] = self.profile[i];
        // The body leans inwards towards the roof and is drawn in at its ends.
        let width = 1.0 - 0.28 * (up - 0.62).max(0.0) / 0.38 - 1.3 * (ahead.abs() - 0.44).max(0.0);
        let vehicle = self.vehicle;
        vehicle.at(ahead * vehicle.length, right * width * vehicle.width / 2.0, up * vehicle.height)
    }

    fn flat(&self, painter: &mut Painter, corners: &[Point], inside: Point, surface: Surface) {
        painter.flat(corners, Facing::Away(inside), Label::Car, surface, self.sunlit);
    }

    fn body(&self) -> Surface {
        Surface::glossy(self.vehicle.color, 0.07)
    }

    /// The darkness below, and the tyres as they are seen from the ends.
    fn paint_underside(&self, painter: &mut Painter) {
        let Vehicle { length, width, .. } = *self.vehicle;
        let at = |ahead: f32, right: f32, up: f32| self.vehicle.at(ahead * length, right * width / 2.0, up);
        let below = [at(-0.46, 0.85, 0.02), at(0.46, 0.85, 0.02), at(0.46, -0.85, 0.02), at(-0.46, -0.85, 0.02)];
        painter.flat(&below, Facing::Both, Label::Car, Surface::matt(Rgb::grey(0.006)), 0.0);
        for (axle, side) in [(-0.3, -1.0), (-0.3, 1.0), (0.31, -1.0), (0.31, 1.0)] {
            let [outer, inner] = [0.95 * side, 0.7 * side];
            let tyre = [at(axle, outer, 0.0), at(axle, inner, 0.0), at(axle, inner, 0.4), at(axle, outer, 0.4)];
            painter.flat(&tyre, Facing::Both, Label::Car, Surface::matt(TYRE), 0.0);
        }
    }

    /// The strip between profile points i and i + 1, with what is on it.
    fn paint_strip(&self, painter: &mut Painter, i: usize) {
        let vehicle = self.vehicle;
        let corners = [self.edge(i, -1.0), self.edge(i, 1.0), self.edge(i + 1, 1.0), self.edge(i + 1, -1.0)];
        // Windows and roof turn away from a point in the cabin, the rest from one in the body.
        let in_cabin = vehicle.at(-0.08 * vehicle.length, 0.0, 0.7 * vehicle.height);
        let inside = if (3..6).contains(&i) { in_cabin } else { self.middle };
        let surface = match i {
            3 | 5 => Surface::glossy(GLASS, 0.1),
            0 | 8 => Surface::matt(vehicle.color * 0.35 + Rgb::grey(0.015)),
            _ => self.body(),
        };
        self.flat(painter, &corners, inside, surface);
        let mut patch = |[left, low, right, high]: [f32; 4], surface: Surface| {
            let at = |u, v| between(between(corners[0], corners[1], u), between(corners[3], corners[2], u), v);
            self.flat(painter, &[at(left, low), at(right, low), at(right, high), at(left, high)], inside, surface);
        };
        let plate = Surface::matt(Rgb::grey(0.62));
        match i {
            1 => {
                patch([0.02, 0.35, 0.2, 0.9], vehicle.rear_lamp());
                patch([0.8, 0.35, 0.98, 0.9], vehicle.rear_lamp());
                patch([0.36, 0.3, 0.64, 0.65], plate);
            }
            7 => {
                patch([0.03, 0.25, 0.24, 0.85], vehicle.front_lamp());
                patch([0.76, 0.25, 0.97, 0.85], vehicle.front_lamp());
                patch([0.3, 0.1, 0.7, 0.7], Surface::matt(Rgb::grey(0.02)));
            }
            8 => patch([0.36, 0.25, 0.64, 0.6], plate),
            _ => {}
        }
    }

    fn paint_sides(&self, painter: &mut Painter) {
        let (middle, glass) = (self.middle, Surface::glossy(GLASS, 0.1));
        for right in [-1.0, 1.0] {
            let edge = |i: usize| self.edge(i, right);
            self.flat(painter, &[3, 4, 5, 6].map(edge), middle, self.body());
            // The first three corners tell which way a polygon faces; these lie far apart.
            self.flat(painter, &[9, 0, 1, 2, 3, 6, 7, 8].map(edge), middle, self.body());
            let window = |from: f32, to: f32| {
                let at = |u: f32, v: f32| between(between(edge(3), edge(6), u), between(edge(4), edge(5), u), v);
                [at(from, 0.06), at(to, 0.06), at(to, 0.86), at(from, 0.86)]
            };
            self.flat(painter, &window(0.06, 0.47), middle, glass);
            self.flat(painter, &window(0.51, 0.94), middle, glass);
            let (rear, front) = (edge(0), edge(9));
            let raised = |[x, y, z]: Point| [x, y + self.vehicle.height * 0.1, z];
            let skirt = [rear, front, raised(front), raised(rear)];
            self.flat(painter, &skirt, middle, Surface::matt(self.vehicle.color * 0.3));
        }
    }
}
