//! The sky, and what closes the street off in the distance.

use super::canvas::Paint;
use super::label::Label;
use super::light::{Surface, Weather};
use super::noise::{floor, fractal, speckle};
use super::painter::Painter;
use super::rgb::Rgb;
use super::street::{END, Frontage};
use crate::keyed::KeyedRng;

/// Paints the sky with its clouds and the glow around the sun.
pub(super) fn paint(painter: &mut Painter, rng: &mut KeyedRng) {
    let (clear_sky, cover) = match painter.light.weather {
        Weather::Clear => (true, rng.between(-0.5, 0.75)),
        Weather::Golden | Weather::Dusk => (true, rng.between(-0.2, 0.8)),
        Weather::Overcast => (false, rng.between(0.6, 1.0)),
        Weather::Fog => (false, 0.0),
    };
    let offset = [rng.between(0.0, 8.0), rng.between(0.0, 8.0)];
    let stretch = rng.between(0.25, 0.6);
    let contrast = rng.between(0.1, 0.6);
    let Painter { canvas, camera, light, .. } = painter;
    let lit = light.ambient + light.sun_rgb * 0.4;
    let dark = light.ambient * 0.5 + light.horizon * 0.25;
    let sun = light.sun;
    for (y, row) in canvas.rows().enumerate() {
        if y as f32 > camera.horizon() + 2.0 {
            break;
        }
        for (x, sample) in row.iter_mut().enumerate() {
            let [across, rise, _] = camera.ray(x as f32, y as f32);
            let mut rgb = light.sky(rise);
            if clear_sky {
                let toward = (across * sun[0] + rise * sun[1] + sun[2]) / (across * across + rise * rise + 1.0).sqrt();
                let glow = toward.max(0.0) * toward.max(0.0);
                rgb = rgb + light.sun_rgb * (0.35 * glow * glow * glow);
            }
            // Clouds lie on a plane above us: nearer to the horizon they are smaller and flatter.
            let far = 1.0 / (rise.max(0.0) + 0.12);
            let puff = fractal(offset[0] + across * far * stretch, offset[1] + far * stretch * 1.6);
            let thick = if clear_sky { ((puff - 0.9 + cover * 0.6) * 4.0).clamp(0.0, 1.0) } else { 0.0 };
            rgb = rgb.mix(lit.mix(dark, (puff * 1.3 - 0.3 * rise).clamp(0.0, 1.0) * 0.8), thick * 0.9);
            if !clear_sky {
                rgb = rgb * (1.0 + (puff - 0.5) * contrast * cover);
            }
            *sample = Paint { rgb, label: Label::Sky };
        }
    }
}

/// Paints hills, woods and roofs on the horizon.
pub(super) fn paint_distance(painter: &mut Painter, rng: &mut KeyedRng) {
    let town = painter.street.sides.iter().filter(|side| side.frontage == Frontage::Row).count();
    let leaf = Rgb::drawn(rng, &[0x47_5a33, 0x55_6040, 0x62_5a3c, 0x3c_4f38], 0.2);
    if rng.chance(0.5) {
        let hill = Rgb::drawn(rng, &[0x58_6b52, 0x60_6a58, 0x70_7456], 0.2);
        let height = rng.between(20.0, 90.0);
        ridge(painter, rng, Label::Vegetation, hill, [END * 12.0, height], 0.6, false);
    }
    if rng.chance(0.25 + 0.3 * town as f64) {
        let wall = Rgb::drawn(rng, &[0x98_8f86, 0x7c_7a7c, 0xa8_9a88], 0.2);
        let height = rng.between(8.0, 22.0);
        ridge(painter, rng, Label::Building, wall, [END * 2.2, height], 14.0, true);
    }
    let height = rng.between(4.0, 10.0);
    ridge(painter, rng, Label::Vegetation, leaf, [END * 1.5, height], 4.0, false);
}

/// A jagged band on the horizon at [distance, height]; `blocks` makes it of rectangles.
fn ridge(
    painter: &mut Painter,
    rng: &mut KeyedRng,
    label: Label,
    albedo: Rgb,
    [distance, height]: [f32; 2],
    detail: f32,
    blocks: bool,
) {
    let offset = rng.between(0.0, 8.0);
    let Painter { canvas, camera, light, .. } = painter;
    let scale = camera.scale(distance);
    let bottom = camera.horizon() + camera.position[1] * scale;
    let falling = light.falls_on([0.0, 0.3, -0.95], 0.6);
    let base = light.reflect(Surface::matt(albedo), falling);
    let (_, width) = canvas.size();
    let profile: Vec<f32> = (0..width)
        .map(|x| {
            let across = camera.ray(x as f32, 0.0)[0];
            let place = if blocks { floor(across * detail * 2.0) as f32 * 0.37 } else { across * detail };
            bottom - height * scale * (0.35 + fractal(offset + place, 0.5))
        })
        .collect();
    for (y, row) in canvas.rows().enumerate() {
        if y as f32 > bottom + 1.0 {
            break;
        }
        for ((x, sample), &top) in row.iter_mut().enumerate().zip(&profile) {
            if (y as f32) >= top {
                let texture = 0.7 + 0.6 * speckle(x as f32 / scale * 0.12, y as f32 / scale * 0.12 + offset);
                *sample = Paint { rgb: light.veil(base * texture, distance * 0.7), label };
            }
        }
    }
}
