//! A scene: what stands where in a street, and the order in which it is painted.

use super::building;
use super::camera::{Camera, Point};
use super::canvas::{Canvas, Paint};
use super::ground::Ground;
use super::label::Label;
use super::lens::Lens;
use super::light::Light;
use super::painter::{Painter, Thing};
use super::rgb::Rgb;
use super::sky;
use super::street::Street;
use crate::keyed::{self, KeyedRng};

/// The photo's bytes (RGB, row by row) and the labels of scene (`seed`, `index`).
pub(super) fn render(seed: u64, index: u64, height: usize, width: usize) -> (Vec<u8>, Vec<Label>) {
    // Each part of a scene has a generator of its own: a change to one leaves the others as they were.
    let part = |name: &str| keyed::rng(seed, &format!("streets/{name}"), &[index]);
    let light = Light::new(&mut part("light"));
    let mut street = Street::new(&mut part("street"));
    let mut buildings = part("buildings");
    let mut things: Vec<Box<dyn Thing>> = Vec::new();
    for side in 0..2 {
        let houses = building::along(&mut buildings, &mut street, side, light.lamps);
        things.extend(houses.into_iter().map(|house| Box::new(house) as Box<dyn Thing>));
    }
    let mut place = Placing::new(&street, light.lamps, things);
    place.plants(&mut part("plants"));
    place.edges(&mut part("edges"));
    place.posts(&mut part("posts"));
    place.traffic(&mut part("traffic"));
    place.parked(&mut part("parked"));
    place.people(&mut part("people"));
    let mut things = place.things;
    // The sort is stable and the order of placing fixed, so equal depths are no matter of chance.
    things.sort_by(|a, b| b.depth().total_cmp(&a.depth()));

    let ground = Ground::new(&mut part("ground"), &street);
    let camera = Camera::new(&mut part("camera"), street.camera_t, height, width);
    let mut painter = Painter { canvas: Canvas::new(height, width), camera, light, street };
    sky::paint(&mut painter, &mut part("sky"));
    ground.paint(&mut painter);
    sky::paint_distance(&mut painter, &mut part("distance"));
    for thing in &things {
        thing.cast(&mut painter);
    }
    for thing in &things {
        thing.paint(&mut painter);
    }
    paint_bonnet(&mut painter, &mut part("bonnet"));
    let lens = Lens::new(&mut part("lens"), &painter.light);
    (lens.develop(painter.canvas.colors(), height, width), painter.canvas.labels())
}

/// The bonnet of our own car, in some scenes.
fn paint_bonnet(painter: &mut Painter, rng: &mut KeyedRng) {
    if !rng.chance(0.3) {
        return;
    }
    let (height, width) = painter.canvas.size();
    let (height, width) = (height as f32, width as f32);
    let color = Rgb::drawn(rng, &[0x20_2224, 0x70_7376, 0xd0_d0d0, 0x30_4870, 0x78_2424], 0.2);
    let (rise, middle) = (height * rng.between(0.2, 0.5), width * rng.between(0.4, 0.6));
    let light = &painter.light;
    let (body, sky) = (color * light.falls_on([0.0, 0.9, -0.4], 0.7), light.sky(0.2));
    painter.canvas.ellipse([middle, height + rise * 0.75], [width * 0.62, rise], |sample, _, dy| {
        let shine = (dy + 1.0).clamp(0.0, 1.0);
        *sample = Paint { rgb: body + sky * (0.16 * (1.0 - shine)), label: Label::Void };
    });
}

/// A scene while things are put into it.
pub(super) struct Placing<'a> {
    pub(super) street: &'a Street,
    /// 1 when lamps are lit, 0 by day.
    pub(super) lamps: f32,
    pub(super) things: Vec<Box<dyn Thing>>,
    /// The places on the road that are taken: middle (x, z) and half the extent in both.
    taken: Vec<([f32; 2], [f32; 2])>,
}

impl<'a> Placing<'a> {
    fn new(street: &'a Street, lamps: f32, things: Vec<Box<dyn Thing>>) -> Self {
        Self { street, lamps, things, taken: Vec::new() }
    }

    pub(super) fn add(&mut self, thing: impl Thing + 'static) {
        self.things.push(Box::new(thing));
    }

    /// Takes a place on the road, unless something is there already.
    pub(super) fn take(&mut self, [x, _, z]: Point, extent: [f32; 2]) -> bool {
        let free = self.taken.iter().all(|(middle, other)| {
            (middle[0] - x).abs() > other[0] + extent[0] || (middle[1] - z).abs() > other[1] + extent[1]
        });
        if free {
            self.taken.push(([x, z], extent));
        }
        free
    }

    /// The place `out` metres from the road's axis on a side.
    pub(super) fn beside(&self, side: usize, out: f32, s: f32) -> Point {
        self.street.at(self.street.sides[side].sign * out, 0.0, s)
    }

    /// The direction of the road at s, ahead or back.
    pub(super) fn along(&self, s: f32, ahead: bool) -> [f32; 2] {
        let slope = self.street.slope(s);
        let length = (1.0 + slope * slope).sqrt() * if ahead { 1.0 } else { -1.0 };
        [slope / length, 1.0 / length]
    }
}
