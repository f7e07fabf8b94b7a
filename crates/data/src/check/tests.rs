use std::cell::RefCell;
use std::fs;

use image::{Rgb, RgbImage};
use tempfile::tempdir;

use super::*;
use crate::dataset::fixture::{config, label_map, photo, table, write_pairs};
use crate::{Direction, Layout, write_pair};

#[test]
fn everything_wrong_is_listed() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 20);
    let train = root.path().join("train");
    fs::write(train.join("03.png"), "no image").unwrap();
    RgbImage::new(7, 3).save(train.join("05.png")).unwrap();
    // A pair the wrong way round: its "label map" is a photo.
    let bright = RgbImage::from_pixel(8, 8, Rgb([255, 255, 0]));
    write_pair(&train.join("07.png"), &bright, &label_map(8, 8), Direction::LabelLeft).unwrap();
    write_pair(&train.join("08.png"), &photo(8, 8, 0), &label_map(8, 8), Direction::PhotoLeft).unwrap();

    let told = RefCell::new(Vec::new());
    let progress = |split, done, total| told.borrow_mut().push((split, done, total));
    let report = check(root.path(), &[Split::Train, Split::Val], &config(Layout::Auto), &table(), &progress);
    assert!(!report.is_clean());
    assert_eq!(told.into_inner(), [(Split::Train, 16, 20), (Split::Train, 20, 20)]);
    let [train, val] = &report.splits[..] else { panic!("{report:?}") };
    assert_eq!((train.split, train.files), (Split::Train, 20));
    assert_eq!(train.sizes, BTreeMap::from([((6, 10), 16), ((8, 8), 2)]));
    let found: Vec<_> =
        train.findings.iter().map(|finding| (crate::dataset::files::stem(&finding.path), finding.kind)).collect();
    let kinds = [FindingKind::Broken, FindingKind::Size, FindingKind::Colors];
    assert_eq!(found, [("03".to_owned(), kinds[0]), ("05".to_owned(), kinds[1]), ("07".to_owned(), kinds[2])]);
    assert!(train.findings[2].text.ends_with(
        "07.png: 100.0 % of its pixels are more than 48 levels from every colour of the class table street"
    ));
    assert!(train.findings.iter().all(|finding| finding.text.contains(&*finding.path.to_string_lossy())));
    assert_eq!((val.files, val.findings.len(), val.findings[0].kind), (0, 1, FindingKind::Broken));
}

#[test]
fn a_good_split_has_nothing_but_counts() {
    let root = tempdir().unwrap();
    write_pairs(root.path(), 3);
    let report = check(root.path(), &[Split::Train], &config(Layout::Pairs), &table(), &|_, _, _| ());
    assert!(report.is_clean());
    assert_eq!(report.splits[0].counts, ClassCounts { counts: vec![3 * 15, 3 * 30], void: 3 * 15 });
    let data = crate::dataset::fixture::open(root.path(), Layout::Pairs).unwrap();
    assert_eq!(ClassCounts::of(&data, &|_, _| ()).unwrap(), report.splits[0].counts);
}
