//! Buses, trams and trucks: boxes with windows.

use super::light::Surface;
use super::noise::wrap;
use super::painter::{Facing, Painter};
use super::rgb::Rgb;
use super::vehicle::{GLASS, Vehicle};

/// A face of a box.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Top,
    Front,
    Rear,
    Flank,
}

impl Vehicle {
    /// A box from one height to another and from one place along the vehicle to another; `surface(face, u, v)` is its look,
    /// u metres from the face's left and v metres above the box's floor.
    fn solid(
        &self,
        painter: &mut Painter,
        [rear, front]: [f32; 2],
        [low, high]: [f32; 2],
        surface: impl Fn(Side, f32, f32) -> Surface,
    ) {
        let half = self.width / 2.0;
        let inside = self.at(f32::midpoint(rear, front), 0.0, f32::midpoint(low, high));
        let away = Facing::Away(inside);
        let at = |ahead: f32, right: f32, up: f32| self.at(ahead, right * half, up);
        let faces = [
            (Side::Top, [at(rear, -1.0, high), at(rear, 1.0, high), at(front, 1.0, high), at(front, -1.0, high)]),
            (Side::Front, [at(front, 1.0, low), at(front, -1.0, low), at(front, -1.0, high), at(front, 1.0, high)]),
            (Side::Rear, [at(rear, -1.0, low), at(rear, 1.0, low), at(rear, 1.0, high), at(rear, -1.0, high)]),
            (Side::Flank, [at(rear, 1.0, low), at(front, 1.0, low), at(front, 1.0, high), at(rear, 1.0, high)]),
            (Side::Flank, [at(rear, -1.0, low), at(front, -1.0, low), at(front, -1.0, high), at(rear, -1.0, high)]),
        ];
        for (face, corners) in faces {
            painter.textured(&corners, away, self.label(), |u, v| Some(surface(face, u, v)));
        }
    }

    pub(super) fn paint_coach(&self, painter: &mut Painter, sunlit: f32) {
        let (half, tall, width) = (self.length / 2.0, self.height, self.width);
        let glass =
            Surface { albedo: GLASS, gloss: 0.2, glow: Rgb::new(0.8, 0.7, 0.5) * (0.35 * self.lamps), clear: 0.0 };
        let (body, second) = (Surface::glossy(self.color, 0.05), Surface::glossy(self.second, 0.05));
        let [low, high] = [0.3, tall];
        let band = tall - low;
        let doors = [self.length * 0.08, self.length * 0.48, self.length * 0.86];
        self.solid(painter, [-half, half], [low, high], |face, u, v| match face {
            Side::Top => Surface::matt(Rgb::grey(0.4)),
            Side::Front if (0.75..band - 0.5).contains(&v) && (0.12..width - 0.12).contains(&u) => glass,
            Side::Front | Side::Rear if v > band - 0.45 && v < band - 0.12 && (0.4..width - 0.4).contains(&u) => {
                Surface { albedo: Rgb::grey(0.01), gloss: 0.0, glow: Rgb::new(0.5, 0.3, 0.04), clear: 0.0 }
            }
            Side::Rear if (1.1..band - 0.5).contains(&v) && (0.25..width - 0.25).contains(&u) => glass,
            Side::Flank if v > 0.1 && v < band - 0.3 && doors.iter().any(|door| (u - door).abs() < 0.6) => {
                if doors.iter().any(|door| (u - door).abs() < 0.04) { second } else { glass }
            }
            Side::Flank if (0.8..band - 0.4).contains(&v) && wrap(u, 1.5) > 0.09 => glass,
            _ if v < 0.5 => second,
            _ => body,
        });
        self.wheels(painter, &[-0.28 * self.length, 0.3 * self.length], 0.46, sunlit);
        self.lamps(painter, half + 0.02, 0.55, [0.4, 0.2], sunlit);
        self.lamps(painter, -half - 0.02, 0.7, [0.22, 0.4], sunlit);
    }

    pub(super) fn paint_truck(&self, painter: &mut Painter, tarpaulin: bool, sunlit: f32) {
        let half = self.length / 2.0;
        let cab_rear = half - 2.1;
        let cab = |painter: &mut Painter| {
            let glass = Surface::glossy(GLASS, 0.15);
            let body = Surface::glossy(self.color, 0.06);
            let width = self.width;
            self.solid(painter, [cab_rear, half], [0.45, self.height.min(2.9)], |face, u, v| match face {
                Side::Front if (1.05..2.0).contains(&v) && (0.12..width - 0.12).contains(&u) => glass,
                Side::Front if v < 0.5 => Surface::matt(Rgb::grey(0.03)),
                Side::Flank if (1.05..1.95).contains(&v) && (0.7..1.9).contains(&u) => glass,
                _ => body,
            });
        };
        let load = |painter: &mut Painter| {
            let base = if tarpaulin { self.second } else { self.second * 0.5 + Rgb::grey(0.3) };
            self.solid(painter, [-half, cab_rear - 0.35], [0.95, self.height], |face, u, v| {
                let fold = if tarpaulin && face == Side::Flank { 0.88 + 0.2 * wrap(u * 0.9, 1.0) } else { 1.0 };
                let seam = face == Side::Rear && (u - self.width / 2.0).abs() < 0.05;
                let rim = v < 0.12 || v > self.height - 0.95 - 0.1;
                Surface::matt(base * if seam || rim { 0.5 } else { fold })
            });
            self.solid(painter, [-half + 0.1, cab_rear], [0.5, 0.95], |_, _, _| Surface::matt(Rgb::grey(0.02)));
        };
        // The part that is nearer to us is painted last.
        if self.at(half, 0.0, 0.0)[2] > self.at(-half, 0.0, 0.0)[2] {
            cab(painter);
            load(painter);
        } else {
            load(painter);
            cab(painter);
        }
        self.wheels(painter, &[-0.36 * self.length, -0.2 * self.length, half - 1.2], 0.48, sunlit);
        self.lamps(painter, half + 0.02, 0.6, [0.4, 0.2], sunlit);
        self.lamps(painter, -half - 0.02, 0.6, [0.35, 0.2], sunlit);
    }
}
