//! Gaussian blur of a photo: a lens out of focus.

use image::RgbImage;

use super::gaussian::bell;

/// Blurs by a Gaussian with a standard deviation of `sigma` pixels, cut off at three of them; 0 leaves the photo as it is. Beyond the
/// edge the edge's pixels go on.
pub(super) fn blur(photo: &mut RgbImage, sigma: f64) {
    let kernel = kernel(sigma);
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    if kernel.len() == 1 || photo.is_empty() {
        return;
    }
    let row_len = 3 * width;
    let mut rows = vec![0.0; height * row_len];
    let mut padded = vec![0.0; row_len + 6 * (kernel.len() - 1)];
    for (row, levels) in rows.chunks_exact_mut(row_len).zip(photo.chunks_exact(row_len)) {
        pad(&mut padded, levels, kernel.len() - 1);
        let center = 3 * (kernel.len() - 1);
        weigh(row, kernel[0], &padded[center..]);
        for (distance, &weight) in kernel.iter().enumerate().skip(1) {
            add(row, weight, &padded[center - 3 * distance..], &padded[center + 3 * distance..]);
        }
    }
    let mut sums = vec![0.0; row_len];
    let row_of = |y: usize| &rows[y * row_len..][..row_len];
    for (y, levels) in photo.chunks_exact_mut(row_len).enumerate() {
        weigh(&mut sums, kernel[0], row_of(y));
        for (distance, &weight) in kernel.iter().enumerate().skip(1) {
            add(&mut sums, weight, row_of(y.saturating_sub(distance)), row_of((y + distance).min(height - 1)));
        }
        for (level, &sum) in levels.iter_mut().zip(&sums) {
            *level = (sum + 0.5) as u8;
        }
    }
}

/// The weights at distances 0, 1, 2 ...: the first once and the others twice add up to 1.
fn kernel(sigma: f64) -> Vec<f32> {
    let reach = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f64> =
        (0..=reach).map(|distance| if distance == 0 { 1.0 } else { bell(distance as f64 / sigma) }).collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

/// A row with `reach` copies of its first and its last pixel around it.
fn pad(padded: &mut [f32], levels: &[u8], reach: usize) {
    let pixels = levels.as_chunks::<3>().0;
    let (Some(first), Some(last)) = (pixels.first(), pixels.last()) else { return };
    let around = std::iter::repeat_n(first, reach).chain(pixels).chain(std::iter::repeat_n(last, reach));
    for (padded, pixel) in padded.as_chunks_mut::<3>().0.iter_mut().zip(around) {
        *padded = pixel.map(f32::from);
    }
}

fn weigh(sums: &mut [f32], weight: f32, values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = weight * value;
    }
}

fn add(sums: &mut [f32], weight: f32, before: &[f32], after: &[f32]) {
    for ((sum, before), after) in sums.iter_mut().zip(before).zip(after) {
        *sum += weight * (before + after);
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::keyed;

    /// The definition: every pixel within three standard deviations, weighed by the curve itself.
    fn plain(photo: &RgbImage, sigma: f64) -> Vec<f64> {
        let reach = (3.0 * sigma).ceil() as i64;
        let (width, height) = (i64::from(photo.width()), i64::from(photo.height()));
        let mut blurred = Vec::new();
        for (y, x, channel) in (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (y, x, c)))) {
            let (mut sum, mut total) = (0.0, 0.0);
            for (dy, dx) in (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dy, dx))) {
                let weight = f64::exp(-((dx * dx + dy * dy) as f64) / (2.0 * sigma * sigma));
                let (x, y) = ((x + dx).clamp(0, width - 1), (y + dy).clamp(0, height - 1));
                sum += weight * f64::from(photo.get_pixel(x as u32, y as u32)[channel]);
                total += weight;
            }
            blurred.push(sum / total);
        }
        blurred
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut draws = keyed::rng(0, "photo", &[]);
        for (width, height, sigma) in [(17, 11, 0.3), (17, 11, 1.0), (9, 20, 2.7), (3, 2, 4.0), (1, 1, 1.5)] {
            let mut photo = RgbImage::from_fn(width, height, |_, _| Rgb([0; 3].map(|_: i32| draws.bits() as u8)));
            let expected = plain(&photo, sigma);
            blur(&mut photo, sigma);
            for (&level, expected) in photo.iter().zip(expected) {
                assert!(
                    (f64::from(level) - expected).abs() <= 0.501,
                    "{width}x{height}, {sigma}: {level} for {expected}"
                );
            }
        }
    }

    #[test]
    fn no_blur_and_one_colour_stay() {
        let photo = RgbImage::from_fn(9, 7, |x, y| Rgb([(20 * x) as u8, (30 * y) as u8, 255]));
        for sigma in [0.0, 1e-300, 0.01] {
            let mut same = photo.clone();
            blur(&mut same, sigma);
            assert_eq!(same, photo, "{sigma}");
        }
        let mut plain = RgbImage::from_pixel(20, 10, Rgb([255, 128, 1]));
        blur(&mut plain, 10.0);
        assert!(plain.pixels().all(|pixel| pixel.0 == [255, 128, 1]));
        blur(&mut RgbImage::new(0, 0), 1.0);
    }
}
