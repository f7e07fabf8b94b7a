use std::fs;
use std::path::Path;

use tempfile::tempdir;

use super::*;
use crate::Layout;
use crate::dataset::fixture::{open, write_pairs};

const AUGMENT: AugmentConfig = AugmentConfig {
    scale: [0.8, 1.3],
    crop: None,
    flip: 0.5,
    brightness: 0.2,
    contrast: 0.2,
    saturation: 0.2,
    hue: 0.05,
    blur: 1.0,
    noise: 10.0,
    erase: 0.5,
    cut_mix: 0.5,
};

fn loader(root: &Path, batch_size: usize, cache_mib: usize) -> Loader {
    let config = LoaderConfig { batch_size, height: 8, width: 12, cache_mib };
    Loader::new(open(root, Layout::Pairs).unwrap(), config, AUGMENT, 7).unwrap()
}

type Plain = (Vec<String>, Vec<f32>, Vec<f32>, Vec<u32>);

fn plain(batch: &Batch) -> Plain {
    let floats = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    let labels = batch.labels.flatten_all().unwrap().to_vec1().unwrap();
    (batch.names.clone(), floats(&batch.photos), floats(&batch.label_maps), labels)
}

fn epoch(batches: Batches) -> Vec<Plain> {
    batches.map(|batch| plain(&batch.unwrap())).collect()
}

fn names(batches: Batches) -> Vec<String> {
    batches.flat_map(|batch| batch.unwrap().names).collect()
}

#[test]
fn the_order_of_an_epoch_is_frozen() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 10);
    let loader = loader(root.path(), 1, 0);
    assert_eq!(names(loader.train_batches(0, 0)).join(" "), "00 02 01 08 05 06 03 04 07 09");
    assert_eq!(names(loader.train_batches(1, 0)).join(" "), "06 05 08 00 01 04 07 09 02 03");
    assert_eq!(names(loader.eval_batches()).join(" "), "00 01 02 03 04 05 06 07 08 09");
}

#[test]
fn batches_do_not_depend_on_threads_or_cache() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 7);
    let expected = epoch(loader(root.path(), 3, 0).train_batches(2, 0));
    assert_eq!(expected.len(), 2);
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for cache_mib in [0, 1] {
            let loader = loader(root.path(), 3, cache_mib);
            // Twice, so that the second time comes from the cache.
            for _ in 0..2 {
                let order = loader.0.order(2);
                let made = order.chunks(3).take(2).map(|batch| {
                    let made = pool.install(|| make_batch(batch, &|i| loader.0.train_sample(2, i)));
                    plain(&made.unwrap())
                });
                assert_eq!(made.collect::<Vec<_>>(), expected, "{threads} threads, cache of {cache_mib} MiB");
                assert_eq!(epoch(loader.train_batches(2, 0)), expected);
            }
        }
    }
}

/// As a slow disk would: each sample takes a time that nobody knows.
#[test]
fn batches_do_not_depend_on_how_long_samples_take() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 9);
    let loader = loader(root.path(), 3, 1);
    let expected = epoch(loader.train_batches(1, 0));
    for seed in 0..4 {
        let delays = std::sync::Mutex::new(keyed::rng(seed, "delays", &[]));
        let shared = Arc::clone(&loader.0);
        let sample = move |i| {
            let millis = delays.lock().unwrap().below(12) as u64;
            thread::sleep(std::time::Duration::from_millis(millis));
            shared.train_sample(1, i)
        };
        let order = loader.0.order(1);
        let batches = order.chunks(3).map(<[usize]>::to_vec).collect();
        assert_eq!(epoch(Batches::start(batches, sample)), expected);
    }
}

#[test]
fn epochs_differ_and_can_be_entered_anywhere() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 6);
    let loader = loader(root.path(), 2, 1);
    let whole = epoch(loader.train_batches(4, 0));
    assert_eq!(whole[1..], epoch(loader.train_batches(4, 1)));
    assert!(epoch(loader.train_batches(4, 3)).is_empty() && epoch(loader.train_batches(4, 99)).is_empty());
    let other = epoch(loader.train_batches(5, 0));
    assert_ne!(whole, other);
    // The same sample is changed otherwise in another epoch.
    let photo_of = |batches: &[Plain]| {
        let (batch, at) =
            batches.iter().find_map(|batch| Some((batch, batch.0.iter().position(|name| name == "03")?))).unwrap();
        batch.1[at * 3 * 8 * 12..][..3 * 8 * 12].to_vec()
    };
    assert_ne!(photo_of(&whole), photo_of(&other));
}

/// Without other changes, each sample is its own file with a rectangle of one other file.
#[test]
fn cut_mix_takes_rectangles_of_other_samples() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 6);
    let loader = |cut_mix| {
        let config = LoaderConfig { batch_size: 6, height: 6, width: 10, cache_mib: 0 };
        let augment = AugmentConfig { cut_mix, ..AugmentConfig::NONE };
        Loader::new(open(root.path(), Layout::Pairs).unwrap(), config, augment, 3).unwrap()
    };
    let (mixed, own) = (loader(1.0), loader(0.0));
    let mut partners = std::collections::BTreeSet::new();
    for epoch in 0..40 {
        for i in 0..6 {
            // The fixture's photos have their file's number as blue, and one label map.
            let sample = mixed.0.train_sample(epoch, i).unwrap();
            let plain = own.0.train_sample(epoch, i).unwrap();
            assert_eq!((&sample.label_map, &sample.labels), (&plain.label_map, &plain.labels));
            assert!(sample.photo.pixels().zip(plain.photo.pixels()).all(|(a, b)| a.0[..2] == b.0[..2]));
            let other: Vec<u8> = sample.photo.pixels().map(|pixel| pixel[2]).filter(|&blue| blue != i as u8).collect();
            assert!(other.windows(2).all(|pair| pair[0] == pair[1]));
            partners.extend(other.first().map(|&other| (i, other)));
        }
    }
    assert_eq!(partners.len(), 6 * 5);
    // Whose rectangles the first epoch has is frozen, as its order is.
    let size = |i| mixed.0.train_sample(0, i).unwrap().photo.pixels().filter(|pixel| pixel[2] != i as u8).count();
    assert_eq!((0..6).map(size).collect::<Vec<_>>(), [45, 45, 12, 24, 54, 45]);
    assert_eq!(epoch(own.train_batches(1, 0)).len(), 1);
}

#[test]
fn training_drops_what_is_left_over_and_evaluation_keeps_it() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 5);
    let sizes = |batches: Batches| batches.map(|batch| batch.unwrap().names.len()).collect::<Vec<_>>();
    for (batch_size, train, eval) in [(2, vec![2, 2], vec![2, 2, 1]), (5, vec![5], vec![5]), (8, vec![5], vec![5])] {
        let loader = loader(root.path(), batch_size, 0);
        assert_eq!(loader.batches_per_epoch(), train.len());
        assert_eq!((sizes(loader.train_batches(0, 0)), sizes(loader.eval_batches())), (train, eval));
    }
}

#[test]
fn an_error_stands_in_its_place_and_names_the_file() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 6);
    fs::write(root.path().join("train/02.png"), "no image").unwrap();
    fs::write(root.path().join("train/03.png"), "no image").unwrap();
    for _ in 0..20 {
        let mut batches = loader(root.path(), 2, 0).eval_batches();
        assert!(batches.next().unwrap().is_ok());
        let error = batches.next().unwrap().unwrap_err().to_string();
        assert_eq!(error, format!("{}: not a PNG or JPEG image", root.path().join("train/02.png").display()));
        assert!(batches.next().is_none() && batches.next().is_none());
    }
}

#[test]
fn dropping_the_batches_ends_their_thread() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 30);
    let loader = loader(root.path(), 1, 0);
    for taken in 0..4 {
        let mut batches = loader.train_batches(0, 0);
        for _ in 0..taken {
            batches.next().unwrap().unwrap();
        }
        drop(batches);
        // The thread held the other handle.
        assert_eq!(Arc::strong_count(&loader.0), 1);
    }
}

#[test]
#[should_panic(expected = "a broken sample")]
fn a_panic_is_not_the_end_of_an_epoch() {
    Batches::start(vec![vec![0]], |_| panic!("a broken sample")).count();
}

#[test]
fn settings_out_of_range_are_named() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 1);
    let data = open(root.path(), Layout::Pairs).unwrap();
    let refused = |config, augment| Loader::new(data.clone(), config, augment, 0).unwrap_err().to_string();
    let config = LoaderConfig { batch_size: 1, height: 8, width: 8, cache_mib: 0 };
    assert!(
        refused(LoaderConfig { batch_size: 0, ..config.clone() }, AUGMENT)
            .starts_with("data.batch_size: 0 is not in 1..=")
    );
    let error = refused(LoaderConfig { width: 20_000, ..config.clone() }, AUGMENT);
    assert_eq!(error, "data.width: 20000 is not in 1..=16384");
    assert!(refused(config, AugmentConfig { flip: -1.0, ..AUGMENT }).starts_with("data.augment.flip: -1"));
}
