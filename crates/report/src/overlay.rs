use image::{Rgb, RgbImage};
use img2seg_data::{ClassTable, VOID};

/// Borders between classes are drawn in this colour.
const BORDER: [u8; 3] = [255, 255, 255];

/// A photo tinted half and half by the colours of its labels, with the borders between classes drawn.
///
/// `labels` are class ids row by row. Void, and pixels beyond the last label, show the photo alone.
pub fn overlay(photo: &RgbImage, labels: &[u8], table: &ClassTable) -> RgbImage {
    let (width, height) = photo.dimensions();
    let label = |x: u32, y: u32| labels.get(y as usize * width as usize + x as usize).copied().unwrap_or(VOID);
    RgbImage::from_fn(width, height, |x, y| {
        let here = label(x, y);
        let right = if x + 1 < width { label(x + 1, y) } else { here };
        let below = if y + 1 < height { label(x, y + 1) } else { here };
        let photo = photo.get_pixel(x, y).0;
        if here != right || here != below {
            Rgb(mix(photo, BORDER))
        } else if here == VOID {
            Rgb(photo)
        } else {
            Rgb(mix(photo, table.color_of(here)))
        }
    })
}

fn mix(a: [u8; 3], b: [u8; 3]) -> [u8; 3] {
    [0, 1, 2].map(|channel| a[channel].midpoint(b[channel]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tints_classes_draws_borders_and_spares_void() {
        let table = ClassTable::load("camvid").unwrap();
        let photo = RgbImage::from_pixel(4, 2, Rgb([100, 40, 0]));
        let labels = [0, 0, 3, 3, VOID, VOID, VOID, VOID];
        let image = overlay(&photo, &labels, &table);
        assert_eq!(image.dimensions(), (4, 2));
        assert_eq!(image.get_pixel(1, 0).0, [177, 147, 127], "the last sky pixel before the road");
        assert_eq!(image.get_pixel(2, 1).0, [100, 40, 0], "void");

        let sky = table.classes()[0].color;
        let plain = overlay(&photo, &[0; 8], &table);
        assert_eq!(plain.get_pixel(0, 0).0, mix([100, 40, 0], sky));
        let short = overlay(&photo, &[], &table);
        assert_eq!(short, photo);
    }
}
