//! Names and recipes of strangers: what they do to the program's files, its messages and its memory.

use std::fs;

use crate::lab::{Lab, said};

/// Names, as bytes, that files may have on Unix.
#[cfg(unix)]
const NAMES: [&[u8]; 6] =
    [b"with space", b"it's \"quoted\"", b"two\nlines", b"<script>alert(1)<", b"byte \xFE", b"byte \xFF"];

#[cfg(unix)]
fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

#[cfg(unix)]
#[test]
fn odd_file_names_are_trained_on_scored_labelled_and_reported() {
    let lab = Lab::new();
    for split in ["train", "val"] {
        for (index, name) in NAMES.iter().enumerate() {
            let file = lab.path("odd").join(split).join(os(&[name, &b".png"[..]].concat()));
            lab.save_pair("pair.png", 64, index as u32);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::rename(lab.path("pair.png"), file).unwrap();
        }
    }
    lab.succeed("train smoke-unet --data odd --run run --set epochs=1");
    lab.succeed("data check odd");
    lab.succeed("evaluate run");
    let lines = fs::read_to_string(lab.path("run/evaluation/val/images.jsonl")).unwrap();
    let mut names: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    let expected = ["<script>alert(1)<", "byte \\xFE", "byte \\xFF", "it's \"quoted\"", "two\\nlines", "with space"];
    assert_eq!(names, expected);
    lab.succeed("compare run --out both");
    for page in ["run/report.html", "both/report.html"] {
        let page = fs::read_to_string(lab.path(page)).unwrap();
        assert!(!page.contains("<script") && page.contains("&#60;script&#62;alert(1)&#60;"));
        assert!(page.contains("byte \\xFE") && page.contains("byte \\xFF"));
    }

    // Each file's labels and overlay go to a name of their own, in the very bytes of the photo's.
    lab.succeed("predict run odd/val --pairs --out out");
    for name in NAMES {
        for suffix in [&b".png"[..], b"-overlay.png"] {
            assert!(lab.path("out").join(os(&[name, suffix].concat())).is_file(), "{}", name.escape_ascii());
        }
    }
    assert_eq!(fs::read_dir(lab.path("out")).unwrap().count(), 2 * NAMES.len());
}

#[cfg(unix)]
#[test]
fn errors_on_odd_file_names_are_one_line_each() {
    let lab = Lab::new();
    lab.train("run");
    for name in [&b"two\nerror: lines\x1B[2J.png"[..], b"\xFE.png", b"\xFF.png"] {
        fs::write(lab.path("pairs/train").join(os(name)), "no image").unwrap();
    }
    let shown = [r"two\nerror: lines\u{1b}[2J.png", r"\xFE.png", r"\xFF.png"];
    let checked = lab.run("data check pairs");
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    let predicted = lab.run("predict run pairs/train --out out");
    assert_eq!(predicted.code, Some(1), "{}", predicted.stderr);
    for (text, begin) in [(&checked.stdout, "  broken: "), (&predicted.stderr, "error: ")] {
        for name in shown {
            let line = format!("{begin}pairs/train/{name}: not a PNG or JPEG image");
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with(begin)).count(), 3, "{text}");
    }
}

#[cfg(unix)]
#[test]
fn errors_of_a_run_directory_with_a_line_break_are_one_line_each() {
    let lab = Lab::new();
    lab.train("run");
    let (name, shown) = ("two\nerror: lines\x1B[2J", r"two\nerror: lines\u{1b}[2J");
    fs::rename(lab.path("run"), lab.path(name)).unwrap();
    let with = |arguments: &[&str]| {
        let mut command = lab.command("");
        command.args(arguments);
        said(command)
    };
    let fails = |arguments: &[&str], begin: &str| {
        let said = with(arguments);
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(said.error().starts_with(&format!("{shown}{begin}")), "{}", said.stderr);
        for text in [&said.stderr, &said.stdout] {
            assert!(!text.contains('\x1B') && text.lines().filter(|line| line.starts_with("error: ")).count() <= 1);
        }
        assert_eq!(said.error().lines().count(), 1, "{}", said.stderr);
    };
    let train = ["train", "smoke-unet", "--data", "pairs", "--run", name];
    let resume = [&train[..], &["--resume"]].concat();
    let evaluate = ["evaluate", name];
    let predict = ["predict", name, "pairs/val", "--pairs", "--out", "out"];
    fails(&train, ": the run exists; ");
    let weights = format!("{name}/none.safetensors");
    fails(&["train", "smoke-unet", "--data", "pairs", "--run", "other", "--weights", &weights], "/none.safetensors: ");
    fails(&["train", &format!("{name}/none.toml"), "--data", "pairs"], "/none.toml: ");
    fails(&["data", "check", "pairs", "--classes", &format!("{name}/none.toml")], "/none.toml: neither ");
    fails(&["compare", name, "--out", &format!("{name}/config.toml/out")], "/config.toml/out");
    let manifest = lab.path(name).join("manifest.json");
    let recorded = fs::read_to_string(&manifest).unwrap();
    let other = recorded.replace("\"device\": \"", "\"device\": \"a\\nb ");
    assert_ne!(recorded, other);
    fs::write(&manifest, &other).unwrap();
    fails(&[&train[..4], &["--run", "again", "--repeats", name, "--set", "epochs=1"]].concat(), "/manifest.json: ");
    fs::write(&manifest, "{").unwrap();
    fails(&evaluate, "/manifest.json: ");
    fs::remove_file(&manifest).unwrap();
    let warned = with(&[&resume[..], &["--until", "1"]].concat());
    assert!(warned.stderr.lines().all(|line| !line.starts_with("error: lines")), "{}", warned.stderr);
    fs::remove_file(&manifest).unwrap();
    fails(&evaluate, "/manifest.json: names no data; ");
    fs::write(lab.path(name).join("checkpoints/best/progress.json"), "{").unwrap();
    fails(&predict, "/checkpoints/best/progress.json: ");
    fs::remove_dir_all(lab.path(name).join("checkpoints")).unwrap();
    fails(&predict, "/checkpoints/best: there is no such checkpoint");
    fs::write(lab.path(name).join("classes.toml"), "name = 1").unwrap();
    fails(&evaluate, "/");
    fs::write(lab.path(name).join("config.toml"), "epochs").unwrap();
    let said = with(&resume);
    assert!(said.error().starts_with(&format!("{shown}/config.toml: ")), "{}", said.stderr);
    fs::remove_file(lab.path(name).join("classes.toml")).unwrap();
    fails(&resume, ": not a run directory (classes.toml is missing)");
}

#[cfg(unix)]
#[test]
fn links_in_circles_come_to_an_end() {
    use std::os::unix::fs::symlink;
    let lab = Lab::new();
    lab.train("run");
    symlink("..", lab.path("pairs/val/up")).unwrap();
    symlink(".", lab.path("pairs/val/self.png")).unwrap();
    lab.succeed("data check pairs");
    lab.succeed("predict run pairs/val/0.png pairs/val/1.png --pairs --out out");
    let said = lab.run("predict run pairs --pairs --out all");
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("pairs/val/self.png: not a regular file"), "{}", said.stderr);
    assert!(lab.path("all/val/1.png").is_file() && !lab.path("all/val/up").exists());
    symlink("b.png", lab.path("pairs/val/a.png")).unwrap();
    symlink("a.png", lab.path("pairs/val/b.png")).unwrap();
    let error = lab.run("data check pairs").stdout;
    assert!(error.contains("broken: pairs/val/a.png: ") && error.contains("broken: pairs/val/b.png: "), "{error}");
}

#[test]
fn samples_of_one_name_are_refused() {
    let lab = Lab::new();
    fs::copy(lab.path("pairs/val/0.png"), lab.path("pairs/val/0.jpg")).unwrap();
    let error = lab.fail(1, "train smoke-unet --data pairs --run run --set epochs=1");
    assert_eq!(error, "pairs/val/0.png: has the same name as pairs/val/0.jpg");
}

#[test]
fn predictions_never_overwrite_each_other() {
    let lab = Lab::new();
    lab.train("run");
    fs::copy(lab.path("pairs/val/0.png"), lab.path("pairs/val/0-overlay.png")).unwrap();
    let error = lab.fail(2, "predict run pairs/val --pairs --out out");
    let (one, other) = ("pairs/val/0-overlay.png", "pairs/val/0.png");
    assert_eq!(error, format!("{one} and {other}: both would be written to one file"));
    assert!(!lab.path("out").exists());
}

/// Each is refused by its key, at once and without the memory that it asks for: the program has 3 GB of addresses.
#[cfg(target_os = "linux")]
#[test]
fn absurd_recipes_are_refused_by_their_key() {
    let lab = Lab::new();
    let network = "task.segmentation.network.unet.base_channels";
    let cases = [
        ("data.height=1000000000", "data.height"),
        ("data.width=9223372036854775807", "data.width"),
        ("data.batch_size=1000000000000", "data.batch_size"),
        ("data.batch_size=-1", "batch_size"),
        ("data.cache_mib=1e30", "cache_mib"),
        ("epochs=9223372036854775807", "epochs"),
        ("epochs=9223372036854775808", "epochs"),
        ("epochs=inf", "epochs"),
        ("evaluation.samples=1000000000", "evaluation.samples"),
        ("schedule.warmup_epochs=nan", "schedule.warmup_epochs"),
        ("schedule.warmup_epochs=-inf", "schedule.warmup_epochs"),
        ("task.segmentation.optimizer.adam.learning_rate=nan", "task.segmentation.optimizer.adam.learning_rate"),
        ("task.segmentation.optimizer.adam.beta1=1e999", "beta1"),
        ("task.segmentation.network.unet.base_channels=1000000000", network),
        ("task.segmentation.network.unet.base_channels=0", "base_channels"),
        ("data.augment.flip=nan", "data.augment.flip"),
        ("data.streets.train=1000000000000", "streets.train"),
        ("recipe='../../elsewhere'", "recipe"),
        ("recipe='a\u{1b}[2J'", "recipe"),
        ("data.classes='/dev/zero'", "/dev/zero"),
        ("=1", "the key is empty"),
        ("..=1", "the key is empty"),
        ("a.b.c.d=[[[[[[[[", "not a TOML value"),
        ("epochs='", "not a TOML value"),
        ("epochs=1\n[data]", "is not one value"),
        ("epochs=\u{202e}1", "epochs"),
    ];
    for (setting, key) in cases {
        let mut command = std::process::Command::new("bash");
        let script = "ulimit -v 3000000; exec \"$0\" train smoke-unet --data pairs --run run --threads 1 --set \"$1\"";
        command.args(["-c", script, env!("CARGO_BIN_EXE_img2seg"), setting]);
        lab.prepare(&mut command);
        let said = said(command);
        assert!(matches!(said.code, Some(1 | 2)), "{setting}: {:?}\n{}", said.code, said.stderr);
        let error = said.error();
        assert!(error.contains(key), "{setting}: {error}");
        assert!(!lab.path("run/checkpoints").exists());
    }
}

#[test]
fn absurd_widths_of_an_adversarial_recipe_are_refused_by_their_key() {
    let lab = Lab::new();
    for key in ["generator.lab.base_channels", "generator.lab.noise_channels", "discriminator.lab.base_channels"] {
        let error = lab.fail(1, &format!("train smoke-cgan --data pairs --set task.adversarial.{key}=1000000000"));
        assert_eq!(error, format!("smoke-cgan: task.adversarial.{key}: 1000000000 is more than 512"));
    }
}

#[test]
fn files_of_absurd_toml_are_refused() {
    let lab = Lab::new();
    let nested = format!("seed = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let tables = format!("[{}a]\n", "a.".repeat(100_000));
    let huge = format!("# {}\n", "x".repeat(2 << 20));
    for (name, text) in [("nested", &nested), ("tables", &tables), ("huge", &huge)] {
        lab.write(&format!("{name}.toml"), text);
        let error = lab.fail(1, &format!("train {name}.toml --data pairs"));
        assert!(error.starts_with(&format!("{name}.toml: ")), "{error:.200}");
        let error = lab.fail(1, &format!("data check pairs --classes {name}.toml"));
        assert!(error.starts_with(&format!("{name}.toml:")), "{error:.200}");
    }
    let error = lab.fail(1, "train huge.toml --data pairs");
    assert_eq!(error, "huge.toml: 1048577 bytes, a recipe has at most 1048576");
    let error = lab.fail(1, "data check pairs --classes huge.toml");
    assert_eq!(
        error,
        "huge.toml: neither a built-in class table (cityscapes, camvid) nor a file that can be read: more than 1048576 bytes long"
    );
    #[cfg(unix)]
    assert_eq!(lab.fail(1, "train /dev/zero"), "/dev/zero: 1048577 bytes, a recipe has at most 1048576");
    lab.write("bytes.toml", b"seed = \xFF");
    assert!(lab.fail(1, "train bytes.toml --data pairs").starts_with("bytes.toml: "));
}
