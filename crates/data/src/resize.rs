//! Images to other sizes: photos with an antialiased filter, labels and their colours by nearest neighbour.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

/// A photo at another size: bilinear where it grows, the mean under a triangle of matching width where it shrinks; within one
/// level of Pillow's bilinear resize. An image without pixels gives a black one.
#[allow(clippy::missing_panics_doc, reason = "the buffers' sizes follow from the images'")]
pub fn photo(photo: &RgbImage, height: usize, width: usize) -> RgbImage {
    let (width, height) = (width as u32, height as u32);
    if photo.dimensions() == (width, height) {
        return photo.clone();
    }
    if photo.is_empty() || width == 0 || height == 0 {
        return RgbImage::new(width, height);
    }
    // Typed: the untyped call would compile the crate's every pixel type into ours, two minutes of it.
    let source = TypedImageRef::<U8x3>::from_buffer(photo.width(), photo.height(), photo.as_raw())
        .expect("an RgbImage has three bytes a pixel");
    let mut target = RgbImage::new(width, height);
    let mut view = TypedImage::<U8x3>::from_buffer(width, height, &mut target).expect("three bytes a pixel here too");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    Resizer::new().resize_typed(&source, &mut view, &options).expect("both images have pixels");
    target
}

/// A label map at another size: each pixel takes the colour at its centre. An image without pixels gives a black one.
pub fn label_map(label_map: &RgbImage, height: usize, width: usize) -> RgbImage {
    let mut target = RgbImage::new(width as u32, height as u32);
    if label_map.is_empty() || target.is_empty() {
        return target;
    }
    let row = 3 * label_map.width() as usize;
    let columns: Vec<usize> = sources(label_map.width() as usize, width).collect();
    let rows = sources(label_map.height() as usize, height);
    for (target, y) in target.chunks_exact_mut(3 * width).zip(rows) {
        let source = &label_map.as_raw()[y * row..][..row];
        for (target, &x) in target.chunks_exact_mut(3).zip(&columns) {
            target.copy_from_slice(&source[3 * x..3 * x + 3]);
        }
    }
    target
}

/// Labels, `from` = (height, width), at another size: each pixel takes the label at its centre. Void where there are no labels.
pub fn labels(labels: &[u8], from: (usize, usize), height: usize, width: usize) -> Vec<u8> {
    let columns: Vec<usize> = sources(from.1, width).collect();
    sources(from.0, height)
        .flat_map(|y| columns.iter().map(move |x| labels.get(y * from.1 + x).copied().unwrap_or(crate::VOID)))
        .collect()
}

/// For each of `to` pixels, which of `from` pixels lies under its centre: floor((i + 1/2) from / to).
fn sources(from: usize, to: usize) -> impl Iterator<Item = usize> {
    (0..to).map(move |i| (2 * i + 1) * from / (2 * to))
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn labels_come_from_under_the_centres() {
        assert_eq!(sources(4, 2).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(sources(2, 4).collect::<Vec<_>>(), [0, 0, 1, 1]);
        assert_eq!(sources(3, 2).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(sources(5, 5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(labels(&[1, 2, 3, 4, 5, 6], (2, 3), 4, 2), [1, 3, 1, 3, 4, 6, 4, 6]);
        assert_eq!(labels(&[], (0, 0), 1, 2), [255, 255]);
    }

    #[test]
    fn colors_move_as_labels_do() {
        let colors = RgbImage::from_fn(7, 5, |x, y| Rgb([x as u8, y as u8, (7 * y + x) as u8]));
        let ids: Vec<u8> = (0..35).collect();
        for (height, width) in [(5, 7), (3, 3), (11, 13), (1, 1), (5, 14)] {
            let moved: Vec<u8> = label_map(&colors, height, width).pixels().map(|pixel| pixel[2]).collect();
            assert_eq!(moved, labels(&ids, (5, 7), height, width));
        }
    }

    #[test]
    fn photos_are_averaged_when_they_shrink() {
        let stripes = RgbImage::from_fn(64, 64, |x, _| Rgb([if x % 2 == 0 { 0 } else { 200 }, 50, 255]));
        let small = photo(&stripes, 16, 16);
        // Taking single pixels, or two of them, would leave stripes or lose one colour.
        assert!(small.pixels().all(|pixel| pixel[1] == 50 && pixel[2] == 255));
        // The filter is cut off at the photo's edge.
        assert!(small.enumerate_pixels().all(|(x, _, pixel)| x == 0 || x == 15 || pixel[0].abs_diff(100) <= 2));
        assert_eq!(photo(&stripes, 64, 64), stripes);
        // Twice as wide: pixels at 1/4 and 3/4 between two centres.
        let two = RgbImage::from_fn(2, 1, |x, _| Rgb([100 * x as u8; 3]));
        let four: Vec<u8> = photo(&two, 1, 4).pixels().map(|pixel| pixel[0]).collect();
        assert_eq!(four, [0, 25, 75, 100]);
    }

    #[test]
    fn images_without_pixels_do_no_harm() {
        let empty = RgbImage::new(0, 3);
        assert_eq!(photo(&empty, 2, 2), RgbImage::new(2, 2));
        assert_eq!(label_map(&empty, 2, 2), RgbImage::new(2, 2));
        let full = RgbImage::new(3, 3);
        assert!(photo(&full, 0, 2).is_empty() && label_map(&full, 2, 0).is_empty());
    }
}
