//! Runs of strangers: what a name or a text of theirs can do to a page, and what their numbers can.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;

use super::*;

/// Ends tags, comments, attributes and style sheets, and begins scripts.
const TEXTS: [&str; 6] = [
    "</style></pre></title>--><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "&lt;b&gt;&#60;script&#62; {{ 7 * 7 }} {% include \"x\" %}",
    "line\nbreak\u{0}\u{1b}[2J\u{202e}",
    "<svg/onload=alert(1)><!--",
];

/// A page's tags, each with its attributes' names, and its texts.
#[derive(Default)]
struct Parsed {
    tags: BTreeSet<String>,
    attributes: BTreeSet<String>,
    texts: String,
}

const VOID_TAGS: [&str; 5] = ["meta", "link", "img", "br", "hr"];

/// Reads HTML as strictly as XML: every tag is closed in its order, every value of an attribute is quoted, every `<` begins a tag.
fn parse(page: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut open = Vec::new();
    let mut rest = page.trim().strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((text, after)) = rest.split_once('<') {
        assert!(!text.contains('>'), "a stray > in {text:?}");
        parsed.texts += text;
        if let Some(end) = after.strip_prefix('/') {
            let (name, after) = end.split_once('>').unwrap();
            assert_eq!(open.pop().as_deref(), Some(name), "closed in another order");
            rest = after;
            continue;
        }
        let length = after.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap();
        let (name, mut inside) = after.split_at(length);
        assert!(!name.is_empty(), "no tag: <{after:.40}");
        parsed.tags.insert(name.to_owned());
        let closes_itself = loop {
            inside = inside.trim_start();
            if let Some(after) = inside.strip_prefix("/>") {
                rest = after;
                break true;
            }
            if let Some(after) = inside.strip_prefix('>') {
                rest = after;
                break VOID_TAGS.contains(&name);
            }
            let (attribute, value) = inside.split_once("=\"").unwrap();
            assert!(
                attribute.chars().all(|letter| letter.is_ascii_alphanumeric() || "-:".contains(letter)),
                "{attribute:.40}"
            );
            parsed.attributes.insert(attribute.to_lowercase());
            let (value, after) = value.split_once('"').unwrap();
            assert!(!value.contains(['<', '>']), "{value:.80}");
            inside = after;
        };
        if !closes_itself {
            if name == "style" {
                rest = rest.split_once("</style>").unwrap().1;
            } else {
                open.push(name.to_owned());
            }
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    parsed
}

/// Texts of a value become hostile, but for those that say what kind of thing it is.
fn poison(value: &mut Value, next: &mut impl FnMut() -> String) {
    match value {
        Value::String(text) if !["val", "train"].contains(&text.as_str()) => *text = next(),
        Value::Array(values) => values.iter_mut().for_each(|value| poison(value, next)),
        Value::Object(map) => map.iter_mut().for_each(|(_, value)| poison(value, next)),
        _ => {}
    }
}

fn poison_file(path: &Path, next: &mut impl FnMut() -> String) {
    let text = fs::read_to_string(path).unwrap();
    let poisoned = text.lines().map(|line| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        poison(&mut value, next);
        rename_class(&mut value);
        value.to_string() + "\n"
    });
    fs::write(path, poisoned.collect::<String>()).unwrap();
}

fn rename_class(value: &mut Value) {
    if let Value::Object(map) = value {
        for key in ["class_iou", "class_boundary_f1", "class_precision", "class_recall"] {
            if let Some(Value::Object(classes)) = map.get_mut(key) {
                let score = classes.remove("Road").unwrap();
                classes.insert(TEXTS[0].to_owned(), score);
            }
        }
        map.iter_mut().for_each(|(_, value)| rename_class(value));
    }
}

/// A run whose every name and text is hostile, in a directory whose name is as well.
fn hostile_run(root: &Path, name: &str) -> PathBuf {
    let dir = root.join(name);
    write_run(&dir, Output::Colors, 0.75);
    let mut count = 0;
    let mut next = || {
        count += 1;
        TEXTS[count % TEXTS.len()].to_owned()
    };
    for file in [
        "metrics.jsonl",
        "evaluation/val/scores.json",
        "evaluation/val/images.jsonl",
        "evaluation/val/pictures/000/picture.json",
    ] {
        poison_file(&dir.join(file), &mut next);
    }
    let manifest: Value = serde_json::from_str(&fs::read_to_string(dir.join("manifest.json")).unwrap()).unwrap();
    let mut poisoned = manifest.clone();
    poison(&mut poisoned, &mut next);
    for text in TEXTS {
        poisoned[text] = Value::from(text);
        poisoned["parameters"][text] = Value::from(u64::MAX);
    }
    write(&dir, "manifest.json", &poisoned.to_string());
    let quoted = |text: &str| toml::Value::from(text).to_string();
    write(&dir, "config.toml", &format!("recipe = {}\n{} = {}\n", quoted(TEXTS[0]), quoted(TEXTS[1]), quoted(name)));
    let table = fs::read_to_string(dir.join("classes.toml")).unwrap();
    let renamed = table.replace("name = \"Road\"", &format!("name = {}", quoted(TEXTS[0])));
    assert_ne!(table, renamed);
    let named = renamed.replacen(table.lines().next().unwrap(), &format!("name = {}", quoted(TEXTS[1])), 1);
    write(&dir, "classes.toml", &named);
    let losses = fs::read_to_string(dir.join("losses.txt")).unwrap();
    write(
        &dir,
        "losses.txt",
        &losses.replace("generator discriminator", "<script>alert(1)</script> \"onload=\"alert(1)"),
    );
    dir
}

fn assert_harmless(page: &str) {
    assert_self_contained(page);
    let parsed = parse(page);
    let plain = tempfile::tempdir().unwrap();
    let mut dirs = two_runs(plain.path());
    dirs.truncate(2);
    let compared = fs::read_to_string(compare(&dirs, &plain.path().join("out")).unwrap().page).unwrap();
    let (alone, beside) = (parse(&self::page(&dirs[1])), parse(&compared));
    let tags: BTreeSet<_> = alone.tags.union(&beside.tags).cloned().collect();
    let attributes: BTreeSet<_> = alone.attributes.union(&beside.attributes).cloned().collect();
    assert!(parsed.tags.is_subset(&tags), "{:?}", parsed.tags.difference(&tags));
    assert!(parsed.attributes.is_subset(&attributes), "{:?}", parsed.attributes.difference(&attributes));
    assert!(!attributes.iter().any(|name| name.starts_with("on")) && !tags.contains("script"));
    for text in [
        "&#60;/style&#62;&#60;/pre&#62;&#60;/title&#62;--&#62;&#60;script&#62;",
        "&#34;&#62;&#60;img src=x onerror",
        "&#39; onmouseover=&#39;",
        "&#38;lt;b",
    ] {
        assert!(parsed.texts.contains(text), "{text} is shown as what it is");
    }
}

#[test]
fn a_strict_reader_tells_pages_from_injections() {
    let parsed = parse("<!DOCTYPE html><p class=\"a\">x<br>y</p><svg><circle r=\"1\"/></svg>");
    assert_eq!(parsed.tags.len(), 4);
    for broken in [
        "<!DOCTYPE html><p>a < b</p>",
        "<!DOCTYPE html><p><b></p></b>",
        "<!DOCTYPE html><p a=b>x</p>",
        "<!DOCTYPE html><p>",
    ] {
        assert!(std::panic::catch_unwind(|| parse(broken)).is_err(), "{broken}");
    }
}

#[test]
fn every_name_and_text_of_a_run_is_escaped() {
    let root = tempfile::tempdir().unwrap();
    let names = ["a<script>alert(1)<", "b\" onload=\"alert(1)", "c\n'&|*_`"];
    let dirs = names.map(|name| hostile_run(root.path(), name));
    for dir in &dirs {
        assert_harmless(&page(dir));
    }
    let out = root.path().join("out");
    assert_harmless(&fs::read_to_string(compare(&dirs, &out).unwrap().page).unwrap());

    let table = fs::read_to_string(out.join("comparison.md")).unwrap();
    assert!(!table.contains('<') && !table.contains("\n'"), "{table}");
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let tables: Vec<&str> = table.split("\n\n").filter(|part| part.starts_with('|')).collect();
    assert!(tables.len() >= 2);
    for table in tables {
        assert!(table.lines().all(|line| cells(line) == cells(table.lines().next().unwrap())), "{table}");
    }
    let numbers: Value = serde_json::from_str(&fs::read_to_string(out.join("comparison.json")).unwrap()).unwrap();
    assert_eq!(numbers["runs"].as_array().unwrap().len(), 3);
}

#[cfg(unix)]
#[test]
fn runs_whose_names_are_not_utf8_are_told_apart() {
    use std::os::unix::ffi::OsStrExt as _;
    let root = tempfile::tempdir().unwrap();
    let dirs = [b"run-\xFE", b"run-\xFF"].map(|name| root.path().join(std::ffi::OsStr::from_bytes(name)));
    for dir in &dirs {
        write_run(dir, Output::Classes, 0.75);
    }
    compare(&dirs, &root.path().join("out")).unwrap();
    let table = fs::read_to_string(root.path().join("out/comparison.md")).unwrap();
    assert!(table.contains("| run-\\\\xFE |") && table.contains("| run-\\\\xFF |"), "{table}");
}

/// Numbers that JSON can hold and no training would write.
#[test]
fn absurd_numbers_make_a_page_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    for (index, number) in ["1.7e308", "-1.7e308", "1e-320", "18446744073709551615", "-0.0"].into_iter().enumerate() {
        let dir = root.path().join(index.to_string());
        write_run(&dir, Output::Colors, 0.75);
        for file in
            ["metrics.jsonl", "times.jsonl", "evaluation/val/scores.json", "evaluation/val/pictures/000/picture.json"]
        {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            let replaced: String = text
                .split_inclusive([',', '}'])
                .map(|part| {
                    let (key, value) = part.rsplit_once(':').unwrap_or((part, ""));
                    let is_count =
                        ["epoch", "step", "images", "pixels"].iter().any(|key_| key.ends_with(&format!("\"{key_}\"")));
                    let end = value.chars().last().unwrap_or(' ');
                    let is_number = value.starts_with(|first: char| first.is_ascii_digit());
                    if is_number && (!is_count || number.starts_with("18446")) {
                        format!("{key}:{number}{end}")
                    } else {
                        part.to_owned()
                    }
                })
                .collect();
            assert_ne!(text, replaced, "{file}");
            fs::write(dir.join(file), replaced).unwrap();
        }
        write(
            &dir,
            "losses.txt",
            "# epoch step generator\n1 1 3.4e38\n1 2 -3.4e38\n1 18446744073709551615 NaN\n1 4 inf\n",
        );
        let started = Instant::now();
        parse(&page(&dir));
        assert!(started.elapsed().as_secs() < 60, "{number}");
    }
}

#[test]
fn pictures_that_claim_too_much_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    write_run(root.path(), Output::Classes, 0.5);
    let photo = root.path().join("evaluation/val/pictures/000/photo.png");
    // The header of 100000x100000 pixels, with its checksum.
    let header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\x86\xA0\0\x01\x86\xA0\x08\x02\0\0\0";
    fs::write(&photo, header).unwrap();
    let error = write_page(root.path()).unwrap_err().to_string();
    assert!(error.contains("000/photo.png: "), "{error}");
    // Nor does a picture of another kind pass for a PNG.
    fs::write(&photo, b"<svg onload='alert(1)'/>").unwrap();
    let error = write_page(root.path()).unwrap_err().to_string();
    assert!(error.ends_with("000/photo.png: not a PNG image"), "{error}");
}
