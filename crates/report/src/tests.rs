//! Whole pages of runs that the tests write.

mod hostile;

use std::fs;
use std::path::{Path, PathBuf};

use crate::fake::{HOSTILE, Output, evaluate, unfinished, write, write_run};
use crate::{ReportError, compare, write as write_page};

fn page(dir: &Path) -> String {
    fs::read_to_string(write_page(dir).unwrap()).unwrap()
}

fn two_runs(root: &Path) -> Vec<PathBuf> {
    let dirs = vec![root.join("unet"), root.join("cgan")];
    write_run(&dirs[0], Output::Classes, 0.75);
    write_run(&dirs[1], Output::Colors, 0.5);
    dirs
}

/// Nothing but namespaces and texts may name another place.
fn assert_self_contained(page: &str) {
    let places = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for forbidden in ["http://", "https://", "file:", "<script", "@import", "url(", "<link rel=\"stylesheet\""] {
        assert!(!places.contains(forbidden), "{forbidden}");
    }
    for (attribute, allowed) in [("src=\"", ["data:", "data:"]), ("href=\"", ["#", "data:"])] {
        for value in places.split(attribute).skip(1) {
            assert!(allowed.iter().any(|start| value.starts_with(start)), "{attribute}{value:.40}");
        }
    }
}

#[test]
fn the_page_of_a_run_shows_every_section() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("lab-unet");
    write_run(&run, Output::Colors, 0.75);
    let page = page(&run);
    assert_self_contained(&page);
    for section in ["scores", "curves", "classes", "errors", "images", "cost", "recipe"] {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    assert!(page.contains("lab-unet labels 75.00 % of the pixels of the validation set correctly"));
    assert!(page.contains("<th scope=\"row\">Training set</th><td>80.00</td>"), "the scores of training stand in");
    assert!(page.contains("during training, epoch 2"));
    assert!(page.contains("<td>75.00</td><td>61.00</td><td>11.00</td><td>22.00</td><td>33.00</td>"));
    assert!(page.contains("1\u{202f}234\u{202f}656") && page.contains("2 min 3 s") && page.contains("12.5 ms"));
    assert_eq!(page.matches("<svg").count(), 4, "two losses, two scores");
    assert_eq!(page.matches("<img ").count(), 5, "four pictures and the confusion matrix");
    assert!(page.contains("style=\"width:87.5%\"") && page.contains(">absent<"));
    assert!(page.contains("recipe = &#34;fake &#60;b&#62;&#34;"), "the recipe");
    assert!(page.contains("<dt>data.root</dt><dd>pairs &#38; more</dd>"), "the manifest");
    assert!(page.contains("&#60;script&#62;alert(1)") && !page.contains(HOSTILE));
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = two_runs(dir.path());
    assert_eq!(page(&dirs[0]), page(&dirs[0]));
    let out = dir.path().join("out");
    let all = || {
        compare(&dirs, &out).unwrap();
        ["report.html", "comparison.md", "comparison.json", "comparison.png"]
            .map(|file| fs::read(out.join(file)).unwrap())
    };
    assert_eq!(all(), all());
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4, "no temporary file is left");
}

#[test]
fn unfinished_runs_have_pages() {
    let dir = tempfile::tempdir().unwrap();
    unfinished(dir.path());
    let begun = page(dir.path());
    assert_self_contained(&begun);
    assert!(begun.contains("has no scores yet") && begun.contains("No steps recorded yet"));

    let finished = tempfile::tempdir().unwrap();
    write_run(finished.path(), Output::Classes, 0.75);
    fs::remove_dir_all(finished.path().join("evaluation")).unwrap();
    let unevaluated = page(finished.path());
    assert!(unevaluated.contains("has not been evaluated yet"));
    assert!(unevaluated.contains("has come as far as epoch 2: by then it labels 75.00 %"));
    assert!(!unevaluated.contains("Strongest channel"), "a class output has no readings on colours");
}

#[test]
fn comparisons_set_runs_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = two_runs(dir.path());
    write(&dirs[1], "config.toml", "recipe = \"other\"\n\n[data]\nheight = 8\n");
    let scores = dirs[1].join("evaluation/val/scores.json");
    fs::write(&scores, fs::read_to_string(&scores).unwrap().replace("0.875", "0.5")).unwrap();
    let out = dir.path().join("deep/er");
    let compared = compare(&dirs, &out).unwrap();
    assert!(compared.summary.contains("12.50 points") && compared.summary.contains("Time and cost"));
    assert!(!compared.summary.contains("IoU by class"), "what is long is in the files");
    let page = fs::read_to_string(compared.page).unwrap();
    assert_self_contained(&page);
    assert!(page.contains("unet labels 75.00 % of the pixels correctly, 25.00 points more than cgan"));
    assert!(page.contains("<td class=\"best\">75.00</td>"));
    assert_eq!(page.matches("<article").count(), 1, "one image, matched by name");
    assert_eq!(page.matches("<img ").count(), 8, "photo, truth, and two and a confusion matrix for each run");
    assert_eq!(page.matches("<svg").count(), 6, "three losses, two scores, the confidence of the run that has one");
    assert!(page.contains("<th scope=\"row\">data.height</th><td>4</td><td>8</td>"), "where the recipes differ");

    let table = fs::read_to_string(out.join("comparison.md")).unwrap();
    assert!(
        table
            .contains("| unet | **80.00** | **75.00** | 40.00 | **37.50** | 70.00 | **65.00** | best (epoch 2 of 2) |"),
        "{table}"
    );
    assert!(
        table.contains("| cgan | 55.00 | 50.00 | 40.00 | 25.00 | 70.00 | 40.00 | best (epoch 2 of 2) |"),
        "{table}"
    );
    let verdict =
        "cgan is worse than unet by 12.50 points of mean IoU, 95 % interval 12.50 to 12.50, and on 2 of 3 images.";
    assert!(page.contains(verdict) && table.contains(verdict), "{table}");
    let pairs = "| cgan | −12.50 (−12.50 to −12.50) | −25.00 (−25.00 to −25.00) | −25.00 (−25.00 to −25.00) | 0 of 3 (lower on 2) |";
    assert!(table.contains(pairs), "{table}");
    assert!(table.contains("| Road | **87.50** | 50.00 (−37.50) |") && table.contains("| Car | – | – |"), "{table}");
    assert!(table.contains("| 001 | **37.50** | 25.00 |"), "{table}");
    let numbers: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("comparison.json")).unwrap()).unwrap();
    assert_eq!(numbers["runs"][1]["scores"]["pixel_accuracy"], 0.5);
    assert_eq!(numbers["runs"][0]["train"]["pixel_accuracy"], 0.75 + 0.05);
    assert_eq!(numbers["runs"][0]["train_seconds"], 123.0);
    assert_eq!(numbers["differences"][0]["mean_iou"]["difference"], -0.125);
    assert_eq!(numbers["notes"], serde_json::json!([]));
}

#[test]
fn of_many_runs_only_the_comparison_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<PathBuf> = (1..=5).map(|number| dir.path().join(format!("cgan-{number}"))).collect();
    for run in &dirs {
        write_run(run, Output::Colors, 0.5);
    }
    let of = |count: usize| fs::read_to_string(compare(&dirs[..count], &dir.path().join("out")).unwrap().page).unwrap();
    let (folded, table) = ("<summary>Losses <small>10 charts</small></summary>", "Pixel-wise accuracy of cgan-1");
    for (count, tables, is_folded) in [(3, true, false), (4, false, false), (5, false, true)] {
        let page = of(count);
        assert_self_contained(&page);
        assert_eq!(page.contains(table), tables, "{count} runs");
        assert_eq!(page.contains(folded), is_folded, "{count} runs, two losses each");
        assert_eq!(page.contains(">Losses</h3>"), !is_folded, "{count} runs");
        assert_eq!(page.matches("<svg").count(), 2 * count + 2, "nothing is left out");
    }
}

#[test]
fn a_run_shows_its_classes_confusions_and_extremes() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Output::Classes, 0.75);
    let text = page(dir.path());
    let road = "<th scope=\"row\">Road</th><td>87.50</td><td>65.00</td><td>100.00</td><td>65.00</td><td>100.00</td>";
    assert!(text.contains(road), "{text}");
    assert!(text.contains("Expected calibration error: 15.00 %."));
    assert!(text.contains("Images of the lowest mean IoU"));
    let file = image::open(dir.path().join("evaluation/val/confusion.png")).unwrap();
    assert!(file.width() > 11 * 30);
    // A network's uncertainty stands beside its errors, whichever of the two places it was filed in.
    let uncertainty = image::GrayImage::new(4, 4);
    let picture = dir.path().join("evaluation/val/pictures/000");
    uncertainty.save(picture.join("uncertainty.png")).unwrap();
    assert_eq!(page(dir.path()).matches("<img ").count(), 6);
    fs::remove_file(picture.join("uncertainty.png")).unwrap();
    write(&picture, "picture.json", r#"{"name":"a","pixel_accuracy":0.5,"mean_iou":null}"#);
    uncertainty.save(picture.with_file_name("a-uncertainty.png")).unwrap();
    assert_eq!(page(dir.path()).matches("uncertainty of a").count(), 1);
    write(&picture, "picture.json", r#"{"name":"../pictures/a","pixel_accuracy":0.5,"mean_iou":null}"#);
    assert!(!page(dir.path()).contains("uncertainty of"), "a name leads nowhere else");
}

#[test]
fn runs_that_differ_by_their_seed_are_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a", "b", "c"].map(|name| dir.path().join(name));
    for (dir, (seed, accuracy)) in dirs.iter().zip([(1, 0.75), (2, 0.5), (1, 0.625)]) {
        write_run(dir, Output::Classes, accuracy);
        let rate = if dir.ends_with("c") { 2 } else { 1 };
        write(dir, "config.toml", &format!("seed = {seed}\nrate = {rate}\n"));
    }
    compare(&dirs, dir.path()).unwrap();
    let table = fs::read_to_string(dir.path().join("comparison.md")).unwrap();
    assert!(table.contains("| a, b | 2 | 31.25 ± 8.84 | 62.50 ± 17.68 | 52.50 ± 17.68 |"), "{table}");
    assert!(table.contains("| c | 1 | 31.25 | 62.50 | 52.50 |"), "{table}");
    // Of three runs, the two best are held against each other too, unless one of them is what the others are held against.
    let turned = [&dirs[1], &dirs[0], &dirs[2]].map(Clone::clone);
    assert!(compare(&turned, dir.path()).unwrap().summary.contains("a is better than c by 6.25 points"));
    assert!(!table.contains("c is better than b") && table.contains("b is worse than a"), "{table}");
    compare(&dirs[1..], dir.path()).unwrap();
    assert!(!fs::read_to_string(dir.path().join("comparison.md")).unwrap().contains("Seeds of one recipe"));
}

#[test]
fn different_images_are_not_held_against_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = two_runs(dir.path());
    let images = dirs[1].join("evaluation/val/images.jsonl");
    let text = fs::read_to_string(&images).unwrap().replace("002", "003");
    fs::write(&images, text).unwrap();
    compare(&dirs, dir.path()).unwrap();
    let table = fs::read_to_string(dir.path().join("comparison.md")).unwrap();
    assert!(table.contains(
        "> The runs were scored on different images, so they are not compared image by image: cgan and unet."
    ));
    assert!(!table.contains("points of mean IoU"), "{table}");
}

#[test]
fn runs_that_images_do_not_tell_apart_are_not_ranked() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = two_runs(dir.path());
    let images = dirs[1].join("evaluation/val/images.jsonl");
    let text = fs::read_to_string(&images).unwrap();
    let better = text.replace("[[3,3,6],[3,1,10]]", "[[3,3,16]]");
    assert_ne!(text, better);
    fs::write(&images, better).unwrap();
    let summary = compare(&dirs, dir.path()).unwrap().summary;
    // Road's IoU is 11/16 and 7/16 in one image, 10/16 and 1 in the other, where the better run has no building either.
    assert!(summary.contains("cgan and unet cannot be told apart by 3 images: +3.12 points"), "{summary}");
    assert!(summary.contains("95 % interval −12.50 to +68.75, higher on 0 images and lower on 2."), "{summary}");
    assert!(summary.contains("| cgan | +3.12 (−12.50 to +68.75) |"), "{summary}");
}

#[test]
fn evaluations_without_counts_are_compared_without_intervals() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = two_runs(dir.path());
    for run in &dirs {
        let images = run.join("evaluation/val/images.jsonl");
        let lines: Vec<String> =
            (0..3).map(|i| format!("{{\"name\":\"{i}\",\"pixel_accuracy\":0.5,\"mean_iou\":0.5}}\n")).collect();
        fs::write(&images, lines.concat()).unwrap();
    }
    compare(&dirs, dir.path()).unwrap();
    let table = fs::read_to_string(dir.path().join("comparison.md")).unwrap();
    assert!(table.contains("Their pixels by class were not filed"), "{table}");
}

#[test]
fn different_data_and_splits_are_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = two_runs(dir.path());
    write(&dirs[1], "manifest.json", r#"{"data":{"digest":"beef"}}"#);
    fs::remove_dir_all(dirs[1].join("evaluation")).unwrap();
    evaluate(&dirs[1], "test", Output::Colors, 0.5);
    let page = fs::read_to_string(compare(&dirs, dir.path()).unwrap().page).unwrap();
    assert!(
        page.contains("evaluated on different splits, so their scores are not comparable: unet on val, cgan on test.")
    );
    assert!(page.contains("different data (by its digest), so their scores are not comparable: unet 00ff, cgan beef."));
    assert!(page.contains("unet labels 75.00 % of the pixels of its validation set correctly; cgan labels 50.00 %"));
    assert!(!page.contains("class=\"best\""), "scores on different splits are not ranked");

    evaluate(&dirs[0], "test", Output::Classes, 0.6);
    let compared = compare(&dirs, dir.path()).unwrap();
    assert!(!compared.summary.contains("points of mean IoU"), "the data differ, so no run is called better");
    let page = fs::read_to_string(compared.page).unwrap();
    assert!(page.contains("unet labels 60.00 %") && !page.contains("different splits"), "test is what both have");
}

#[test]
fn what_cannot_be_compared_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut dirs = two_runs(dir.path());
    let out = dir.path().join("out");
    let refused = |dirs: &[PathBuf]| compare(dirs, &out).unwrap_err();
    assert!(matches!(refused(&[]), ReportError::NoRuns));

    dirs.push(dir.path().join("tiny"));
    write_run(&dirs[2], Output::Classes, 0.5);
    let two = "name = \"two\"\n[[class]]\nname = \"Road\"\ncolor = [1, 2, 3]\n[[class]]\nname = \"Building\"\ncolor = [4, 5, 6]\n";
    write(&dirs[2], "classes.toml", &format!("{two}[[class]]\nname = \"Car\"\ncolor = [7, 8, 9]\n"));
    // As an evaluation without its details has it.
    let scores = dirs[2].join("evaluation/val/scores.json");
    let mut plain: serde_json::Value = serde_json::from_str(&fs::read_to_string(&scores).unwrap()).unwrap();
    plain["confusion"] = serde_json::json!([]);
    fs::write(&scores, plain.to_string()).unwrap();
    fs::remove_file(dirs[2].join("evaluation/val/images.jsonl")).unwrap();
    let text = refused(&dirs).to_string();
    assert_eq!(text, "tiny: class tables differ from that of unet, so the scores cannot be compared");

    dirs.push(dir.path().join("young"));
    unfinished(&dirs[3]);
    fs::remove_dir_all(dirs[1].join("evaluation")).unwrap();
    assert_eq!(refused(&dirs).to_string(), "cgan, young: not evaluated yet, so there is nothing to compare");
    assert!(!out.exists(), "nothing is written for a refused comparison");
}

#[test]
fn equal_names_are_told_apart_by_their_directories() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a/unet", "b/unet"].map(|name| dir.path().join(name));
    for dir in &dirs {
        write_run(dir, Output::Classes, 0.5);
    }
    compare(&dirs, dir.path()).unwrap();
    let table = fs::read_to_string(dir.path().join("comparison.md")).unwrap();
    assert!(table.contains("a/unet)") && table.contains("b/unet)") && table.contains("both label 50.00 %"), "{table}");
}

#[test]
fn broken_pictures_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), Output::Classes, 0.5);
    let picture = dir.path().join("evaluation/val/pictures/000");
    image::GrayImage::new(3, 4).save(picture.join("truth-labels.png")).unwrap();
    let error = write_page(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("000/truth-labels.png: 3x4, but its photo has 4x4"), "{error}");
    fs::write(picture.join("truth.png"), "text").unwrap();
    let error = write_page(dir.path()).unwrap_err().to_string();
    assert!(error.contains("000/truth.png: not a PNG image"), "{error}");
    fs::remove_file(picture.join("photo.png")).unwrap();
    let error = write_page(dir.path()).unwrap_err().to_string();
    assert!(error.contains("000/photo.png: "), "{error}");
    assert!(!dir.path().join("report.html").exists());
}
