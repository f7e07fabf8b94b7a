//! Textures: hashes of integers, and a tile of fractal noise that is looked up.

use std::sync::LazyLock;

/// Texels along a side of the tile; a power of two, so that coordinates wrap by masking.
const SIDE: usize = 256;
/// Texels between two lattice points of the coarsest octave.
const CELL: usize = 32;

/// 32 bits from three numbers: their sum with odd weights, through the finaliser of Wellons's "lowbias32".
pub(super) fn hash(a: u32, b: u32, c: u32) -> u32 {
    let weighed = [(a, 0x9E37_79B1_u32), (b, 0x85EB_CA77), (c, 0xC2B2_AE3D)];
    let x =
        weighed.into_iter().fold(0x27D4_EB2F_u32, |sum, (word, weight)| sum.wrapping_add(word.wrapping_mul(weight)));
    let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// [`hash`] as a number in [0, 1).
pub(super) fn unit(a: u32, b: u32, c: u32) -> f32 {
    (hash(a, b, c) >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The largest integer that is not above x. (`f32::floor` is a call on processors without SSE 4.1; |x| stays below 2^31.)
pub(super) fn floor(x: f32) -> i32 {
    let toward_zero = x as i32;
    toward_zero - i32::from(toward_zero as f32 > x)
}

/// The remainder of x in [0, `every`), for positive and negative x.
pub(super) fn wrap(x: f32, every: f32) -> f32 {
    x - every * floor(x / every) as f32
}

/// [`hash`] of a lattice cell as a number in [0, 1).
pub(super) fn cell(x: f32, y: f32, seed: u32) -> f32 {
    unit(floor(x) as u32, floor(y) as u32, seed)
}

/// Fractal noise in about [0, 1], mean 0.5: features from 1 down to 1/16 of a unit, repeating every 8 units.
pub(super) fn fractal(x: f32, y: f32) -> f32 {
    let tile = &**TILE;
    let (x, y) = (x * CELL as f32, y * CELL as f32);
    let (x0, y0) = (floor(x), floor(y));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let texel = |x: i32, y: i32| tile[(y as usize & (SIDE - 1)) * SIDE + (x as usize & (SIDE - 1))];
    let row = |y: i32| texel(x0, y) * (1.0 - fx) + texel(x0 + 1, y) * fx;
    row(y0) * (1.0 - fy) + row(y0 + 1) * fy
}

/// [`fractal`] without interpolation, for textures finer than pixels.
pub(super) fn speckle(x: f32, y: f32) -> f32 {
    let index = |v: f32| floor(v * CELL as f32) as usize & (SIDE - 1);
    TILE[index(y) * SIDE + index(x)]
}

/// A quarter of a megabyte.
static TILE: LazyLock<Vec<f32>> = LazyLock::new(tile);

fn tile() -> Vec<f32> {
    let mut tile = vec![0.0; SIDE * SIDE];
    let mut total = 0.0;
    let (mut cell, mut weight) = (CELL, 1.0);
    while cell >= 2 {
        let cells = (SIDE / cell) as u32;
        let lattice = |x: u32, y: u32| unit(x % cells, y % cells, cell as u32);
        for (index, texel) in tile.iter_mut().enumerate() {
            let (x, y) = (index % SIDE, index / SIDE);
            let (ix, iy) = ((x / cell) as u32, (y / cell) as u32);
            let smooth = |offset: usize| {
                let t = offset as f32 / cell as f32;
                t * t * (3.0 - 2.0 * t)
            };
            let (fx, fy) = (smooth(x % cell), smooth(y % cell));
            let upper = lattice(ix, iy) * (1.0 - fx) + lattice(ix + 1, iy) * fx;
            let lower = lattice(ix, iy + 1) * (1.0 - fx) + lattice(ix + 1, iy + 1) * fx;
            *texel += weight * (upper * (1.0 - fy) + lower * fy);
        }
        total += weight;
        cell /= 2;
        weight *= 0.6;
    }
    // Sums of octaves crowd around the mean; stretched, the tile uses its range.
    tile.iter().map(|v| 0.5 + (v / total - 0.5) * 1.8).collect()
}
