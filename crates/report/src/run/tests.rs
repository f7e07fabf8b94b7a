use std::fs;

use super::*;
use crate::fake::{HOSTILE, Output, unfinished, write, write_run};

fn error(dir: &Path) -> String {
    Run::open(dir).map(|run| run.name).unwrap_err().to_string()
}

#[test]
fn a_finished_run_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("first");
    write_run(&path, Output::Colors, 0.75);
    let run = Run::open(&path).unwrap();
    assert_eq!((run.name.as_str(), run.recipe()), ("first", Some("fake <b>")));
    assert_eq!(run.manifest.parameters(), [("generator", 1_234_567), ("discriminator", 89)]);
    assert_eq!(run.manifest.text(&["data", "digest"]), Some("00ff"));
    assert!(run.manifest.flattened().contains(&("data.train_images".to_owned(), "12".to_owned())));
    assert_eq!(run.losses.names, ["generator", "discriminator"]);
    assert_eq!(run.losses.steps[2], Step { epoch: 2, step: 3, values: vec![0.5, 0.25] });
    assert_eq!(run.metrics[1].losses.val["generator"], Some(0.5));
    assert_eq!((run.times.len(), run.times[0].images_per_second), (2, Some(12.5)));
    let evaluation = run.headline().unwrap();
    assert_eq!((evaluation.checkpoint.as_str(), evaluation.epoch), ("best", 2));
    assert_eq!(evaluation.scores.class_iou["Car"], None);
    assert_eq!(evaluation.images[0].name, HOSTILE);
    assert_eq!(evaluation.pictures[0].score.mean_iou, None);
}

/// An epoch that was not scored, as the program writes it.
#[test]
fn an_epoch_without_scores_is_read() {
    let dir = tempfile::tempdir().unwrap();
    unfinished(dir.path());
    let line = r#"{"epoch":1,"step":2,"learning_rate_factor":1.0,"losses":{"train":{"mse":0.5},"val":null},"train":null,"val":null}"#;
    write(dir.path(), "metrics.jsonl", &format!("{line}\n"));
    let run = Run::open(dir.path()).unwrap();
    assert_eq!(run.metrics[0].losses.train["mse"], Some(0.5));
    assert!(run.metrics[0].losses.val.is_empty() && run.metrics[0].val.is_none());
}

#[test]
fn what_is_not_there_yet_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    unfinished(dir.path());
    write(dir.path(), "losses.txt", "# epoch step loss\n1 1 0.5\n1 2 0.2");
    write(dir.path(), "metrics.jsonl", "{\"epoch\":1,\"st");
    fs::create_dir_all(dir.path().join("evaluation/val/pictures/000")).unwrap();
    let run = Run::open(dir.path()).unwrap();
    assert_eq!(run.losses.steps.len(), 1, "a line without its line feed is still being written");
    assert!(run.metrics.is_empty() && run.times.is_empty() && run.evaluations.is_empty());

    for missing in ["classes.toml", "config.toml"] {
        fs::remove_file(dir.path().join(missing)).unwrap();
        assert!(error(dir.path()).ends_with(&format!(": not a run directory: it has no {missing}")));
    }
}

#[test]
fn val_comes_before_other_splits() {
    let dir = tempfile::tempdir().unwrap();
    unfinished(dir.path());
    crate::fake::evaluate(dir.path(), "train", Output::Classes, 0.9);
    assert!(Run::open(dir.path()).unwrap().headline().is_none(), "train does not speak for a run");
    for split in ["test", "rain", "val"] {
        crate::fake::evaluate(dir.path(), split, Output::Classes, 0.5);
    }
    let run = Run::open(dir.path()).unwrap();
    let splits: Vec<&str> = run.evaluations.iter().map(|evaluation| evaluation.scores.split.as_str()).collect();
    assert_eq!(splits, ["val", "test", "rain", "train"]);
}

#[test]
fn losses_may_diverge_but_not_be_garbled() {
    let dir = tempfile::tempdir().unwrap();
    unfinished(dir.path());
    write(dir.path(), "losses.txt", "# epoch step a b\n1 1 NaN inf\n");
    assert!(Run::open(dir.path()).unwrap().losses.steps[0].values[0].is_nan());
    let cases = [
        ("1 1 0.5\n", "losses.txt:1: does not begin with `# epoch step` and the names of the losses"),
        ("# epoch step a b\n1 1 1 1\n1 2 0.5\n", "losses.txt:3: 3 fields instead of 4"),
        ("# epoch step a\n1 one 0.5\n", "losses.txt:2: `one` is not a count"),
        ("# epoch step a\n1 1 0,5\n", "losses.txt:2: `0,5` is not a number"),
        ("# epoch step a\n\n", "losses.txt:2: 0 fields instead of 3"),
    ];
    for (text, expected) in cases {
        write(dir.path(), "losses.txt", text);
        assert!(error(dir.path()).ends_with(expected), "{}", error(dir.path()));
    }
}

#[test]
fn malformed_records_are_named_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Output::Classes, 0.5);
    let metrics = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    write(dir.path(), "metrics.jsonl", &metrics.replacen("\"epoch\":2", "\"epoch\":\"two\"", 1));
    assert!(
        error(dir.path()).contains("metrics.jsonl:2: invalid type: string \"two\", expected u64"),
        "{}",
        error(dir.path())
    );
    write(dir.path(), "metrics.jsonl", &metrics.replacen("mean_iou", "mean_io", 1));
    assert!(error(dir.path()).contains("metrics.jsonl:1: missing field `mean_iou`"), "{}", error(dir.path()));
    write(dir.path(), "metrics.jsonl", &metrics.replace("Road", "Raod"));
    let text = error(dir.path());
    assert!(text.ends_with("metrics.jsonl:1: class_iou names the class `Raod`, which classes.toml does not"), "{text}");
    write(dir.path(), "metrics.jsonl", &metrics);

    let evaluation = dir.path().join("evaluation/val");
    let scores = fs::read_to_string(evaluation.join("scores.json")).unwrap();
    let images = fs::read_to_string(evaluation.join("images.jsonl")).unwrap();
    let squares = "[0,0,0,0,0,0,0,0,0,0,0]";
    for (from, to, expected) in [
        (
            "class_recall\":{\"Road",
            "class_recall\":{\"Raod",
            "class_recall names the class `Raod`, which classes.toml does not",
        ),
        (squares, "[0]", "confusion is not a square of the 11 classes of classes.toml"),
        (squares, "[0,0,0,0,0,0,0,0,0,0,99999999999999999]", "confusion counts more pixels than a split has"),
    ] {
        write(&evaluation, "scores.json", &scores.replacen(from, to, 1));
        assert!(error(dir.path()).ends_with(expected), "{}", error(dir.path()));
    }
    write(&evaluation, "scores.json", &scores);
    for (to, expected) in [
        ("[11,3,", "images.jsonl:2: confusion has [11, 3, 7], but there are 11 classes"),
        ("[3,3,99999999999],[3,3,", "images.jsonl:2: confusion counts more pixels than an image has"),
    ] {
        write(&evaluation, "images.jsonl", &images.replacen("[3,3,", to, 1));
        assert!(error(dir.path()).ends_with(expected), "{}", error(dir.path()));
    }
    write(&evaluation, "images.jsonl", &images);

    write(dir.path(), "config.toml", "recipe = \"a\"\n\nheight = = 4\n");
    assert!(error(dir.path()).contains("config.toml:3: "), "{}", error(dir.path()));
    write(dir.path(), "config.toml", "");
    write(dir.path(), "manifest.json", "{\n\"seed\": 7,\n}");
    assert!(error(dir.path()).contains("manifest.json:3: "), "{}", error(dir.path()));
    write(dir.path(), "manifest.json", "{}");
    write(dir.path(), "classes.toml", "name = 3");
    assert!(error(dir.path()).contains("classes.toml:1: "), "{}", error(dir.path()));
}
