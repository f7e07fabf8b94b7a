//! What each command writes and prints.

use std::fs;

use crate::lab::{Lab, label};

#[test]
fn version_and_help_are_no_errors() {
    let lab = Lab::new();
    assert!(lab.succeed("--version").stdout.starts_with("img2seg "));
    for command in ["train", "find-lr", "evaluate", "predict", "compare", "data", "recipes"] {
        assert!(lab.succeed("--help").stdout.contains(command));
        assert!(lab.succeed(&format!("{command} --help")).stdout.contains("Usage: img2seg"));
    }
}

#[test]
fn recipes_are_listed_and_printed() {
    let lab = Lab::new();
    assert!(lab.succeed("recipes").stdout.contains("quickstart"));
    lab.write("mine.toml", lab.succeed("recipes smoke-unet").stdout);
    // One thread for the loader and for the steps: neither waits for the other.
    lab.succeed("train mine.toml --data pairs --set epochs=1 --set exactness=direct --threads 1");
    assert!(fs::read_to_string(lab.path("runs/mine/config.toml")).unwrap().contains("exactness = \"direct\""));
    assert!(lab.path("runs/mine/report.html").is_file(), "the run is named after the recipe's file");
}

#[test]
fn a_run_leaves_its_files_and_is_read_back() {
    let lab = Lab::new();
    let trained = lab.succeed("train smoke-unet --data pairs --run run --set epochs=2");
    for file in [
        "config.toml",
        "classes.toml",
        "manifest.json",
        "losses.txt",
        "metrics.jsonl",
        "times.jsonl",
        "samples/epoch-001.png",
        "checkpoints/last/weights.safetensors",
        "checkpoints/last/optimizer.safetensors",
        "checkpoints/last/progress.json",
        "checkpoints/best/weights.safetensors",
        "evaluation/train/scores.json",
        "evaluation/val/scores.json",
        "evaluation/val/images.jsonl",
        "evaluation/val/confusion.png",
        "report.html",
    ] {
        assert!(lab.path("run").join(file).is_file(), "{file} is missing");
    }
    assert_eq!(trained.stdout.lines().last(), Some("run/report.html"));
    assert_eq!(fs::read_to_string(lab.path("run/metrics.jsonl")).unwrap().lines().count(), 2);
    assert!(fs::read_to_string(lab.path("run/config.toml")).unwrap().contains("epochs = 2"));

    // evaluate --json: one object, fractions and nulls
    let json = lab.succeed("evaluate run --json").stdout;
    let scores: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<&str> = scores.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "split",
        "images",
        "pixels",
        "pixel_accuracy",
        "class_accuracy",
        "mean_iou",
        "frequency_weighted_iou",
        "class_iou",
        "rgb_agreement",
        "boundary_f1",
        "class_boundary_f1",
        "class_precision",
        "class_recall",
        "calibration",
        "confusion",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&scores["split"], &scores["images"]), (&"val".into(), &2.into()));
    assert_eq!(scores["pixels"], 2 * 64 * 32);
    assert!((0.0..=1.0).contains(&scores["pixel_accuracy"].as_f64().unwrap()));
    assert!(scores["class_iou"]["road"].is_f64(), "road occurs: {json}");
    assert_eq!(scores["calibration"], serde_json::Value::Null, "colours say nothing of confidence");
    assert!((0.0..=1.0).contains(&scores["boundary_f1"].as_f64().unwrap()));
    let counted =
        |row: &serde_json::Value| row.as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).sum::<u64>();
    let confusion = scores["confusion"].as_array().unwrap();
    assert_eq!(confusion.iter().map(counted).sum::<u64>(), 2 * 64 * 32);
    assert!(scores["rgb_agreement"]["within_25"].is_f64(), "the recipe predicts colours: {json}");

    // A run knows where its data is, and can be told where it went.
    fs::rename(lab.path("pairs"), lab.path("moved")).unwrap();
    assert!(lab.fail(1, "evaluate run").contains("pairs"));
    assert_eq!(lab.succeed("evaluate run --data moved --json").stdout, json);
}

#[test]
fn predictions_are_indexed_pictures_and_overlays() {
    let lab = Lab::new();
    lab.train("run");
    lab.succeed("predict run pairs/val pairs/train/2.png --pairs --out out");
    assert!(lab.path("out/0.png").is_file() && lab.path("out/2.png").is_file());
    let wide = fs::read(lab.path("out/1.png")).unwrap();
    assert_eq!(&wide[12..16], b"IHDR");
    assert_eq!(wide[25], 3, "the colour type of a palette image");
    let overlay = image::open(lab.path("out/1-overlay.png")).unwrap();
    assert_eq!((overlay.width(), overlay.height()), (64, 32), "the photo's half of the pair");
}

#[test]
fn runs_are_compared() {
    let lab = Lab::new();
    lab.train("first");
    lab.train("second");
    let said = lab.succeed("compare first second --out comparison");
    assert_eq!(said.stdout.lines().last(), Some("comparison/report.html"));
    assert!(said.stdout.contains("second and first cannot be told apart by 2 images: 0.00 points"), "{}", said.stdout);
    let page = fs::read_to_string(lab.path("comparison/report.html")).unwrap();
    assert!(page.contains("first") && page.contains("second"));
    assert!(!page.contains("src=\"http") && !page.contains("<script src"), "the page opens offline");
}

#[test]
fn streets_are_drawn_shown_and_checked() {
    let lab = Lab::new();
    lab.succeed("data streets --out streets --train 2 --val 1 --height 32 --width 64 --seed 3");
    lab.succeed("data show streets --out sheet.png");
    assert!(image::open(lab.path("sheet.png")).is_ok());
    lab.succeed("data check streets");
    lab.succeed("train smoke-unet --data streets --run run --set epochs=1");
}

#[test]
fn every_layout_is_trained_on() {
    let lab = Lab::new();
    for split in ["train", "val"] {
        for name in ["a", "b"] {
            lab.save_masked("folders", split, name, label);
        }
    }
    lab.succeed("train smoke-unet --data folders --run run --set epochs=1");
    let manifest = fs::read_to_string(lab.path("run/manifest.json")).unwrap();
    assert!(manifest.contains("\"folders\""), "{manifest}");
}

#[test]
fn find_lr_shows_a_curve_and_leaves_nothing_but_what_was_asked_for() {
    let lab = Lab::new();
    let said = lab.succeed("find-lr smoke-unet --data pairs --steps 30 --from 1e-5 --to 1e-1 --csv rates.csv");
    assert!(said.stdout.trim_start().starts_with("rate "), "{}", said.stdout);
    for name in ["steepest descent", "a tenth of the least"] {
        let line = said.stdout.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("none") || line.contains("--set task.segmentation."), "{line}");
    }
    assert_eq!(fs::read_to_string(lab.path("rates.csv")).unwrap().lines().count(), 31);
    assert!(!lab.path("runs").exists());
}
