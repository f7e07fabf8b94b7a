use super::*;
use crate::dataset::fixture::{label_map, photo, table};
use crate::keyed;

fn sample(width: u32, height: u32) -> Sample {
    let label_map = label_map(width, height);
    Sample { name: "s".into(), photo: photo(width, height, 5), labels: table().decode_image(&label_map), label_map }
}

/// A sample whose three parts are one picture: what moves one of them but not the others shows in any pixel.
fn one_picture(width: u32, height: u32) -> Sample {
    let photo = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (y * width + x) as u8]));
    let labels = photo.pixels().map(|pixel| pixel[2]).collect();
    Sample { name: "s".into(), label_map: photo.clone(), photo, labels }
}

const ALL: AugmentConfig = AugmentConfig {
    scale: [0.5, 2.0],
    crop: None,
    flip: 0.5,
    brightness: 0.4,
    contrast: 0.4,
    saturation: 0.4,
    hue: 0.1,
    blur: 2.0,
    noise: 12.0,
    erase: 0.5,
    cut_mix: 0.5,
};

#[test]
fn photo_label_map_and_labels_move_together() {
    // Scaled sizes equal to the stored one leave every pixel whole; the crop has 25 places, half of them mirrored.
    let config = AugmentConfig { scale: [1.25, 1.25], flip: 0.5, ..AugmentConfig::NONE };
    let stored = one_picture(20, 15);
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..300 {
        let made = augment(&stored, &config, (12, 16), [0; 3], &mut keyed::rng(1, "test", &[index]));
        assert_eq!(made.photo.dimensions(), (16, 12));
        assert_eq!(made.photo, made.label_map);
        assert!(made.photo.pixels().zip(&made.labels).all(|(pixel, &label)| pixel[2] == label));
        // Each is a crop of the stored picture, mirrored or not.
        let (first, last) = (made.photo.get_pixel(0, 0), made.photo.get_pixel(15, 11));
        let mirrored = first[0] > last[0];
        assert_eq!((first[0].abs_diff(last[0]), last[1] - first[1]), (15, 11));
        seen.insert((mirrored, first[0].min(last[0]), first[1]));
    }
    assert_eq!(seen.len(), 2 * 5 * 4);
}

#[test]
fn scaled_photos_stay_over_their_labels() {
    // Bilinear photos and nearest labels of one smooth slope differ by less than a stored pixel and a half.
    let slope = RgbImage::from_fn(40, 40, |x, y| Rgb([6 * x as u8, 6 * y as u8, 0]));
    let stored = Sample { name: "s".into(), label_map: slope.clone(), labels: vec![1; 1600], photo: slope };
    let config = AugmentConfig { scale: [0.5, 2.0], flip: 0.5, ..AugmentConfig::NONE };
    for index in 0..100 {
        let made = augment(&stored, &config, (32, 24), [250; 3], &mut keyed::rng(2, "test", &[index]));
        for ((photo, colors), &label) in made.photo.pixels().zip(made.label_map.pixels()).zip(&made.labels) {
            if label == VOID {
                assert_eq!((photo, colors.0), (&GREY, [250; 3]));
            } else {
                assert!(
                    photo[0].abs_diff(colors[0]) <= 10 && photo[1].abs_diff(colors[1]) <= 10,
                    "{photo:?} {colors:?}"
                );
            }
        }
    }
}

#[test]
fn small_scales_are_surrounded_by_void() {
    let config = AugmentConfig { scale: [0.5, 0.5], erase: 0.0, ..ALL };
    let made = augment(&one_picture(8, 8), &config, (16, 16), [1, 2, 3], &mut keyed::rng(3, "test", &[]));
    let labelled = made.labels.iter().filter(|&&label| label != VOID).count();
    assert_eq!(labelled, 64);
    assert_eq!(made.label_map.pixels().filter(|pixel| pixel.0 == [1, 2, 3]).count(), 256 - 64);
    assert_eq!(made.photo.pixels().filter(|&&pixel| pixel == GREY).count(), 256 - 64);
}

#[test]
fn crops_are_windows_of_what_networks_predict() {
    // Scaled to 12x16, of which 5x7 are cut: windows at 8 x 10 places, never anything beyond.
    let config = AugmentConfig { crop: Some([5, 7]), flip: 0.5, ..AugmentConfig::NONE };
    let mut places = std::collections::BTreeSet::new();
    for index in 0..1000 {
        let made = augment(&one_picture(16, 12), &config, (12, 16), [0; 3], &mut keyed::rng(6, "test", &[index]));
        assert_eq!((made.photo.dimensions(), made.labels.len()), ((7, 5), 35));
        assert!(made.labels.iter().all(|&label| label != VOID));
        let (first, last) = (made.photo.get_pixel(0, 0), made.photo.get_pixel(6, 4));
        assert_eq!((first[0].abs_diff(last[0]), last[1] - first[1]), (6, 4));
        places.insert((first[0].min(last[0]), first[1]));
    }
    assert_eq!(places.len(), 8 * 10);
    // Larger than what it is cut from, it is filled up.
    let config = AugmentConfig { crop: Some([20, 18]), ..AugmentConfig::NONE };
    let made = augment(&one_picture(16, 12), &config, (12, 16), [0; 3], &mut keyed::rng(6, "test", &[0]));
    assert_eq!(made.labels.iter().filter(|&&label| label != VOID).count(), 12 * 16);
}

#[test]
fn jitter_leaves_labels_alone() {
    let config = AugmentConfig { scale: [1.0, 1.0], flip: 0.0, ..ALL };
    let stored = sample(12, 8);
    let made = augment(&stored, &config, (8, 12), [0; 3], &mut keyed::rng(4, "test", &[]));
    assert_ne!(made.photo, stored.photo);
    assert_eq!((made.label_map, made.labels), (stored.label_map, stored.labels));
}

#[test]
fn no_change_is_a_plain_resize() {
    let stored = sample(13, 9);
    let made = augment(&stored, &AugmentConfig::NONE, (6, 10), [0; 3], &mut keyed::rng(5, "test", &[]));
    assert_eq!(made, fit(&stored, 6, 10));
    assert_eq!(made.labels, table().decode_image(&made.label_map));
    assert_eq!(fit(&stored, 9, 13), stored);
}

#[test]
fn one_setting_does_not_move_another() {
    let draw = |config: &AugmentConfig| config.draw(&mut keyed::rng(6, "test", &[]));
    let (all, some) = (draw(&ALL), draw(&AugmentConfig { scale: [1.0, 1.0], brightness: 0.0, ..ALL }));
    assert_eq!((all.place, all.mirror, all.jitter.hue), (some.place, some.mirror, some.jitter.hue));
    assert_eq!(all.jitter.contrast.to_bits(), some.jitter.contrast.to_bits());
    assert_eq!(all.noise.to_bits(), some.noise.to_bits());
    let erased = AugmentConfig { erase: 1.0, ..AugmentConfig::NONE };
    assert_eq!(draw(&erased).erase, draw(&AugmentConfig { erase: 1.0, ..ALL }).erase);
}

/// The earliest recipes' draws: what came later is drawn after them.
#[test]
fn the_order_of_the_draws_is_frozen() {
    let change = ALL.draw(&mut keyed::rng(7, "test", &[1]));
    let mut draws = keyed::rng(7, "test", &[1]);
    let units: Vec<f64> = (0..10).map(|_| draws.unit_f64()).collect();
    assert_eq!((change.scale, change.place), (0.5 + 1.5 * units[0], [units[1], units[2]]));
    assert_eq!((change.mirror, change.jitter.hue), (units[3] < 0.5, (0.1 * (2.0 * units[7] - 1.0)) as f32));
    assert_eq!((change.blur, change.noise), (2.0 * units[8], (12.0 * units[9]) as f32));
}

#[test]
fn blur_noise_and_erasing_change_the_photo_alone() {
    let mut levels = keyed::rng(0, "photo", &[]);
    let photo = RgbImage::from_fn(40, 30, |_, _| Rgb([0; 3].map(|_: i32| levels.bits() as u8)));
    let stored = Sample { photo, ..sample(40, 30) };
    let change =
        |config: &AugmentConfig, key| augment(&stored, config, (30, 40), [0; 3], &mut keyed::rng(key, "test", &[]));
    let none = AugmentConfig::NONE;
    for config in [
        AugmentConfig { blur: 3.0, ..none.clone() },
        AugmentConfig { noise: 20.0, ..none.clone() },
        AugmentConfig { erase: 1.0, ..none.clone() },
    ] {
        let made = change(&config, 4);
        assert!(made.photo != stored.photo, "{config:?}");
        assert!(made.label_map == stored.label_map && made.labels == stored.labels, "{config:?}");
        assert!(made == change(&config, 4) && made.photo != change(&config, 2).photo, "{config:?}");
    }
    // One setting's draw is the same beside the others'.
    let erased = |made: &Sample| made.photo.pixels().map(|&pixel| pixel == GREY).collect::<Vec<_>>();
    let alone = change(&AugmentConfig { erase: 1.0, ..none.clone() }, 3);
    let beside = change(&AugmentConfig { erase: 1.0, blur: 3.0, ..none }, 3);
    assert_eq!(erased(&alone), erased(&beside));
}

/// Standard deviations are drawn evenly from 0 to the greatest.
#[test]
fn strengths_are_uniform() {
    let drawn: Vec<Change> = (0..2000).map(|key| ALL.draw(&mut keyed::rng(key, "test", &[]))).collect();
    let strengths: [fn(&Change) -> f64; 2] = [|change| change.blur / 2.0, |change| f64::from(change.noise) / 12.0];
    for strength in strengths {
        let values: Vec<f64> = drawn.iter().map(strength).collect();
        let quarters = [0.25, 0.5, 0.75, 1.0].map(|end| values.iter().filter(|&&value| value < end).count());
        assert!(quarters.iter().zip([500, 1000, 1500, 2000]).all(|(count, n)| count.abs_diff(n) < 70), "{quarters:?}");
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let refused = |config: AugmentConfig| config.validate().unwrap_err().to_string();
    let none = AugmentConfig::NONE;
    assert_eq!(
        refused(AugmentConfig { scale: [1.2, 1.1], ..none.clone() }),
        "data.augment.scale: [1.2, 1.1] is not a least and a greatest scale within 0.1..=10"
    );
    assert_eq!(refused(AugmentConfig { flip: 1.5, ..none.clone() }), "data.augment.flip: 1.5 is not in 0..=1");
    assert_eq!(refused(AugmentConfig { hue: 0.6, ..none.clone() }), "data.augment.hue: 0.6 is not in 0..=0.5");
    assert_eq!(refused(AugmentConfig { blur: 10.5, ..none.clone() }), "data.augment.blur: 10.5 is not in 0..=10");
    assert_eq!(refused(AugmentConfig { noise: -1.0, ..none.clone() }), "data.augment.noise: -1 is not in 0..=100");
    assert_eq!(refused(AugmentConfig { erase: 2.0, ..none.clone() }), "data.augment.erase: 2 is not in 0..=1");
    assert_eq!(refused(AugmentConfig { cut_mix: -0.5, ..none.clone() }), "data.augment.cut_mix: -0.5 is not in 0..=1");
    assert!(refused(AugmentConfig { contrast: f64::NAN, ..none.clone() }).starts_with("data.augment.contrast: NaN"));
    assert!(refused(AugmentConfig { scale: [f64::NAN, 1.0], ..none }).starts_with("data.augment.scale"));
    assert!(ALL.validate().is_ok());
}
