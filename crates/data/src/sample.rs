use candle_core::{Device, Tensor};
use image::RgbImage;
use rayon::prelude::*;

use crate::DataError;

/// The label of pixels that are neither learned nor scored.
pub const VOID: u8 = 255;

/// A photo and what is in it; all three of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The file's name without its extension, unique within its split.
    pub name: String,
    /// What the camera saw.
    pub photo: RgbImage,
    /// The classes as colours: as stored for colour label maps, in the class table's colours for index masks.
    pub label_map: RgbImage,
    /// The classes as class ids, row by row; [`VOID`] where there is none.
    pub labels: Vec<u8>,
}

/// Samples of one size as tensors on the CPU.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The samples' names, in the order of the tensors' first dimension.
    pub names: Vec<String>,
    /// (n, 3, h, w), f32 in [-1, 1].
    pub photos: Tensor,
    /// (n, 3, h, w), f32 in [-1, 1].
    pub label_maps: Tensor,
    /// (n, h, w), u32 class ids, 255 = void.
    pub labels: Tensor,
}

impl Batch {
    /// Stacks samples, all of the size of the first; no sample or different sizes are an error.
    pub fn stack(samples: &[Sample]) -> Result<Self, DataError> {
        let (width, height) = samples.first().map_or((0, 0), |sample| sample.photo.dimensions());
        let (n, h, w) = (samples.len(), height as usize, width as usize);
        if n * h * w == 0 {
            return Err(candle_core::Error::Msg("no samples, or samples without pixels".into()).into());
        }
        for sample in samples {
            let sizes = [sample.photo.dimensions(), sample.label_map.dimensions()];
            if sizes != [(width, height); 2] || sample.labels.len() != h * w {
                let text = format!("{}: {sizes:?} beside samples of {width}x{height}", sample.name);
                return Err(candle_core::Error::Msg(text).into());
            }
        }
        let (mut photos, mut label_maps) = (vec![0.0; n * 3 * h * w], vec![0.0; n * 3 * h * w]);
        let mut labels = vec![0; n * h * w];
        let images = photos.par_chunks_mut(3 * h * w).zip(label_maps.par_chunks_mut(3 * h * w));
        let parts = images.zip(labels.par_chunks_mut(h * w));
        parts.zip(samples).for_each(|(((photo, label_map), labels), sample)| {
            write_planes(photo, &sample.photo);
            write_planes(label_map, &sample.label_map);
            for (label, &stored) in labels.iter_mut().zip(&sample.labels) {
                *label = u32::from(stored);
            }
        });
        Ok(Self {
            names: samples.iter().map(|sample| sample.name.clone()).collect(),
            photos: Tensor::from_vec(photos, (n, 3, h, w), &Device::Cpu)?,
            label_maps: Tensor::from_vec(label_maps, (n, 3, h, w), &Device::Cpu)?,
            labels: Tensor::from_vec(labels, (n, h, w), &Device::Cpu)?,
        })
    }

    /// The same batch on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self, DataError> {
        Ok(Self {
            names: self.names.clone(),
            photos: self.photos.to_device(device)?,
            label_maps: self.label_maps.to_device(device)?,
            labels: self.labels.to_device(device)?,
        })
    }
}

/// (1, 3, h, w) in [-1, 1]: how networks take one photo. An image without pixels is an error.
pub fn photo_tensor(photo: &RgbImage) -> Result<Tensor, DataError> {
    let mut planes = vec![0.0; photo.as_raw().len()];
    write_planes(&mut planes, photo);
    Ok(Tensor::from_vec(planes, (1, 3, photo.height() as usize, photo.width() as usize), &Device::Cpu)?)
}

/// The red, the green and the blue plane of an image, v / 127.5 - 1.
fn write_planes(planes: &mut [f32], image: &RgbImage) {
    let levels: [f32; 256] = std::array::from_fn(|level| level as f32 / 127.5 - 1.0);
    let (red, others) = planes.split_at_mut(planes.len() / 3);
    let (green, blue) = others.split_at_mut(others.len() / 2);
    let pixels = image.as_raw().as_chunks::<3>().0;
    for (((red, green), blue), &[r, g, b]) in red.iter_mut().zip(green).zip(blue).zip(pixels) {
        *red = levels[usize::from(r)];
        *green = levels[usize::from(g)];
        *blue = levels[usize::from(b)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, width: u32, height: u32) -> Sample {
        Sample {
            name: name.into(),
            photo: RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 255])),
            label_map: RgbImage::new(width, height),
            labels: vec![3; (width * height) as usize],
        }
    }

    #[test]
    fn samples_become_planes() {
        let batch = Batch::stack(&[sample("a", 3, 2), sample("b", 3, 2)]).unwrap();
        assert_eq!(batch.names, ["a", "b"]);
        assert_eq!(batch.photos.dims(), [2, 3, 2, 3]);
        assert_eq!(batch.labels.to_vec3::<u32>().unwrap(), vec![vec![vec![3; 3]; 2]; 2]);
        let red = batch.photos.get(1).unwrap().get(0).unwrap().to_vec2::<f32>().unwrap();
        let (one, two) = (1.0 / 127.5 - 1.0, 2.0 / 127.5 - 1.0);
        assert_eq!(red, [[-1.0, one, two], [-1.0, one, two]]);
        let blue = batch.photos.get(1).unwrap().get(2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(blue, [[1.0; 3]; 2]);
    }

    #[test]
    fn different_sizes_are_refused() {
        assert!(Batch::stack(&[]).is_err());
        let error = Batch::stack(&[sample("a", 3, 2), sample("b", 2, 3)]).unwrap_err();
        assert!(error.to_string().contains("b: "), "{error}");
    }
}
