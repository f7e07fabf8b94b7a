mod fixtures;
mod server;

use std::cell::RefCell;
use std::fs;
use std::sync::Arc;

use hf_hub::HFClientBuilder;
use image::ImageFormat::{Jpeg, Png};
use img2seg_data::{AugmentConfig, ClassTable, DataConfig, Dataset, Direction, Layout, Split};

use self::fixtures::{COMMIT, Cells, Place, files_below, mask, parquet, photo, streets};
use self::server::Server;
use crate::download::Hub;
use crate::fetch::fetch_from;
use crate::{HubError, Progress, Summary};

fn fetch(hub: Hub, place: &Place) -> Result<Summary, HubError> {
    fetch_from(hub, &streets(), &place.root(), &|_| {})
}

/// A table of `rows` photos of 6x4 and their index masks, the photos' tone counting from `first`.
fn photos_and_masks(rows: u8, first: u8) -> Vec<u8> {
    let photos = (0..rows).map(|row| photo(6, 4, first + row, if row % 2 == 0 { Png } else { Jpeg })).collect();
    parquet(&[("label", (0..rows).map(|row| mask(6, 4, row)).collect()), ("image", photos)], 5)
}

#[test]
fn two_columns_become_folders_with_the_very_bytes() {
    let place = Place::new();
    place.cached(
        COMMIT,
        &[
            ("data/train-00000-of-00002.parquet", photos_and_masks(40, 0)),
            ("data/train-00001-of-00002.parquet", photos_and_masks(2, 40)),
            ("data/validation-00000-of-00001.parquet", photos_and_masks(3, 100)),
            ("data/test-00000-of-00001.parquet", photos_and_masks(1, 200)),
            ("data/extra-00000-of-00001.parquet", b"never opened".to_vec()),
        ],
    );
    let seen = RefCell::new(Vec::new());
    let summary =
        fetch_from(place.offline(), &streets(), &place.root(), &|progress| seen.borrow_mut().push(progress)).unwrap();

    assert_eq!((summary.train, summary.val, summary.test, summary.val_from_train), (42, 3, 1, 0));
    assert_eq!((summary.columns.join(" "), summary.layout()), ("image label".to_owned(), Layout::Folders));
    assert_eq!((summary.commit.as_str(), summary.configuration.as_str()), (COMMIT, "data"));
    assert_eq!(summary.files.len(), 4);
    assert_eq!(summary.left_out, ["data/extra-00000-of-00001.parquet"]);
    assert_eq!(seen.borrow().last(), Some(&Progress::Writing { done: 46, total: 46 }));

    let root = place.root();
    assert_eq!(files_below(&root).len(), 2 * 46 + 1);
    for (file, bytes) in [
        ("train/images/00000.png", photo(6, 4, 0, Png)),
        ("train/images/00039.jpg", photo(6, 4, 39, Jpeg)),
        ("train/images/00041.jpg", photo(6, 4, 41, Jpeg)),
        ("train/masks/00039.png", mask(6, 4, 39)),
        ("train/masks/00041.png", mask(6, 4, 1)),
        ("val/images/00002.png", photo(6, 4, 102, Png)),
        ("test/masks/00000.png", mask(6, 4, 0)),
    ] {
        assert_eq!(fs::read(root.join(file)).ok(), bytes, "{file}");
    }
}

#[test]
fn one_column_becomes_pairs_and_a_tenth_of_train_val() {
    let place = Place::new();
    let pairs: Cells = (0..11).map(|row| photo(8, 4, row, Png)).collect();
    place.cached(COMMIT, &[("train.parquet", parquet(&[("pair", pairs)], 100))]);

    let summary = fetch(place.offline(), &place).unwrap();
    assert_eq!((summary.train, summary.val, summary.test, summary.val_from_train), (9, 2, 0, 2));
    assert_eq!((summary.columns.join(" "), summary.layout()), ("pair".to_owned(), Layout::Pairs));

    let files = files_below(&place.root());
    assert_eq!(files.len(), 12);
    assert_eq!(
        (files[0].as_str(), files[9].as_str(), files[10].as_str()),
        ("hub.toml", "train/00008.png", "val/00000.png")
    );
    assert_eq!(fs::read(place.root().join("val/00001.png")).ok(), photo(8, 4, 10, Png));
}

#[test]
fn a_finished_folder_is_reused() {
    let place = Place::new();
    place.cached(COMMIT, &[("train.parquet", photos_and_masks(4, 0))]);
    let first = fetch(place.offline(), &place).unwrap();
    assert!(!first.reused);

    fs::remove_file(place.root().join("train/images/00000.png")).unwrap();
    let again = fetch(place.offline(), &place).unwrap();
    assert_eq!(again, Summary { reused: true, ..first });
    assert!(!place.root().join("train/images/00000.png").exists(), "nothing was written");

    // The folder does without the cache, but does not pass for what the cache has now.
    fs::rename(place.cache(), place.root().with_file_name("cache")).unwrap();
    assert!(fetch(place.offline(), &place).unwrap().reused);
    place.cached("fedcba", &[("train.parquet", photos_and_masks(5, 0))]);
    let error = fetch(place.offline(), &place).unwrap_err().to_string();
    let root = place.root();
    assert_eq!(
        error,
        format!(
            "{}: holds owner/streets at {COMMIT}, the Hub cache has fedcba: remove it or choose another folder",
            root.display()
        )
    );
}

#[test]
fn a_folder_with_something_else_is_left_alone() {
    let place = Place::new();
    place.cached(COMMIT, &[("train.parquet", photos_and_masks(4, 0))]);
    let root = place.root();
    fs::create_dir_all(&root).unwrap();
    assert!(fetch(place.offline(), &place).is_ok(), "an empty folder is nothing");

    fs::write(root.join("hub.toml"), "name = 3").unwrap();
    assert!(matches!(fetch(place.offline(), &place), Err(HubError::Occupied { .. })));
    fs::remove_file(root.join("hub.toml")).unwrap();
    let error = fetch(place.offline(), &place).unwrap_err().to_string();
    assert_eq!(error, format!("{}: holds something else: remove it or choose another folder", root.display()));
    assert!(root.join("train/images/00000.png").exists());

    let other = "owner/other".parse().unwrap();
    fs::remove_dir_all(&root).unwrap();
    fetch(place.offline(), &place).unwrap();
    let error = fetch_from(place.offline(), &other, &root, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("holds owner/streets"), "{error}");
}

#[test]
fn a_row_that_is_no_pair_is_named() {
    let good = || photo(6, 4, 0, Png);
    let truncated = good().map(|bytes| bytes[..bytes.len() / 2].to_vec());
    let gif = Some(b"GIF89a\x06\x00\x04\x00".to_vec());
    for (image, label, reason) in [
        (None, mask(6, 4, 0), "column `image`: no image"),
        (good(), None, "column `label`: no image"),
        (Some(Vec::new()), mask(6, 4, 0), "column `image`: neither PNG nor JPEG"),
        (Some(b"photo".to_vec()), mask(6, 4, 0), "column `image`: neither PNG nor JPEG"),
        (gif, mask(6, 4, 0), "column `image`: a Gif image, neither PNG nor JPEG"),
        (truncated, mask(6, 4, 0), "column `image`: "),
        (good(), mask(4, 6, 0), "the photo has 6x4, its label map 4x6"),
    ] {
        let place = Place::new();
        let (mut images, mut labels): (Cells, Cells) = (vec![good(); 40], vec![mask(6, 4, 0); 40]);
        (images[37], labels[37]) = (image, label);
        (images[39], labels[39]) = (None, None);
        let table = parquet(&[("image", images), ("label", labels)], 9);
        let file = place.cached(COMMIT, &[("data/test-00000-of-00001.parquet", table)]);
        let error = fetch(place.offline(), &place).unwrap_err().to_string();
        let start = format!("{}: row 37: {reason}", file.join("data/test-00000-of-00001.parquet").display());
        assert!(error.starts_with(&start), "{error}\nnot {start}");
        assert!(files_below(place.root().parent().unwrap()).is_empty(), "{reason}: something was left");
    }
    let place = Place::new();
    place.cached(COMMIT, &[("test.parquet", parquet(&[("pair", vec![photo(7, 4, 0, Png)])], 1))]);
    let error = fetch(place.offline(), &place).unwrap_err().to_string();
    assert!(error.ends_with("test.parquet: row 0: not a photo and a label map side by side (7x4)"), "{error}");
}

#[test]
fn tables_that_do_not_hold_pairs_are_named() {
    let pairs = parquet(&[("pair", vec![photo(8, 4, 0, Png)])], 1);
    for (files, text) in [
        (vec![("train.parquet", b"text".to_vec())], "train.parquet: "),
        (vec![("train.parquet", pairs[..pairs.len() / 2].to_vec())], "train.parquet: "),
        (
            vec![("train.parquet", photos_and_masks(1, 0)), ("val.parquet", pairs.clone())],
            "val.parquet: no column of images `image`",
        ),
        (vec![("data/extra-00000-of-00001.parquet", pairs.clone())], "owner/streets: no rows in it"),
        (vec![("train.parquet", parquet(&[("pair", Vec::new())], 1))], "owner/streets: no rows in it"),
        (
            vec![("a/train/0000.parquet", pairs.clone()), ("b/train/0000.parquet", pairs.clone())],
            "the configurations a, b",
        ),
    ] {
        let place = Place::new();
        place.cached(COMMIT, &files);
        let error = fetch(place.offline(), &place).unwrap_err().to_string();
        assert!(error.contains(text), "{error}\nnot {text}");
        assert!(!place.root().exists());
    }
}

#[test]
fn what_an_interrupted_fetch_left_does_not_matter() {
    let place = Place::new();
    place.cached(COMMIT, &[("train.parquet", photos_and_masks(4, 0))]);
    let left = place.root().with_file_name(".owner--streets.partial");
    fs::create_dir_all(left.join("train/images")).unwrap();
    fs::write(left.join("train/images/00077.png"), "half").unwrap();
    fs::write(left.join(".lock"), "").unwrap();

    fetch(place.offline(), &place).unwrap();
    assert!(!left.exists() && !place.root().join("train/images/00077.png").exists());
    assert_eq!(files_below(&place.root()).len(), 9);
}

#[test]
fn without_cache_and_network_one_error_says_what_to_do() {
    let place = Place::new();
    // Nothing listens on this port of this machine.
    let client = HFClientBuilder::new().endpoint("http://127.0.0.1:1").retry_max_attempts(0);
    let error = fetch(Hub { cache: place.cache(), client: Some(client) }, &place).unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    let start = format!(
        "owner/streets: not in the Hub cache {} (no datasets--owner--streets in it), and the Hub cannot be reached (",
        place.cache().display()
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(text.ends_with("(HF_HUB_CACHE or HF_HOME says where the cache is)") && !text.contains('\n'), "{text}");
    assert!(!place.root().exists() && files_below(&place.cache()).is_empty());

    let text = fetch(place.offline(), &place).unwrap_err().to_string();
    assert!(text.contains("cannot be reached (HF_HUB_OFFLINE is set)"), "{text}");
}

#[test]
fn what_the_cache_lacks_is_downloaded_once() {
    let place = Place::new();
    let server = Server::start(vec![
        ("README.md", None),
        ("default/train/0000.parquet", Some(photos_and_masks(20, 0))),
        ("default/validation/0000.parquet", Some(photos_and_masks(2, 100))),
    ]);
    let online = || Hub { cache: place.cache(), client: Some(server.client()) };
    let seen = RefCell::new(Vec::new());
    let summary =
        fetch_from(online(), &streets(), &place.root(), &|progress| seen.borrow_mut().push(progress)).unwrap();
    assert_eq!((summary.commit.as_str(), summary.configuration.as_str()), (COMMIT, "default"));
    assert_eq!((summary.train, summary.val, summary.val_from_train), (20, 2, 0));
    assert_eq!(seen.borrow().first(), Some(&Progress::Downloading));
    assert_eq!(server.downloads(), 2);

    fs::remove_dir_all(place.root()).unwrap();
    assert_eq!(fetch(place.offline(), &place).unwrap(), summary);
    fs::remove_dir_all(place.root()).unwrap();
    assert_eq!(fetch(online(), &place).unwrap(), summary);
    assert_eq!(server.downloads(), 2);
}

#[test]
fn a_download_that_was_cut_off_goes_on() {
    let place = Place::new();
    let train = ("default/train/0000.parquet", Some(photos_and_masks(20, 0)));
    let broken = Server::start(vec![train.clone(), ("default/validation/0000.parquet", None)]);
    let error = fetch(Hub { cache: place.cache(), client: Some(broken.client()) }, &place).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert_eq!(broken.downloads(), 1);

    // The train file alone would look like a whole data set.
    let text = fetch(place.offline(), &place).unwrap_err().to_string();
    assert!(text.contains("(its download was cut off)"), "{text}");

    let whole = Server::start(vec![train, ("default/validation/0000.parquet", Some(photos_and_masks(2, 100)))]);
    let summary = fetch(Hub { cache: place.cache(), client: Some(whole.client()) }, &place).unwrap();
    assert_eq!((summary.train, summary.val), (20, 2));
    assert_eq!(whole.downloads(), 1, "the train file was there");
}

#[test]
fn a_data_set_that_the_hub_does_not_have_is_refused() {
    let place = Place::new();
    let server = Server::start(Vec::new());
    let client = || Some(server.client());
    let other = "owner/other".parse().unwrap();
    let error = fetch_from(Hub { cache: place.cache(), client: client() }, &other, &place.root(), &|_| {}).unwrap_err();
    assert!(matches!(&error, HubError::Refused { name, .. } if name == "owner/other"), "{error}");
    assert_eq!(fs::read_dir(place.cache()).unwrap().count(), 0, "no folder was left in the cache");

    let error = fetch(Hub { cache: place.cache(), client: client() }, &place).unwrap_err().to_string();
    assert_eq!(error, "owner/streets: downloaded, but not whole: datasets--owner--streets has no parquet file");
}

/// The folders are what they are for.
#[test]
fn what_is_fetched_opens_as_a_dataset() {
    let table = Arc::new(ClassTable::load("camvid").unwrap());
    let config = |layout| DataConfig {
        layout,
        direction: Direction::PhotoLeft,
        classes: "camvid".to_owned(),
        height: 4,
        width: 6,
        batch_size: 1,
        cache_mib: 0,
        augment: AugmentConfig::NONE,
        streets: None,
    };
    for (file, columns) in [
        ("test.parquet", vec![("image", vec![photo(6, 4, 7, Png)]), ("label", vec![mask(6, 4, 3)])]),
        ("test.parquet", vec![("pair", vec![photo(12, 4, 7, Png)])]),
    ] {
        let place = Place::new();
        place.cached(COMMIT, &[(file, parquet(&columns, 1))]);
        let summary = fetch(place.offline(), &place).unwrap();
        let data = Dataset::open(&place.root(), Split::Test, &config(Layout::Auto), table.clone()).unwrap();
        assert_eq!((data.len(), data.layout(), data.name(0)), (1, summary.layout(), "00000"));
        let sample = data.sample(0).unwrap();
        assert_eq!((sample.photo.dimensions(), sample.photo.get_pixel(1, 2).0), ((6, 4), [7, 1, 2]));
        if summary.layout() == Layout::Folders {
            assert_eq!(sample.labels, [3; 24]);
        }
    }
}

/// Whatever bytes a table has, reading it ends, in pairs or in an error.
#[test]
fn damaged_tables_do_not_panic() {
    let whole = parquet(&[("pair", vec![photo(2, 1, 0, Png), photo(2, 1, 1, Png), photo(2, 1, 2, Png)])], 2);
    let place = Place::new();
    let file = place.cached(COMMIT, &[("train.parquet", whole.clone())]).join("train.parquet");
    for at in (0..whole.len()).step_by(3) {
        fs::write(&file, [&whole[..at], &[whole[at] ^ 1], &whole[at + 1..]].concat()).unwrap();
        let _ = fetch(place.offline(), &place); // in a photo's pixels, or in what is not read, it does no harm
        let _ = fs::remove_dir_all(place.root());
    }
    for at in (0..whole.len()).step_by(50) {
        fs::write(&file, &whole[..at]).unwrap();
        assert!(fetch(place.offline(), &place).is_err(), "cut at {at}");
    }
}
