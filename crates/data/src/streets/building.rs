//! Houses: boxes with a facade and a roof.

use super::camera::{Point, center, sub};
use super::facade::Facade;
use super::label::Label;
use super::light::Surface;
use super::noise::{cell, wrap};
use super::painter::{Facing, Painter, Thing};
use super::rgb::Rgb;
use super::street::{END, Frontage, Street};
use crate::keyed::KeyedRng;

const TILES: [u32; 7] = [0x8c_4a38, 0xa0_5c44, 0x60_504a, 0x52_5458, 0x74_6a64, 0x44_4850, 0x78_4034];

/// A house along the street.
pub(super) struct Building {
    /// Its near and far end.
    s: [f32; 2],
    /// How far the road has turned to the right there.
    shift: [f32; 2],
    sign: f32,
    /// The distances of its front and its back from the road's axis.
    front: f32,
    back: f32,
    height: f32,
    facade: Facade,
    roof: Roof,
    tiles: Rgb,
    chimney: Option<f32>,
    /// Whether its near end looks onto a crossing street.
    corner: bool,
}

#[derive(Clone, Copy)]
enum Roof {
    Flat,
    /// A ridge along the street, so many metres above the eaves.
    Gable(f32),
    /// A ridge across the street.
    Cross(f32),
    /// A steep slope with windows, then flat.
    Mansard(f32),
}

/// The houses on one side of a street; notes them in its skyline.
pub(super) fn along(rng: &mut KeyedRng, street: &mut Street, side: usize, lamps: f32) -> Vec<Building> {
    let frontage = street.sides[side].frontage;
    let tall = rng.between(0.0, 1.0);
    let crossing = street.crossing.filter(|crossing| crossing.open[side]);
    let mut houses = Vec::new();
    let mut s = rng.between(-14.0, -4.0);
    while s < END {
        let (width, gap, floors) = match frontage {
            Frontage::Row => {
                let gap = if rng.chance(0.06) { rng.between(2.0, 7.0) } else { 0.0 };
                (rng.between(7.0, 24.0), gap, 2 + rng.below(2 + (tall * 5.0) as usize))
            }
            Frontage::Houses => (rng.between(8.0, 15.0), rng.between(3.0, 14.0), 1 + rng.below(3)),
            Frontage::Wall => (rng.between(10.0, 30.0), rng.between(6.0, 50.0), 2 + rng.below(4)),
            Frontage::Park => (rng.between(15.0, 40.0), rng.between(20.0, 80.0), 3 + rng.below(5)),
            Frontage::Field => (rng.between(9.0, 18.0), rng.between(60.0, 160.0), 1 + rng.below(2)),
        };
        let mut ends = [s, s + width];
        s += width + gap;
        if let Some(crossing) = crossing {
            let [from, to] = [crossing.s[0] - 1.5, crossing.s[1] + 1.5];
            if ends[0] < to && ends[1] > from {
                // The last house before the crossing is cut at it, the next one begins behind it.
                if from - ends[0] > 5.0 {
                    ends[1] = from;
                    s = to;
                } else {
                    s = to;
                    continue;
                }
            }
        }
        let house = Building::new(rng, street, side, ends, floors, lamps);
        street.sides[side].rise(ends, house.shade_height());
        houses.push(house);
    }
    houses
}

impl Building {
    fn new(rng: &mut KeyedRng, street: &Street, side: usize, s: [f32; 2], floors: usize, lamps: f32) -> Self {
        let corner = street.crossed(side, s[0], 4.0);
        let shift = s.map(|s| street.shift(s));
        let side = &street.sides[side];
        let in_row = side.frontage == Frontage::Row;
        let facade = if in_row || floors > 3 { Facade::town(rng, lamps) } else { Facade::garden(rng, lamps) };
        let front = side.front + if in_row { rng.between(0.0, 0.4) } else { rng.between(0.0, 3.0) };
        let depth = rng.between(8.0, 14.0);
        let pitch = depth / 2.0 * rng.between(0.6, 1.1);
        let roof = match (in_row, rng.below(10)) {
            (true, 0..3) | (false, 0) => Roof::Flat,
            (true, 3..5) => Roof::Mansard(rng.between(2.4, 3.4)),
            (_, 1..6) => Roof::Cross((s[1] - s[0]).min(14.0) / 2.0 * rng.between(0.6, 1.1)),
            _ => Roof::Gable(pitch),
        };
        Self {
            s,
            shift,
            sign: side.sign,
            front,
            back: front + depth,
            height: facade.height(floors),
            facade,
            roof,
            tiles: Rgb::drawn(rng, &TILES, 0.25),
            chimney: rng.chance(0.6).then(|| rng.between(0.15, 0.85)),
            corner,
        }
    }

    /// How high it stands between the street and the sun.
    fn shade_height(&self) -> f32 {
        let top = match self.roof {
            Roof::Flat => 0.0,
            Roof::Gable(rise) | Roof::Cross(rise) => 0.3 * rise,
            Roof::Mansard(rise) => 0.8 * rise,
        };
        self.height + top
    }

    /// A place in it: `along` 0 at its near and 1 at its far end, `out` metres from the road's axis, y metres up.
    fn at(&self, along: f32, out: f32, y: f32) -> Point {
        let between = |[near, far]: [f32; 2]| near + (far - near) * along;
        [self.sign * out + between(self.shift), y, between(self.s)]
    }

    fn paint_roof(&self, painter: &mut Painter, inside: Point) {
        let middle = f32::midpoint(self.front, self.back);
        let at = |along: f32, out: f32, y: f32| self.at(along, out, y);
        let away = Facing::Away(inside);
        let (eaves, tiles) = (self.height, self.tiles);
        let tiled = move |u: f32, v: f32| {
            let tile = cell(u / 0.3, v / 0.35, 11);
            let edge = if wrap(v, 0.35) < 0.07 { 0.8 } else { 1.0 };
            Some(Surface::matt(tiles * (edge * (0.85 + 0.3 * tile))))
        };
        match self.roof {
            Roof::Flat => {}
            Roof::Gable(rise) => {
                let (ridge, low) = (eaves + rise, self.front - 0.35);
                let end = [at(0.0, self.front, eaves), at(0.0, self.back, eaves), at(0.0, middle, ridge)];
                painter.textured(&end, away, Label::Building, |u, v| Some(self.facade.blank(u, v)));
                self.paint_chimney(painter, middle, ridge);
                let slope = [
                    at(0.0, low, eaves - 0.2),
                    at(1.0, low, eaves - 0.2),
                    at(1.0, middle, ridge),
                    at(0.0, middle, ridge),
                ];
                painter.textured(&slope, away, Label::Building, tiled);
            }
            Roof::Cross(rise) => {
                let ridge = eaves + rise;
                let ridge_at = |out: f32| at(0.5, out, ridge);
                self.paint_chimney(painter, middle, ridge - 0.6);
                let slope =
                    [at(0.0, self.front, eaves), at(0.0, self.back, eaves), ridge_at(self.back), ridge_at(self.front)];
                painter.textured(&slope, away, Label::Building, tiled);
                let gable = [at(0.0, self.front, eaves), at(1.0, self.front, eaves), ridge_at(self.front)];
                let width = self.s[1] - self.s[0];
                painter.textured(&gable, Facing::Both, Label::Building, |u, v| {
                    let attic = (u - width / 2.0).abs() < 0.6 && (0.6..1.8).contains(&v);
                    Some(if attic { Surface::glossy(Rgb::grey(0.03), 0.3) } else { self.facade.blank(u, v + 3.0) })
                });
            }
            Roof::Mansard(rise) => {
                let (top, back) = (eaves + rise, self.front + 0.3 * rise);
                self.paint_chimney(painter, middle, top);
                let end = [
                    at(0.0, self.front, eaves),
                    at(0.0, self.back, eaves),
                    at(0.0, self.back, top),
                    at(0.0, back, top),
                ];
                painter.textured(&end, away, Label::Building, tiled);
                let slope =
                    [at(0.0, self.front, eaves), at(1.0, self.front, eaves), at(1.0, back, top), at(0.0, back, top)];
                painter.textured(&slope, away, Label::Building, |u, v| {
                    let from_axis = (wrap(u, 3.0) - 1.5).abs();
                    if from_axis < 0.75 && (0.5..2.0).contains(&v) {
                        let pane = from_axis < 0.5 && (0.65..1.8).contains(&v);
                        return Some(if pane {
                            Surface::glossy(Rgb::grey(0.03), 0.35)
                        } else {
                            Surface::matt(self.facade.trim)
                        });
                    }
                    tiled(u, v)
                });
            }
        }
    }

    fn paint_chimney(&self, painter: &mut Painter, out: f32, foot: f32) {
        let Some(place) = self.chimney else { return };
        let [x, y, z] = self.at(place, out, foot);
        let wide = [[x - 0.5, y - 0.8, z], [x + 0.5, y - 0.8, z], [x + 0.5, y + 1.3, z], [x - 0.5, y + 1.3, z]];
        let sunlit = painter.sunlit(wide[2]);
        painter.flat(&wide, Facing::Both, Label::Building, Surface::matt(self.facade.wall * 0.7), sunlit);
    }
}

impl Thing for Building {
    fn depth(&self) -> f32 {
        self.s[1]
    }

    /// Buildings shade the street through its skyline.
    fn cast(&self, _: &mut Painter) {}

    fn paint(&self, painter: &mut Painter) {
        let at = |along: f32, out: f32, y: f32| self.at(along, out, y);
        let top = self.height;
        let inside = center(&[at(0.0, self.front, 0.0), at(1.0, self.back, top)]);
        let front =
            [at(0.0, self.front, 0.0), at(1.0, self.front, 0.0), at(1.0, self.front, top), at(0.0, self.front, top)];
        let end =
            [at(0.0, self.front, 0.0), at(0.0, self.back, 0.0), at(0.0, self.back, top), at(0.0, self.front, top)];
        let width = {
            let [dx, _, dz] = sub(front[1], front[0]);
            (dx * dx + dz * dz).sqrt()
        };
        let depth = self.back - self.front;
        painter.textured(&end, Facing::Away(inside), Label::Building, |u, v| {
            Some(if self.corner { self.facade.at(u, v, [depth, top]) } else { self.facade.blank(u, v) })
        });
        painter
            .textured(&front, Facing::Away(inside), Label::Building, |u, v| Some(self.facade.at(u, v, [width, top])));
        self.paint_roof(painter, inside);
    }
}
