#![no_main]
//! A pair of photo and label map side by side, and a photo with its mask: as a data set reads them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use img2seg_data::{ClassTable, DataConfig, Dataset, Layout, Split};
use img2seg_training::RunConfig;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static ROOT: LazyLock<(TempDir, [Dataset; 2])> = LazyLock::new(|| {
    let root = img2seg_fuzz::folder();
    for folder in ["train", "val/images", "val/masks"] {
        std::fs::create_dir_all(root.path().join(folder)).expect("a folder");
    }
    for file in ["train/a.png", "val/images/a.png", "val/masks/a.png"] {
        std::fs::write(root.path().join(file), "").expect("a file");
    }
    let recipe = RunConfig::from_toml(img2seg_fuzz::PIXELWISE, "pixelwise", &[]).expect("a recipe");
    let table = Arc::new(ClassTable::load("cityscapes").expect("a class table"));
    let open = |layout, split| {
        let config = DataConfig { layout, ..recipe.data.clone() };
        Dataset::open(root.path(), split, &config, Arc::clone(&table)).expect("a data set")
    };
    let datasets = [open(Layout::Pairs, Split::Train), open(Layout::Folders, Split::Val)];
    (root, datasets)
});

// The first byte says what the others are.
fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let (root, [pairs, folders]) = &*ROOT;
    let write = |file: &str| std::fs::write(Path::new(root.path()).join(file), bytes).expect("a written file");
    let sample = if kind % 2 == 0 {
        write("train/a.png");
        pairs.sample(0)
    } else {
        write("val/images/a.png");
        write("val/masks/a.png");
        folders.sample(0)
    };
    match sample {
        Ok(sample) => {
            let (width, height) = sample.photo.dimensions();
            assert_eq!(sample.label_map.dimensions(), (width, height));
            assert_eq!(sample.labels.len(), (width * height) as usize);
        }
        Err(error) => assert!(error.to_string().contains("a.png: "), "{error}"),
    }
});
