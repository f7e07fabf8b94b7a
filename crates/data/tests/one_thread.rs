//! Batches taken by a thread that is rayon's whole pool, as the program's main thread is with `--threads 1`: alone in its process, for there is one
//! such pool.

use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use img2seg_data::{
    AugmentConfig, ClassTable, DataConfig, Dataset, Direction, Loader, LoaderConfig, Split, write_pair,
};

const CONFIG: &str = r#"
    layout = "auto"
    direction = "photo-left"
    classes = "camvid"
    height = 6
    width = 10
    batch_size = 2
    cache_mib = 0
    [augment]
    scale = [1.0, 1.0]
    flip = 0.5
    brightness = 0.0
    contrast = 0.0
    saturation = 0.0
    hue = 0.0
    blur = 0.0
    noise = 0.0
    erase = 0.0
    cut_mix = 0.0
"#;

const TABLE: &str = "name = 'street'\nvoid = []\n[[class]]\nname = 'road'\ncolor = [128, 64, 128]\n";

fn loader(root: &Path) -> Loader {
    std::fs::create_dir(root.join("train")).unwrap();
    for i in 0..9u8 {
        let photo = RgbImage::from_fn(10, 6, |x, y| Rgb([x as u8, y as u8, i]));
        let label_map = RgbImage::from_pixel(10, 6, Rgb([128, 64, 128]));
        write_pair(&root.join(format!("train/{i}.png")), &photo, &label_map, Direction::PhotoLeft).unwrap();
    }
    let config: DataConfig = toml::from_str(CONFIG).unwrap();
    let table = Arc::new(ClassTable::from_toml(TABLE, "street").unwrap());
    let dataset = Dataset::open(root, Split::Train, &config, table).unwrap();
    let config = LoaderConfig { batch_size: 2, height: 6, width: 10, cache_mib: 0 };
    Loader::new(dataset, config, AugmentConfig::NONE, 7).unwrap()
}

#[test]
fn who_is_the_whole_pool_makes_the_batches_it_waits_for() {
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().unwrap();
    let root = tempfile::tempdir().unwrap();
    let loader = loader(root.path());
    let names: Vec<String> = loader.eval_batches().flat_map(|batch| batch.unwrap().names).collect();
    assert_eq!(names.join(""), "012345678");
    assert_eq!(loader.train_batches(0, 0).map(Result::unwrap).count(), 4);
    // Left while batches are being made, at once or later.
    for taken in 0..4 {
        let mut batches = loader.train_batches(0, 0);
        assert_eq!(batches.by_ref().take(taken).map(Result::unwrap).count(), taken);
        drop(batches);
    }
    std::fs::write(root.path().join("train/0.png"), "no image").unwrap();
    let error = loader.eval_batches().next().unwrap().unwrap_err().to_string();
    assert!(error.ends_with("0.png: not a PNG or JPEG image"), "{error}");
}
