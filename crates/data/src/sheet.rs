use image::RgbImage;

/// Lays images of one size out in a grid of `columns`, row by row, on white, with `gutter` pixels around each.
///
/// `None` where there is no image or no column, or where sizes differ.
pub fn sheet(images: &[RgbImage], columns: usize, gutter: usize) -> Option<RgbImage> {
    let (width, height) = images.first()?.dimensions();
    if columns == 0 || images.iter().any(|image| image.dimensions() != (width, height)) {
        return None;
    }
    let gutter = u32::try_from(gutter).ok()?;
    let columns = columns.min(images.len()) as u32;
    let rows = (images.len() as u32).div_ceil(columns);
    let side = |count: u32, size: u32| count.checked_mul(size.checked_add(gutter)?)?.checked_add(gutter);
    let mut sheet = RgbImage::from_pixel(side(columns, width)?, side(rows, height)?, image::Rgb([255; 3]));
    for (i, image) in (0..).zip(images) {
        let x = gutter + i % columns * (width + gutter);
        let y = gutter + i / columns * (height + gutter);
        image::imageops::replace(&mut sheet, image, x.into(), y.into());
    }
    Some(sheet)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn images_stand_in_rows() {
        let images: Vec<RgbImage> = (0..5).map(|i| RgbImage::from_pixel(3, 2, Rgb([i; 3]))).collect();
        let sheet = sheet(&images, 2, 1).unwrap();
        assert_eq!(sheet.dimensions(), (2 * 4 + 1, 3 * 3 + 1));
        let level = |x, y| sheet.get_pixel(x, y)[0];
        assert_eq!([level(0, 0), level(1, 1), level(3, 2), level(4, 1), level(5, 1)], [255, 0, 0, 255, 1]);
        assert_eq!([level(1, 3), level(1, 4), level(5, 5), level(1, 7), level(5, 7)], [255, 2, 3, 4, 255]);
    }

    #[test]
    fn what_makes_no_grid_is_refused() {
        let images = [RgbImage::new(2, 2), RgbImage::new(2, 3)];
        assert!(sheet(&images, 2, 0).is_none() && sheet(&[], 2, 0).is_none() && sheet(&images[..1], 0, 0).is_none());
        assert_eq!(sheet(&images[..1], 9, 0).unwrap().dimensions(), (2, 2));
    }
}
