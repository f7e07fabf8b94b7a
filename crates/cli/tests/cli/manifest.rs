//! What a run was made of is written down, and a change of it is noticed.

use std::fs;

use serde_json::Value;

use crate::lab::{Lab, files_below};

fn manifest(lab: &Lab, run: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(lab.path(run).join("manifest.json")).unwrap()).unwrap()
}

/// Changes one pixel of a pair in its lower left corner: the photo's.
fn repaint(lab: &Lab, pair: &str) {
    let mut image = image::open(lab.path(pair)).unwrap().to_rgb8();
    let bottom = image.height() - 1;
    image.get_pixel_mut(0, bottom).0[0] ^= 1;
    image.save(lab.path(pair)).unwrap();
}

/// A run of three steps that stopped after two.
fn stopped(lab: &Lab) {
    for index in 3..6 {
        lab.save_pair(&format!("pairs/train/{index}.png"), 64, index);
    }
    let said = lab.succeed("train smoke-unet --data pairs --run run --set epochs=1 --until 2");
    assert!(said.stderr.contains("stopped after step 2 and saved"), "{}", said.stderr);
}

#[test]
fn a_manifest_says_what_a_run_was_made_of() {
    let lab = Lab::new();
    lab.train("run");
    let manifest = manifest(&lab, "run");
    for key in ["program", "version", "compiler", "recipe", "recipe_digest", "classes_digest", "device"] {
        assert!(manifest[key].as_str().is_some_and(|value| !value.is_empty()), "{key}: {manifest:#}");
    }
    for key in ["commit", "dirty", "seed", "threads", "parameters"] {
        assert!(manifest.get(key).is_some(), "{key}: {manifest:#}");
    }
    for key in ["os", "architecture", "arithmetic"] {
        assert!(manifest["cpu"][key].as_str().is_some_and(|value| !value.is_empty()), "cpu.{key}: {manifest:#}");
    }
    assert!(manifest["cpu"]["features"].is_array());
    for library in ["candle-core", "gemm", "image", "fast_image_resize", "rand_chacha", "rayon"] {
        let version = manifest["libraries"][library].as_str().unwrap_or_default();
        assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{library}: {manifest:#}");
    }
    for (split, images) in [("train", 3), ("val", 2)] {
        let data = &manifest["data"][split];
        let files = files_below(&lab.path("pairs").join(split));
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!((&data["images"], &data["bytes"]), (&images.into(), &bytes.into()));
        assert_eq!(data["sha256"].as_str().unwrap().len(), 64);
    }
    assert_eq!(fs::read_to_string(lab.path("run/digests.jsonl")).unwrap().lines().count(), 1);
}

#[test]
fn another_picture_is_noticed_by_resume_and_by_evaluate() {
    let lab = Lab::new();
    stopped(&lab);
    let before = files_below(&lab.path("run"));
    repaint(&lab, "pairs/val/1.png");
    for command in ["train smoke-unet --data pairs --run run --resume", "evaluate run --checkpoint last"] {
        let error = lab.fail(1, command);
        assert!(error.starts_with("run/manifest.json: data of val was 2 images "), "{error}");
        assert!(error.contains("--allow-changes") && !error.contains("train"), "{error}");
    }
    assert!(files_below(&lab.path("run")) == before, "a refused run was touched");
    lab.succeed("evaluate run --checkpoint last --split train");
    let said = lab.succeed("evaluate run --checkpoint last --allow-changes");
    assert!(said.stderr.contains("WARN") && said.stderr.contains("data of val was"), "{}", said.stderr);

    repaint(&lab, "pairs/train/0.png");
    let error = lab.fail(1, "train smoke-unet --data pairs --run run --resume");
    assert!(error.contains("data of train was 6 images") && error.contains("; data of val was 2 images"), "{error}");
    let said = lab.succeed("train smoke-unet --data pairs --run run --resume --allow-changes");
    assert!(said.stderr.contains("data of train was 6 images"), "{}", said.stderr);
    let manifest = manifest(&lab, "run");
    assert_eq!(manifest["resumed"][0]["step"], 2);
    assert_eq!(manifest["resumed"][0]["changes"][0]["what"], "data of train");
    // What it went on with is what it is compared with.
    lab.succeed("evaluate run");
}

#[test]
fn an_edited_recipe_and_an_edited_class_table_are_noticed() {
    let lab = Lab::new();
    stopped(&lab);
    let edit = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(lab.path("run").join(name)).unwrap();
        assert!(text.contains(from), "{text}");
        lab.write(&format!("run/{name}"), text.replace(from, to));
    };
    edit("config.toml", "learning_rate = 0.001", "learning_rate = 0.002");
    let before = files_below(&lab.path("run"));
    for command in ["train smoke-unet --data pairs --run run --resume", "evaluate run --checkpoint last"] {
        let error = lab.fail(1, command);
        assert!(error.starts_with("run/manifest.json: recipe (config.toml) was "), "{error}");
        assert!(files_below(&lab.path("run")) == before, "a refused run was touched");
    }
    edit("config.toml", "learning_rate = 0.002", "learning_rate = 0.001");
    edit("classes.toml", "[128, 64, 128]", "[128, 64, 129]");
    let error = lab.fail(1, "evaluate run --checkpoint last");
    assert!(error.starts_with("run/manifest.json: class table was "), "{error}");
}

#[test]
fn another_arithmetic_is_noticed() {
    let lab = Lab::new();
    stopped(&lab);
    if manifest(&lab, "run")["cpu"]["arithmetic"] != "portable" {
        let error = lab.fail(1, "train smoke-unet --data pairs --run run --resume --arithmetic portable");
        assert!(error.contains("arithmetic was ") && error.contains(", is portable"), "{error}");
        lab.succeed("evaluate run --checkpoint last --arithmetic portable");
    }
    let error = lab.fail(2, "evaluate run --arithmetic abacus");
    assert!(error.starts_with("--arithmetic abacus: not an arithmetic of this processor"), "{error}");
}

#[test]
fn a_repetition_of_a_run_on_other_data_is_refused() {
    let lab = Lab::new();
    stopped(&lab);
    let again = "train run/config.toml --data pairs --repeats run --until 2 --run";
    lab.succeed(&format!("{again} again --threads 1"));
    for file in ["losses.txt", "checkpoints/last/progress.json"] {
        assert_eq!(fs::read(lab.path("run").join(file)).unwrap(), fs::read(lab.path("again").join(file)).unwrap());
    }
    repaint(&lab, "pairs/train/0.png");
    let error = lab.fail(1, &format!("{again} other"));
    assert!(error.starts_with("run/manifest.json: data of train was 6 images"), "{error}");
    assert!(!lab.path("other").exists());
}

#[test]
fn traces_of_equal_runs_are_equal_and_go_on_where_a_run_went_on() {
    let lab = Lab::new();
    stopped(&lab);
    lab.succeed("train smoke-unet --data pairs --run run --resume --trace end.txt");
    lab.succeed("train smoke-unet --data pairs --run whole --set epochs=1 --trace whole.txt --threads 1");
    let lines = |name: &str| -> Vec<String> {
        fs::read_to_string(lab.path(name)).unwrap().lines().map(str::to_owned).collect()
    };
    let (whole, end) = (lines("whole.txt"), lines("end.txt"));
    assert_eq!((whole.len(), end.len()), (2 + 4, 2 + 2));
    assert_eq!(whole[..2], end[..2], "names");
    assert_eq!(whole[5], end[3], "the step");
    assert!(end[2].starts_with("2 | - - - "), "{}", end[2]);
    let state = |line: &str| line.split(" | ").nth(1).unwrap().split(' ').skip(3).collect::<Vec<_>>().join(" ");
    assert_eq!(state(&whole[4]), state(&end[2]), "the state before it");
}
