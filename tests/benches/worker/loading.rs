//! The loader alone: an epoch of pairs, decoded anew and changed at random.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use img2seg_data::{
    AugmentConfig, ClassTable, DataConfig, Dataset, Direction, Layout, Loader, LoaderConfig, Split, streets, write_pair,
};

use crate::Case;

/// What the other side does too (`tests/pytorch/bench.py`): 286 pixels cropped to 256, mirrored half of the time, colours moved.
const AUGMENT: AugmentConfig = AugmentConfig {
    scale: [1.117_187_5, 1.117_187_5],
    flip: 0.5,
    brightness: 0.2,
    contrast: 0.2,
    saturation: 0.2,
    hue: 0.05,
    ..AugmentConfig::NONE
};

const QUALITY: u8 = 90;

/// Draws `images` pairs of twice `size` x `size` to `folder/train` as `png` or `jpg`; a step is an epoch of them in batches.
pub(crate) fn build(format: &str, folder: &Path, [images, size, batch_size]: [usize; 3]) -> Result<Case> {
    let train = folder.join("train");
    fs::create_dir_all(&train).with_context(|| train.display().to_string())?;
    for index in 0..images {
        let scene = streets::scene(0, index as u64, size, size);
        let path = train.join(format!("{index:04}.{format}"));
        match format {
            "png" => write_pair(&path, &scene.photo, &scene.label_map, Direction::PhotoLeft)?,
            "jpg" => write_jpeg(&path, &scene.photo, &scene.label_map)?,
            _ => bail!("{format}: not one of png, jpg"),
        }
    }
    let config = DataConfig {
        layout: Layout::Pairs,
        direction: Direction::PhotoLeft,
        classes: "cityscapes".to_owned(),
        height: size,
        width: size,
        batch_size,
        cache_mib: 0, // every epoch decodes
        streets: None,
        augment: AUGMENT,
    };
    let table = Arc::new(ClassTable::load(&config.classes)?);
    let dataset = Dataset::open(folder, Split::Train, &config, table)?;
    let size = dataset.len();
    let loader = LoaderConfig { batch_size, height: config.height, width: config.width, cache_mib: config.cache_mib };
    let loader = Loader::new(dataset, loader, config.augment, 0)?;
    let mut epoch = 0;
    let step = move || {
        epoch += 1;
        loader.train_batches(epoch, 0).try_for_each(|batch| batch.map(drop))?;
        Ok(())
    };
    Ok(Case { size, step: Box::new(step) })
}

fn write_jpeg(path: &Path, photo: &RgbImage, label_map: &RgbImage) -> Result<()> {
    let (width, height) = photo.dimensions();
    let mut pair = RgbImage::new(2 * width, height);
    image::imageops::replace(&mut pair, photo, 0, 0);
    image::imageops::replace(&mut pair, label_map, i64::from(width), 0);
    let mut bytes = Vec::new();
    pair.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    fs::write(path, bytes).with_context(|| path.display().to_string())
}
