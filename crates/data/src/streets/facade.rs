//! What the wall of a house looks like, at every point of it.

use super::light::Surface;
use super::noise::{cell, floor, fractal, wrap};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

const PLASTER: [u32; 14] = [
    0xe8_e2d4, 0xd8_c8a8, 0xc9_b48c, 0xd6_a880, 0xb8_7c64, 0xe2_cfc0, 0xa8_a49c, 0x8c_8c90, 0xc4_c8c8, 0xb5_b890,
    0x9a_a8a0, 0xd0_d4d8, 0xc8_9a54, 0x86_7c70,
];
const BRICK: [u32; 6] = [0x95_5244, 0xa8_644c, 0x7c_4638, 0xb4_8060, 0x8a_6a58, 0x6e_5048];
const STONE: [u32; 7] = [0x98_9690, 0xb4_aea0, 0x7e_7c7a, 0xa4_9c8c, 0xc4_beb0, 0x6c_6e72, 0x8e_9498];
const TRIM: [u32; 6] = [0xf0_ede4, 0xdc_d6c8, 0xb8_b4ac, 0x6a_5a4c, 0xe8_e8e8, 0x48_4c50];
const SHOP: [u32; 10] =
    [0xa4_2c2c, 0x28_5a8c, 0x2e_6a44, 0xd8_a830, 0x30_3034, 0xe4_e0d4, 0x7a_3c68, 0xc8_6a28, 0x3c_8088, 0x8c_1c3c];

/// What a wall is made of.
#[derive(Clone, Copy, PartialEq)]
enum Make {
    Plaster,
    Brick,
    /// Slabs with bands of windows.
    Bands,
    /// Glass from floor to floor.
    Glass,
    /// Boards, or sheet metal.
    Boards,
}

/// The look of a house's walls.
#[derive(Clone)]
pub(super) struct Facade {
    make: Make,
    pub(super) wall: Rgb,
    pub(super) trim: Rgb,
    ground_floor: f32,
    pub(super) floor: f32,
    bay: f32,
    /// (width, height) of a window, and the height of its sill above the floor.
    window: [f32; 2],
    sill: f32,
    shop: Option<Rgb>,
    cornice: bool,
    balconies: bool,
    shutters: Option<Rgb>,
    glass: f32,
    stains: f32,
    /// The share of windows with light behind them.
    lit: f32,
    seed: u32,
}

impl Facade {
    /// A house of a street's row.
    pub(super) fn town(rng: &mut KeyedRng, lamps: f32) -> Self {
        let make = match rng.below(100) {
            0..48 => Make::Plaster,
            48..68 => Make::Brick,
            68..87 => Make::Bands,
            _ => Make::Glass,
        };
        Self::new(rng, make, lamps)
    }

    /// A house in a garden.
    pub(super) fn garden(rng: &mut KeyedRng, lamps: f32) -> Self {
        let make = [Make::Plaster, Make::Plaster, Make::Brick, Make::Boards][rng.below(4)];
        let facade = Self::new(rng, make, lamps);
        Self { shop: None, balconies: false, ground_floor: facade.floor, ..facade }
    }

    fn new(rng: &mut KeyedRng, make: Make, lamps: f32) -> Self {
        let colors: &[u32] = match make {
            Make::Plaster | Make::Boards => &PLASTER,
            Make::Brick => &BRICK,
            Make::Bands | Make::Glass => &STONE,
        };
        let floor = rng.between(2.8, 3.7);
        let window = match make {
            Make::Bands => [9.0, rng.between(1.2, 1.8)],
            Make::Glass => [9.0, floor - 0.5],
            _ => [rng.between(0.8, 1.5), rng.between(1.3, 2.1)],
        };
        let shop = rng.chance(if make == Make::Boards { 0.0 } else { 0.5 });
        Self {
            make,
            wall: Rgb::drawn(rng, colors, 0.3) * 0.9,
            trim: Rgb::drawn(rng, &TRIM, 0.1),
            ground_floor: if shop { rng.between(3.4, 4.6) } else { rng.between(2.9, 4.0) },
            floor,
            bay: if make == Make::Glass { rng.between(1.2, 2.0) } else { window[0].min(1.6) + rng.between(0.8, 2.0) },
            window,
            sill: if make == Make::Glass { 0.25 } else { (floor - window[1]) * rng.between(0.4, 0.6) },
            shop: shop.then(|| Rgb::drawn(rng, &SHOP, 0.2)),
            cornice: rng.chance(0.6),
            balconies: rng.chance(0.25) && make != Make::Glass,
            shutters: (rng.chance(0.25) && make == Make::Plaster).then(|| Rgb::drawn(rng, &SHOP, 0.2)),
            glass: rng.between(0.15, 0.7),
            stains: rng.between(0.1, 0.5),
            lit: if lamps > 0.0 { rng.between(0.15, 0.6) } else { 0.02 },
            seed: rng.bits(),
        }
    }

    /// The height of that many floors.
    pub(super) fn height(&self, floors: usize) -> f32 {
        self.ground_floor + self.floor * floors.saturating_sub(1) as f32 + 0.6
    }

    /// The surface at u metres along a wall of that size, v metres above its foot.
    pub(super) fn at(&self, u: f32, v: f32, [width, height]: [f32; 2]) -> Surface {
        let bays = floor(width / self.bay).max(1) as f32;
        let bay = width / bays;
        let column = floor(u / bay) as f32;
        let from_axis = (u - (column + 0.5) * bay).abs();
        if v < self.ground_floor && self.shop.is_some() {
            return self.shop_front(from_axis, bay, v, column);
        }
        let (story, above) = self.story(v);
        let room = height - 0.4 - (v - above);
        if room > self.sill + self.window[1]
            && let Some(surface) = self.window_at(from_axis, bay, above, column, story)
        {
            return surface;
        }
        if self.cornice && v > height - 0.5 {
            return Surface::matt(self.trim * if v > height - 0.12 { 1.0 } else { 0.8 });
        }
        self.wall_at(u, v, above)
    }

    /// A wall without windows.
    pub(super) fn blank(&self, u: f32, v: f32) -> Surface {
        let (_, above) = self.story(v);
        self.wall_at(u, v, above)
    }

    /// The number of the floor at that height, and the height above that floor.
    fn story(&self, v: f32) -> (f32, f32) {
        if v < self.ground_floor {
            return (0.0, v - (self.ground_floor - self.floor).max(0.0));
        }
        let upper = (v - self.ground_floor) / self.floor;
        let story = floor(upper) as f32;
        (story + 1.0, (upper - story) * self.floor)
    }

    fn wall_at(&self, u: f32, v: f32, above: f32) -> Surface {
        let stains = fractal(u * 0.25 + (self.seed & 255) as f32, v * 0.12);
        let mut albedo = self.wall * (1.0 + self.stains * (stains - 0.5) * 1.2);
        if v < 0.7 {
            albedo = albedo * 0.75;
        }
        let seam = |x: f32, every: f32, width: f32| wrap(x, every) < width;
        match self.make {
            Make::Brick => {
                let course = floor(v / 0.22) as f32;
                albedo = albedo * (0.82 + 0.36 * cell((u + course * 0.27) / 0.55, course, self.seed));
                if v - course * 0.22 < 0.035 {
                    albedo = albedo * 1.15;
                }
            }
            Make::Bands if above < 0.08 || seam(u, 3.2, 0.08) => albedo = albedo * 0.7,
            Make::Boards if seam(v, 0.3, 0.05) => albedo = albedo * 0.72,
            Make::Plaster if above < 0.14 && self.cornice => albedo = self.trim * 0.85,
            _ => {}
        }
        Surface::matt(albedo)
    }

    fn window_at(&self, from_axis: f32, bay: f32, above: f32, column: f32, story: f32) -> Option<Surface> {
        let (half, up) = (self.window[0] / 2.0, above - self.sill);
        if story == 0.0 && self.make == Make::Plaster && cell(column, 77.0, self.seed) < 0.2 && from_axis < 0.6 {
            // A door.
            return (above < 2.2).then(|| Surface::matt(self.trim * Rgb::new(0.4, 0.33, 0.3)));
        }
        if self.balconies && story > 0.0 && cell(column, 5.0, self.seed) < 0.5 && above < 1.0 {
            let bars = wrap(from_axis * 6.0, 1.0) < 0.4 || !(0.15..0.9).contains(&above);
            if from_axis < half + 0.35 && bars {
                return Some(Surface::matt(self.trim * 0.35));
            }
        }
        if up < 0.0 || up > self.window[1] {
            let ledge = from_axis < half + 0.12 && (-0.14..0.0).contains(&up) && self.make != Make::Glass;
            return ledge.then(|| Surface::matt(self.trim));
        }
        if from_axis > half {
            let shutter = self.shutters.filter(|_| from_axis < half + 0.45 && story > 0.0);
            return shutter.map(|color| Surface::matt(color * (0.75 + 0.25 * wrap(up * 9.0, 1.0))));
        }
        let post = self.make == Make::Glass || self.make == Make::Bands;
        let edge = (half - from_axis).min(up).min(self.window[1] - up);
        if edge < 0.07 || from_axis < 0.035 || (post && bay / 2.0 - from_axis < 0.06) {
            return Some(Surface::matt(self.trim * 0.8));
        }
        Some(self.pane(column, story, up / self.window[1]))
    }

    /// Glass: what it mirrors, a curtain, a lamp behind it. `up` runs from 0 at its sill to 1.
    fn pane(&self, column: f32, story: f32, up: f32) -> Surface {
        let own = cell(column, story, self.seed ^ 9);
        let shade = if up > 0.88 { 0.5 } else { 1.0 };
        if cell(column, story, self.seed ^ 3) < self.lit {
            let lamp = Rgb::new(1.0, 0.72, 0.38) * (0.35 + 0.5 * own);
            return Surface { albedo: Rgb::grey(0.1), gloss: 0.05, glow: lamp * shade, clear: 0.0 };
        }
        let curtain = cell(column, story, self.seed ^ 4);
        let albedo = if curtain < 0.3 && up > curtain * 2.5 { Rgb::grey(0.4 * own + 0.1) } else { Rgb::grey(0.03) };
        Surface::glossy(albedo * shade, self.glass * (0.4 + 0.6 * own) * shade)
    }

    fn shop_front(&self, from_axis: f32, bay: f32, v: f32, column: f32) -> Surface {
        let shop = self.shop.unwrap_or(self.trim);
        let board = self.ground_floor - 0.95;
        if v > self.ground_floor - 0.2 {
            return Surface::matt(self.trim * 0.9);
        }
        if v > board {
            // The shop's name, as strokes.
            let stroke = cell(from_axis * 7.0, column, self.seed);
            let name = (board + 0.22..board + 0.55).contains(&v) && stroke < 0.5 && from_axis < bay * 0.35;
            return Surface::matt(if name { self.trim } else { shop });
        }
        if v > board - 0.12 || bay / 2.0 - from_axis < 0.16 || v < 0.45 {
            return Surface::matt(shop * 0.5 + self.wall * 0.2);
        }
        let goods = cell(from_axis * 3.0, v * 2.0 + column, self.seed ^ 6);
        let color = Rgb::new(goods, 0.5, 1.0 - goods) * (0.3 * cell(v * 2.0, 3.0, self.seed));
        let glow = Rgb::new(1.0, 0.8, 0.5) * if self.lit > 0.1 { 0.4 * goods + 0.25 } else { 0.02 };
        Surface { albedo: color, gloss: self.glass * 0.5, glow, clear: 0.0 }
    }
}
