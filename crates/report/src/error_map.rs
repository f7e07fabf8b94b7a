//! Where a prediction is wrong.

use image::RgbImage;
use img2seg_data::VOID;

use crate::ReportError;
use crate::indexed::palette_png;

/// Wrong pixels.
pub(crate) const WRONG: [u8; 3] = [255, 59, 78];
/// The two stripes of pixels that are not scored.
pub(crate) const UNSCORED: [[u8; 3]; 2] = [[214, 217, 222], [176, 181, 189]];

/// Shades of grey that the photo is drawn with behind the errors.
const GREYS: u8 = 64;
/// The darkest and the lightest of them: dimmed, so that they compete neither with `WRONG` nor with `UNSCORED`.
const DIMMED: (u32, u32) = (46, 172);
/// Of one pair of stripes, along a row.
const STRIPES: u32 = 8;

/// A palette PNG of a photo: grey where the prediction is right, `WRONG` where it is not, striped where the truth is void.
/// Labels are class ids row by row, as many as the photo has pixels.
pub(crate) fn error_map(photo: &RgbImage, truth: &[u8], predicted: &[u8]) -> Result<Vec<u8>, ReportError> {
    let mut palette: Vec<[u8; 3]> = (0..GREYS)
        .map(|grey| [(DIMMED.0 + (DIMMED.1 - DIMMED.0) * u32::from(grey) / u32::from(GREYS - 1)) as u8; 3])
        .collect();
    palette.push(WRONG);
    palette.extend(UNSCORED);

    let (width, height) = photo.dimensions();
    if predicted.len() != truth.len() {
        return Err(ReportError::Labels { found: predicted.len(), width, height });
    }
    let pixels: Vec<u8> = photo
        .enumerate_pixels()
        .zip(truth.iter().zip(predicted))
        .map(|((x, y, color), (&truth, &predicted))| {
            if truth == VOID {
                GREYS + 1 + u8::from((x + y) % STRIPES >= STRIPES / 2)
            } else if truth == predicted {
                luma(color.0) / (256 / u16::from(GREYS)) as u8
            } else {
                GREYS
            }
        })
        .collect();
    palette_png(&pixels, width, height, &palette)
}

/// ITU-R BT.601, in integers.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue)) / 1000) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_right_wrong_and_unscored_pixels() {
        let photo = RgbImage::from_raw(4, 1, vec![0, 0, 0, 255, 255, 255, 10, 200, 30, 0, 0, 0]).unwrap();
        let file = error_map(&photo, &[1, 2, 3, VOID], &[1, 2, 0, 0]).unwrap();
        let map = image::load_from_memory(&file).unwrap().to_rgb8();
        assert_eq!(map.get_pixel(0, 0).0, [46; 3]);
        assert_eq!(map.get_pixel(1, 0).0, [172; 3]);
        assert_eq!(map.get_pixel(2, 0).0, WRONG);
        assert_eq!(map.get_pixel(3, 0).0, UNSCORED[0]);
    }

    #[test]
    fn labels_must_fill_the_photo() {
        let photo = RgbImage::new(2, 2);
        assert!(error_map(&photo, &[0; 3], &[0; 3]).is_err());
        assert!(error_map(&photo, &[0; 4], &[0; 3]).is_err());
    }
}
