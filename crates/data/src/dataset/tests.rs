use std::fs;

use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::tempdir;

use super::*;
use crate::dataset::fixture::{ROAD, SKY, UNKNOWN, config, indices, label_map, open, photo, table, write_pairs};
use crate::{VOID, write_pair};

fn folders(root: &Path) -> (PathBuf, PathBuf) {
    let (images, masks) = (root.join("train/images"), root.join("train/masks"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&masks).unwrap();
    (images, masks)
}

#[test]
fn pairs_are_cut_into_photo_and_labels() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 3);
    let data = open(root.path(), Layout::Auto).unwrap();
    assert_eq!((data.len(), data.layout(), data.name(1)), (3, Layout::Pairs, "01"));
    assert_eq!((data.path(2), data.mask_path(2)), (root.path().join("train/02.png").as_path(), None));
    let sample = data.sample(1).unwrap();
    assert_eq!((sample.photo, sample.label_map), (photo(10, 6, 1), label_map(10, 6)));
    assert_eq!(sample.labels[..10], [1; 10]);
    assert_eq!(sample.labels[50..], [0, 0, 0, 0, 0, VOID, VOID, VOID, VOID, VOID]);

    let mut reversed = config(Layout::Pairs);
    reversed.direction = Direction::LabelLeft;
    write_pair(&root.path().join("train/00.png"), &photo(10, 6, 0), &label_map(10, 6), Direction::LabelLeft).unwrap();
    let data = Dataset::open(root.path(), Split::Train, &reversed, table()).unwrap();
    assert_eq!(data.sample(0).unwrap().photo, photo(10, 6, 0));
    assert_eq!(Layout::Auto.splits(root.path()).unwrap(), [Split::Train]);
    assert_eq!(data.take(2).len(), 2);
}

#[test]
fn colors_that_jpeg_scatters_decode_back() {
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join("train")).unwrap();
    let cityscapes = Arc::new(ClassTable::load("cityscapes").unwrap());
    // Blocks of 20 pixels, so that JPEG's blocks of 8 and 16 cross their edges.
    let labels: Vec<u8> = (0..120 * 160).map(|i| ((i / 160 / 20 * 8 + i % 160 / 20) % 19) as u8).collect();
    let label_map = cityscapes.paint(&labels, 160, 120).unwrap();
    let noise = RgbImage::from_fn(160, 120, |x, y| Rgb([(x * 7 + y * 31) as u8, (x * 13) as u8, (y * 3) as u8]));
    let path = root.path().join("train/a.JPG");
    let whole = root.path().join("whole.png");
    write_pair(&whole, &noise, &label_map, Direction::PhotoLeft).unwrap();
    let file = fs::File::create(path).unwrap();
    image::codecs::jpeg::JpegEncoder::new_with_quality(file, 90)
        .encode_image(&crate::read_image(&whole).unwrap())
        .unwrap();
    let data = Dataset::open(root.path(), Split::Train, &config(Layout::Auto), cityscapes).unwrap();
    let sample = data.sample(0).unwrap();
    let scattered = sample.label_map.pixels().zip(label_map.pixels()).filter(|(a, b)| a != b).count();
    let right = sample.labels.iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(scattered > labels.len() / 2, "{scattered} of {} colours moved", labels.len());
    assert!(right * 100 > labels.len() * 97, "{right} of {} labels are right", labels.len());
}

#[test]
fn folders_are_joined_by_name_and_masks_decode_by_value_or_color() {
    let root = tempdir().unwrap();
    let (images, masks) = folders(root.path());
    for name in ["b", "a é \"1\""] {
        photo(6, 4, 9).save(images.join(format!("{name}.png"))).unwrap();
    }
    indices(6, 4).save(masks.join("b.PNG")).unwrap();
    label_map(6, 4).save(masks.join("a é \"1\".png")).unwrap();
    let data = open(root.path(), Layout::Auto).unwrap();
    assert_eq!(data.layout(), Layout::Folders);
    let (colors, values) = (data.sample(0).unwrap(), data.sample(1).unwrap());
    assert_eq!((colors.name.as_str(), values.name.as_str()), ("a é \"1\"", "b"));
    assert_eq!(colors.labels, values.labels);
    assert_eq!(values.label_map, label_map(6, 4));
    assert_eq!([0, 12, 23].map(|i| values.labels[i]), [1, 0, VOID]);
    assert_eq!([(0, 0), (0, 3), (5, 3)].map(|(x, y)| values.label_map.get_pixel(x, y).0), [SKY, ROAD, UNKNOWN]);
}

#[test]
fn files_of_folders_without_a_mate_are_named() {
    let root = tempdir().unwrap();
    let (images, masks) = folders(root.path());
    assert_eq!(open(root.path(), Layout::Auto).unwrap_err(), format!("{}: no images in it", images.display()));
    photo(2, 2, 0).save(images.join("a.png")).unwrap();
    let expected = format!("{}: no mask belongs to it in {}", images.join("a.png").display(), masks.display());
    assert_eq!(open(root.path(), Layout::Auto).unwrap_err(), expected);
    indices(2, 2).save(masks.join("a.png")).unwrap();
    indices(2, 2).save(masks.join("c.png")).unwrap();
    let expected = format!("{}: no photo belongs to it in {}", masks.join("c.png").display(), images.display());
    assert_eq!(open(root.path(), Layout::Auto).unwrap_err(), expected);
    fs::write(masks.join("c.jpg"), "").unwrap();
    let expected = format!("{}: has the same name as {}", masks.join("c.png").display(), masks.join("c.jpg").display());
    assert_eq!(open(root.path(), Layout::Auto).unwrap_err(), expected);
}

#[test]
fn masks_that_do_not_fit_are_named() {
    let root = tempdir().unwrap();
    let (images, masks) = folders(root.path());
    photo(5, 4, 0).save(images.join("a.png")).unwrap();
    let mask = masks.join("a.png");
    GrayImage::from_fn(5, 4, |x, y| Luma([if (x, y) >= (3, 2) { 77 } else { 2 }])).save(&mask).unwrap();
    let data = open(root.path(), Layout::Auto).unwrap();
    let expected = format!("{}: mask value 77 at (4, 0) is not in the class table street", mask.display());
    assert_eq!(data.sample(0).unwrap_err().to_string(), expected);
    indices(4, 5).save(&mask).unwrap();
    let expected = format!("{}: 4x5, but its photo has 5x4", mask.display());
    assert_eq!(data.sample(0).unwrap_err().to_string(), expected);
}

#[test]
fn cityscapes_ids_become_train_ids() {
    let root = tempdir().unwrap();
    let city = |kind: &str| {
        let folder = root.path().join(kind).join("train/aachen");
        fs::create_dir_all(&folder).unwrap();
        folder
    };
    let (photos, masks) = (city("leftImg8bit"), city("gtFine"));
    photo(3, 1, 0).save(photos.join("aachen_000001_000019_leftImg8bit.png")).unwrap();
    let cityscapes = Arc::new(ClassTable::load("cityscapes").unwrap());
    let open = || Dataset::open(root.path(), Split::Train, &config(Layout::Auto), Arc::clone(&cityscapes));
    let error = open().unwrap_err().to_string();
    assert!(error.contains("aachen_000001_000019_leftImg8bit.png: no mask belongs to it in "), "{error}");

    let ids = GrayImage::from_raw(3, 1, vec![7, 3, 33]).unwrap();
    ids.save(masks.join("aachen_000001_000019_gtFine_labelIds.png")).unwrap();
    // Other files of gtFine are no masks.
    ids.save(masks.join("aachen_000001_000019_gtFine_instanceIds.png")).unwrap();
    let data = open().unwrap();
    assert_eq!((data.len(), data.layout(), data.name(0)), (1, Layout::Cityscapes, "aachen_000001_000019"));
    let sample = data.sample(0).unwrap();
    assert_eq!(sample.labels, [0, VOID, 18]);
    assert_eq!(sample.label_map.as_raw()[..], [128, 64, 128, 0, 0, 0, 119, 11, 32]);

    ids.save(masks.join("aachen_000002_000019_gtFine_labelIds.png")).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains("aachen_000002_000019_gtFine_labelIds.png: no photo belongs to it in "), "{error}");
}

#[test]
fn what_is_no_data_set_is_said_with_what_was_looked_for() {
    let root = tempdir().unwrap();
    let error = open(root.path(), Layout::Auto).unwrap_err();
    assert!(
        error.starts_with(&format!("{}: no data set found: looked for leftImg8bit and gtFine", root.path().display()))
    );
    let error = open(&root.path().join("none"), Layout::Auto).unwrap_err();
    assert!(error.starts_with(&format!("{}: ", root.path().join("none").display())), "{error}");
    let train = root.path().join("train");
    fs::create_dir(&train).unwrap();
    assert_eq!(open(root.path(), Layout::Auto).unwrap_err(), format!("{}: no images in it", train.display()));
    assert!(open(root.path(), Layout::Cityscapes).unwrap_err().contains("leftImg8bit"));
}

#[test]
fn broken_pairs_are_named() {
    let root = tempdir().unwrap();
    let train = root.path().join("train");
    write_pairs(root.path(), 1);
    RgbImage::new(511, 2).save(train.join("a.png")).unwrap();
    fs::write(train.join("b.jpg"), "no image at all").unwrap();
    let data = open(root.path(), Layout::Auto).unwrap();
    let errors: Vec<String> = (1..3).map(|i| data.sample(i).unwrap_err().to_string()).collect();
    assert_eq!(
        errors[0],
        format!("{}: not a photo and a label map side by side (511x2)", train.join("a.png").display())
    );
    assert_eq!(errors[1], format!("{}: not a PNG or JPEG image", train.join("b.jpg").display()));
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_read_and_shown() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let root = tempdir().unwrap();
    fs::create_dir(root.path().join("train")).unwrap();
    let names: [&[u8]; 3] = [b"a\nb.png", b"c\xFF.png", b"d 'e' \"f\".png"];
    for name in names {
        let path = root.path().join("train").join(OsStr::from_bytes(name));
        write_pair(&path, &photo(4, 4, 0), &label_map(4, 4), Direction::PhotoLeft).unwrap();
    }
    let data = open(root.path(), Layout::Auto).unwrap();
    assert_eq!([0, 1, 2].map(|i| data.name(i)), ["a\\nb", "c\\xFF", "d 'e' \"f\""]);
    assert!((0..3).all(|i| data.sample(i).is_ok()));
}
