//! How predictions are asked for: averaged weights, averaged looks, tiles, the size of the files.

use std::fs;

use serde_json::Value;

use crate::lab::Lab;

/// Half the size of the files, so that the two can be told apart.
const SMALL: &str = "--set epochs=1 --set data.height=16 --set data.width=32";

fn scores(lab: &Lab, arguments: &str) -> Value {
    let said = lab.succeed(&format!("evaluate run --json {arguments}"));
    let filed = fs::read_to_string(lab.path("run/evaluation/val/scores.json")).unwrap();
    let filed: Value = serde_json::from_str(&filed).unwrap();
    let mut told: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(told["pixel_accuracy"], filed["pixel_accuracy"]);
    told["inference"] = filed["inference"].clone();
    told
}

#[test]
fn looks_are_averaged_as_asked_or_as_the_recipe_has_it() {
    let lab = Lab::new();
    lab.succeed(&format!("train smoke-unet --data pairs --run run {SMALL} --set evaluation.tta=flip"));
    let [recipe, flip, none, scales] =
        ["", "--tta flip", "--tta none", "--tta multi-scale"].map(|how| scores(&lab, how));
    assert_eq!(recipe, flip);
    assert_eq!(recipe["inference"]["tta"], "flip");
    assert_eq!((&none["inference"]["tta"], &scales["inference"]["tta"]), (&"none".into(), &"multi-scale".into()));
    assert!(flip["confusion"] != none["confusion"] && scales["confusion"] != flip["confusion"]);
    let said = lab.run("evaluate run --tta twice");
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("twice: not none, flip or multi-scale"), "{}", said.stderr);
}

#[test]
fn scores_are_taken_where_they_are_asked_for() {
    let lab = Lab::new();
    lab.succeed(&format!("train smoke-unet --data pairs --run run {SMALL}"));
    let seen = scores(&lab, "");
    let original = scores(&lab, "--at-original-size");
    let tiles = scores(&lab, "--tiles");
    // Four pixels of a file for one that the network sees.
    assert_eq!(seen["pixels"].as_u64().map(|pixels| 4 * pixels), original["pixels"].as_u64());
    assert_eq!(original["pixels"], tiles["pixels"]);
    assert_eq!(original["inference"]["at_original_size"], true);
    assert_eq!(tiles["inference"]["tiles"], true);
    assert_ne!(original["confusion"], tiles["confusion"]);
    assert!(lab.path("run/evaluation/val/confusion.png").is_file() && lab.path("run/report.html").is_file());
}

#[test]
fn photos_of_any_size_are_labelled_in_tiles() {
    let lab = Lab::new();
    lab.succeed(&format!("train smoke-unet --data pairs --run run {SMALL}"));
    for (name, width, height) in [("wide", 150, 40), ("small", 9, 5)] {
        let photo = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, 90]));
        photo.save(lab.write(&format!("photos/{name}.png"), "")).unwrap();
    }
    lab.succeed("predict run photos --out labels --tiles --tta flip");
    for (name, size) in [("wide", (150, 40)), ("small", (9, 5))] {
        assert_eq!(image::open(lab.path(&format!("labels/{name}.png"))).unwrap().to_luma8().dimensions(), size);
    }
}

#[test]
fn averages_of_the_weights_are_saved_beside_them_and_predict() {
    let lab = Lab::new();
    lab.succeed("train smoke-adversarial --data pairs --run run");
    let file = lab.path("run/checkpoints/best/ema.safetensors");
    let averages = fs::read(&file).unwrap();
    assert_ne!(averages, fs::read(lab.path("run/checkpoints/best/weights.safetensors")).unwrap());
    let digests = fs::read_to_string(lab.path("run/digests.jsonl")).unwrap();
    assert!(digests.contains("\"ema.network.outputs.weight\""), "{digests:.300}");
    scores(&lab, "");
    fs::write(&file, &averages[..averages.len() - 1]).unwrap();
    let error = lab.fail(1, "evaluate run");
    assert!(error.starts_with("run/checkpoints/best/ema.safetensors: damaged"), "{error}");
    fs::remove_file(&file).unwrap();
    assert!(lab.fail(1, "evaluate run").starts_with("run/checkpoints/best/ema.safetensors: "));
}

#[test]
fn class_weights_are_settled_when_a_run_begins() {
    let lab = Lab::new();
    lab.succeed("train smoke-adversarial --data pairs --run run --until 1");
    let config = fs::read_to_string(lab.path("run/config.toml")).unwrap();
    assert!(config.contains("fixed = [") && !config.contains("inverse-root"), "{config}");
    // Going on with it is no change of the recipe.
    let resumed = lab.succeed("train smoke-adversarial --data pairs --run run --resume");
    assert!(!resumed.stderr.contains("differs from"), "{}", resumed.stderr);
    assert_eq!(config, fs::read_to_string(lab.path("run/config.toml")).unwrap());
}

#[test]
fn a_conditional_vae_draws_what_it_is_unsure_of() {
    let lab = Lab::new();
    lab.succeed("train smoke-cvae --data pairs --run run");
    let map = image::open(lab.path("run/evaluation/val/pictures/01/uncertainty.png")).unwrap().to_luma8();
    assert_eq!(map.dimensions(), (64, 32));
    assert!(map.pixels().any(|pixel| pixel[0] > 0));
    // `predict` draws the same for the same photo, and only when asked.
    let photo = "run/evaluation/val/pictures/01/photo.png";
    lab.succeed(&format!("predict run {photo} --out labels"));
    assert!(!lab.path("labels/photo-uncertainty.png").exists());
    lab.succeed(&format!("predict run {photo} --out labels --uncertainty"));
    assert_eq!(image::open(lab.path("labels/photo-uncertainty.png")).unwrap().to_luma8(), map);
    lab.succeed(&format!("predict run {photo} --out tiled --uncertainty --tiles"));
    assert_eq!(image::open(lab.path("tiled/photo-uncertainty.png")).unwrap().to_luma8().dimensions(), (64, 32));
    assert!(fs::read_to_string(lab.path("run/report.html")).unwrap().contains("ncertainty"));
}

#[test]
fn colours_with_a_single_answer_have_no_uncertainty() {
    let lab = Lab::new();
    lab.succeed("train smoke-cgan --data pairs --run run");
    let error = lab.fail(2, "predict run run/evaluation/val/pictures --out labels --uncertainty");
    assert_eq!(error.matches("--uncertainty: the run gives colours").count(), 1, "{error}");
    assert!(!lab.path("labels").exists());
}
