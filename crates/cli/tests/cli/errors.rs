//! What goes wrong gives one error that names the file or the key, and the exit code 2 for usage, 1 otherwise.

use std::fs;

use crate::lab::{Lab, label};

/// Trains on `data`, which has to fail with one line that starts with `thing` and leaves a checkpoint only of steps that it took.
fn refused(lab: &Lab, data: &str, thing: &str) -> String {
    let run = format!("run-on-{}", data.replace('/', "-"));
    let error = lab.fail(1, &format!("train smoke-unet --data {data} --run {run} --set epochs=1"));
    assert!(error.starts_with(thing), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let (learned, saved) = ["losses.txt", "checkpoints"].map(|name| lab.path(&run).join(name).exists()).into();
    assert_eq!(learned, saved, "steps were taken, a checkpoint was made");
    error
}

#[test]
fn usage_has_its_own_exit_code() {
    let lab = Lab::new();
    for (arguments, named) in [
        ("", "Usage"),
        ("trian", "trian"),
        ("train", "RECIPE"),
        ("train quickstrat", "quickstrat"),
        ("train smoke-unet --data pairs --epochs 3", "--epochs"),
        ("train smoke-unet --data pairs --device tpu", "tpu"),
        ("train smoke-unet --data pairs --threads 0", "--threads"),
        ("train smoke-unet --data pairs --set data.batchsize=4", "batchsize"),
        ("train smoke-unet --data pairs --set data.batch_size=many", "batch_size"),
        ("train smoke-unet --data pairs --set epochs", "epochs"),
        ("train smoke-unet --data pairs --set exactness=exact", "exactness"),
        ("train camvid-unet", "--data"),
        ("find-lr", "RECIPE"),
        ("find-lr smoke-unet --data pairs --from 0", "--from 0"),
        ("find-lr smoke-unet --data pairs --from 1e-2 --to 1e-3", "--to 0.001"),
        ("find-lr smoke-unet --data pairs --steps 3", "--steps 3"),
        ("evaluate run --split tset", "tset"),
        ("predict run", "--out"),
        ("compare --out out", "RUNS"),
    ] {
        let said = lab.run(arguments);
        assert_eq!(said.code, Some(2), "img2seg {arguments}\n{}", said.stderr);
        assert!(said.stderr.contains(named), "img2seg {arguments}\n{}", said.stderr);
        assert!(!lab.path("run").exists());
    }
}

#[test]
fn a_pair_of_odd_width_is_named() {
    let lab = Lab::new();
    image::RgbImage::new(129, 32).save(lab.path("pairs/train/odd.png")).unwrap();
    let error = refused(&lab, "pairs", "pairs/train/odd.png: ");
    assert!(error.contains("129x32"), "{error}");
}

#[test]
fn a_truncated_jpeg_is_named() {
    let lab = Lab::new();
    let whole = lab.path("whole.jpg");
    image::RgbImage::from_fn(128, 32, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8])).save(&whole).unwrap();
    let bytes = fs::read(whole).unwrap();
    lab.write("pairs/train/short.jpg", &bytes[..bytes.len() / 2]);
    refused(&lab, "pairs", "pairs/train/short.jpg: ");
}

#[test]
fn a_text_that_is_named_like_a_picture_is_named() {
    let lab = Lab::new();
    lab.write("pairs/val/note.jpg", "not a picture\n");
    refused(&lab, "pairs", "pairs/val/note.jpg: ");
}

#[test]
fn an_empty_split_is_named() {
    let lab = Lab::new();
    fs::remove_dir_all(lab.path("pairs/val")).unwrap();
    fs::create_dir(lab.path("pairs/val")).unwrap();
    refused(&lab, "pairs", "pairs/val: ");
}

#[test]
fn a_mask_with_an_unknown_index_is_named() {
    let lab = Lab::new();
    for split in ["train", "val"] {
        lab.save_masked("folders", split, "good", label);
    }
    lab.save_masked("folders", "train", "wrong", |position| if position == 2 { 201 } else { 0 });
    let error = refused(&lab, "folders", "folders/train/masks/wrong.png: ");
    assert!(error.contains("201"), "{error}");
}

#[test]
fn a_mistyped_key_of_a_recipe_is_named() {
    let lab = Lab::new();
    let recipe = lab.succeed("recipes smoke-unet").stdout;
    lab.write("mine.toml", recipe.replace("batch_size", "batchsize"));
    let error = lab.fail(1, "train mine.toml --data pairs");
    assert!(error.starts_with("mine.toml: ") && error.contains("batchsize"), "{error}");
    assert!(!lab.path("runs").exists());
}

#[test]
fn sizes_that_a_network_cannot_take_are_refused_with_those_that_it_can() {
    let lab = Lab::new();
    let error = lab.fail(1, "train smoke-unet --data pairs --set data.height=31");
    assert!(error.contains("64x31") && error.contains("64x32"), "{error}");
    assert!(!lab.path("runs").exists());
}

#[test]
fn data_and_recipes_that_are_not_there_are_named() {
    let lab = Lab::new();
    refused(&lab, "nowhere", "nowhere: ");
    refused(&lab, "pairs/train/0.png", "pairs/train/0.png");
    assert!(lab.fail(1, "train nowhere.toml").starts_with("nowhere.toml: "));
    assert!(lab.fail(1, "evaluate nowhere").starts_with("nowhere: "));
    assert!(lab.fail(1, "compare pairs --out out").starts_with("pairs: "));
}

#[test]
fn a_run_directory_that_exists_is_left_alone() {
    let lab = Lab::new();
    lab.write("run/thesis.txt", "years of work");
    let error = lab.fail(1, "train smoke-unet --data pairs --run run");
    assert!(error.starts_with("run: "), "{error}");
    assert_eq!(fs::read_dir(lab.path("run")).unwrap().count(), 1);

    lab.train("runs/done");
    let before = crate::lab::files_below(&lab.path("runs/done"));
    let error = lab.fail(1, "train smoke-unet --data pairs --run runs/done");
    assert!(error.starts_with("runs/done: ") && error.contains("--resume"), "{error}");
    assert!(crate::lab::files_below(&lab.path("runs/done")) == before, "the run was changed");
}

/// A symbolic link to itself: unlike a file without permissions, root cannot read it either.
#[cfg(unix)]
#[test]
fn what_cannot_be_read_is_named() {
    let lab = Lab::new();
    std::os::unix::fs::symlink("loop.png", lab.path("pairs/train/loop.png")).unwrap();
    refused(&lab, "pairs", "pairs/train/loop.png: ");
    std::os::unix::fs::symlink("loop", lab.path("loop")).unwrap();
    refused(&lab, "loop", "loop");
    fs::create_dir(lab.path("folder.toml")).unwrap();
    assert!(lab.fail(1, "train folder.toml --data pairs").starts_with("folder.toml: "));
}

#[cfg(unix)]
#[test]
fn what_cannot_be_written_is_named() {
    let lab = Lab::new();
    lab.write("file", "in the way");
    let error = lab.fail(1, "train smoke-unet --data pairs --run file/run");
    assert!(error.starts_with("file/run: Not a directory"), "{error}");
    lab.train("run");
    for arguments in [
        "predict run pairs/val --pairs --out file/out",
        "compare run --out file/out",
        "data show pairs --out file/sheet.png",
    ] {
        let said = lab.run(arguments);
        assert_eq!(said.code, Some(1), "img2seg {arguments}\n{}", said.stderr);
        assert!(said.stderr.contains("error: file/"), "img2seg {arguments}\n{}", said.stderr);
    }
}

/// A file size limit stands in for a full disk, which takes a file system of its own: writes fail in the same calls.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_checkpoint() {
    let lab = Lab::new();
    // Weights fit, the optimiser's two moments a weight do not.
    lab.train("reference");
    let weights = fs::metadata(lab.path("reference/checkpoints/last/weights.safetensors")).unwrap().len();
    let mut command = std::process::Command::new("bash");
    let limit = 3 * weights / 2 / 1024;
    let script =
        format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" train smoke-unet --data pairs --run run --set epochs=1");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_img2seg")]);
    lab.prepare(&mut command);
    let said = crate::lab::said(command);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let error = said.error();
    assert!(error.starts_with("run/checkpoints/best/optimizer.safetensors: "), "{error}");
    let left = crate::lab::files_below(&lab.path("run/checkpoints"));
    assert!(left.is_empty(), "{:?}", left.iter().map(|(path, _)| path).collect::<Vec<_>>());
}
