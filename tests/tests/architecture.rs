//! The tree keeps to `docs/architecture.md`: its import table, its map, and the rules that no compiler knows.
//!
//! Each rule is a function from texts to complaints, shown to complain about a bad example before it is asked about the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn architecture() -> String {
    read("docs/architecture.md")
}

/// The names of the folders in `crates`.
fn crates() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("crates")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Every Rust file of the crates' sources, as `crates/NAME/src/...`, with its text.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = crates().iter().map(|name| Path::new("crates").join(name).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push((path.to_str().unwrap().replace('\\', "/"), read(&path)));
            }
        }
    }
    assert!(sources.len() > crates().len(), "the sources were not found");
    sources
}

// ---- the import table ----

/// What a crate depends on: crates of ours without their prefix, and all others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Imports {
    ours: BTreeSet<String>,
    others: BTreeSet<String>,
}

/// The rows below `| crate | ours | others | ...`; a dash stands for nothing.
fn import_table(markdown: &str) -> BTreeMap<String, Imports> {
    let rows = markdown.lines().skip_while(|line| !line.starts_with("| crate | ours | others |"));
    let cells = |line: &str| -> Vec<String> { line.split('|').skip(1).map(|cell| cell.trim().to_owned()).collect() };
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split(',').map(|name| name.trim().to_owned()).filter(|name| !["", "-"].contains(&name.as_str())).collect()
    };
    rows.skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .map(|cells| (cells[0].clone(), Imports { ours: names(&cells[1]), others: names(&cells[2]) }))
        .collect()
}

/// The names under `[dependencies]` and every `[target.*.dependencies]`, or under their `dev-` relatives.
fn imports(manifest: &str, section: &str) -> Imports {
    let manifest: toml::Table = manifest.parse().unwrap();
    let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    let tables = std::iter::once(manifest.get(section)).chain(targets.map(|target| target.get(section)));
    let mut imports = Imports::default();
    for name in tables.flatten().filter_map(toml::Value::as_table).flat_map(toml::Table::keys) {
        match name.strip_prefix("img2seg-") {
            Some(ours) => imports.ours.insert(ours.to_owned()),
            None => imports.others.insert(name.clone()),
        };
    }
    imports
}

/// Differences between the table and the manifests, given by the crate's name in the table.
fn import_complaints(table: &BTreeMap<String, Imports>, manifests: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in table.keys().filter(|name| !manifests.contains_key(*name)) {
        complaints.push(format!("{name}: in the import table, but there is no such crate"));
    }
    for (name, manifest) in manifests {
        let Some(allowed) = table.get(name) else {
            complaints.push(format!("{name}: not in the import table"));
            continue;
        };
        let found = imports(manifest, "dependencies");
        let in_tests = imports(manifest, "dev-dependencies");
        for (kind, allowed, found) in [("ours", &allowed.ours, &found.ours), ("others", &allowed.others, &found.others)]
        {
            for extra in found.difference(allowed) {
                complaints.push(format!("{name}: imports {extra}, which the table does not grant it ({kind})"));
            }
            for unused in allowed.difference(found) {
                complaints.push(format!("{name}: does not import {unused}, which the table lists ({kind})"));
            }
        }
        for extra in in_tests.ours.difference(&allowed.ours).filter(|ours| *ours != name) {
            complaints.push(format!("{name}: imports {extra} in its tests, which the table does not grant it (ours)"));
        }
    }
    complaints
}

#[test]
fn a_wrong_import_table_is_noticed() {
    let table = import_table(
        "text\n\n| crate | ours | others | must never know |\n|---|---|---|---|\n| ops | - | candle-core, rayon | x |\n\
         | models | ops | - | y |\n| ghost | - | - | z |\n\nmore text\n",
    );
    assert_eq!(table.len(), 3);
    let manifests = BTreeMap::from(
        [
            ("ops", "[dependencies]\nclap = '4'\ncandle-core = '1'\n[dev-dependencies]\nimg2seg-models = '1'\nproptest = '1'"),
            ("models", "[target.'cfg(unix)'.dependencies]\nimg2seg-data = { path = '../data' }\nimg2seg-ops = '1'"),
            ("new", ""),
        ]
        .map(|(name, manifest)| (name.to_owned(), manifest.to_owned())),
    );
    assert_eq!(
        import_complaints(&table, &manifests),
        [
            "ghost: in the import table, but there is no such crate",
            "models: imports data, which the table does not grant it (ours)",
            "new: not in the import table",
            "ops: imports clap, which the table does not grant it (others)",
            "ops: does not import rayon, which the table lists (others)",
            "ops: imports models in its tests, which the table does not grant it (ours)",
        ]
    );
}

#[test]
fn crates_import_what_the_table_grants() {
    let mut manifests: BTreeMap<String, String> =
        crates().into_iter().map(|name| (name.clone(), read(format!("crates/{name}/Cargo.toml")))).collect();
    manifests.insert("xtask".to_owned(), read("xtask/Cargo.toml"));
    let complaints = import_complaints(&import_table(&architecture()), &manifests);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

// ---- the map ----

/// Crates and files that the page names and the tree lacks, and crates that have no heading.
///
/// A crate's heading is ``### `crates/NAME` ``; below it, names in backticks that end in `.rs` or `/` are looked up in its `src`.
fn map_complaints(markdown: &str, crates: &BTreeSet<String>, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut headings = BTreeSet::new();
    let mut section = None;
    for line in markdown.lines() {
        if line.starts_with('#') {
            section = line.strip_prefix("### `crates/").and_then(|rest| rest.split('`').next());
            headings.extend(section.map(str::to_owned));
        }
        for name in line.split("img2seg-").skip(1).chain(line.split("crates/").skip(1)) {
            let name: String = name.chars().take_while(char::is_ascii_lowercase).collect();
            if !name.is_empty() && name != "tests" && !crates.contains(&name) {
                complaints.push(format!("{name}: named as a crate, but there is none"));
            }
        }
        let Some(name) = section else { continue };
        for quoted in line.split('`').skip(1).step_by(2) {
            let path = format!("crates/{name}/src/{quoted}");
            let is_path =
                quoted.ends_with('/') || Path::new(quoted).extension().is_some_and(|extension| extension == "rs");
            if is_path && !quoted.starts_with("crates/") && !exists(&path) {
                complaints.push(format!("{path}: named on the map, but there is none"));
            }
        }
    }
    complaints.extend(crates.difference(&headings).map(|name| format!("crates/{name}: has no heading")));
    complaints
}

#[test]
fn a_wrong_map_is_noticed() {
    let crates = ["data", "ops"].map(str::to_owned).into();
    let markdown = "## Crates\n### `crates/ops`\n`adam.rs`, `conv2d/`, `cargo test`, `lost.rs`\n## Other\n`elsewhere.rs`\nimg2seg-core\n";
    let complaints = map_complaints(markdown, &crates, |path| !path.contains("lost"));
    assert_eq!(
        complaints,
        [
            "crates/ops/src/lost.rs: named on the map, but there is none",
            "core: named as a crate, but there is none",
            "crates/data: has no heading",
        ]
    );
}

#[test]
fn the_map_names_every_crate_and_no_other() {
    let complaints = map_complaints(&architecture(), &crates(), |path| root().join(path).exists());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

// ---- links between pages ----

/// The relative targets of a page's links and pictures.
fn links(markdown: &str) -> Vec<&str> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).collect()
}

#[test]
fn links_are_found() {
    let markdown = "[a](b.md), [c](d/e.md#part), [own](#part), [far](https://x.y/z) and ![picture](p.png)";
    assert_eq!(links(markdown), ["b.md", "d/e.md", "p.png"]);
}

#[test]
fn links_lead_somewhere() {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.push(root().join("README.md"));
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text) {
            assert!(page.with_file_name(link).exists(), "{}: {link} is not there", page.display());
        }
    }
    let summary = read("docs/SUMMARY.md");
    let listed: BTreeSet<&str> = links(&summary).into_iter().collect();
    for page in pages.iter().filter_map(|page| page.file_name()?.to_str()) {
        assert!(
            listed.contains(page) || ["SUMMARY.md", "README.md"].contains(&page),
            "docs/{page}: not in docs/SUMMARY.md"
        );
    }
}

// ---- the sources ----

const MOST_LINES: usize = 600;
const MOST_LINES_OF_LIB: usize = 40;
const NAMELESS: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];
/// What a library leaves to the program.
const PROGRAMS_ONLY: [&str; 6] = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "process::exit"];

/// The files and folders that `#[cfg(test)] mod NAME;` keeps out of the libraries, without `.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = path.strip_suffix("/lib.rs").or(path.strip_suffix("/mod.rs")).or(path.strip_suffix(".rs"));
    let names = text.split("#[cfg(test)]\nmod ").skip(1).filter_map(|rest| rest.split_once(';'));
    names.map(|(name, _)| format!("{}/{name}", folder.unwrap_or(path))).collect()
}

/// What a file of `crates/*/src` does that it may not; `is_test` where it is no part of the library.
fn source_complaints(path: &str, text: &str, is_test: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = text.lines().count();
    let file = Path::new(path);
    let most = if file.ends_with("src/lib.rs") { MOST_LINES_OF_LIB } else { MOST_LINES };
    if lines > most {
        complaints.push(format!("{path}: {lines} lines, more than {most}"));
    }
    if file.with_extension("").components().any(|part| NAMELESS.iter().any(|name| part.as_os_str() == *name)) {
        complaints.push(format!("{path}: named after nothing that a practitioner would name"));
    }
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_start())) {
        if line.starts_with("//") {
            continue;
        }
        if !(path.starts_with("crates/cli/") || is_test)
            && let Some(found) = PROGRAMS_ONLY.iter().find(|found| has_word(line, found))
        {
            complaints.push(format!("{path}:{number}: {found} in a library"));
        }
        if !path.starts_with("crates/ops/")
            && ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|found| line.contains(found))
        {
            complaints.push(format!("{path}:{number}: unsafe outside crates/ops"));
        }
    }
    complaints
}

/// Whether `word` stands in `line` without a letter before it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

#[test]
fn bad_sources_are_noticed() {
    let complaints = |path: &str, text: &str| source_complaints(path, text, false).len();
    let lines = |count: usize| "fn f() {}\n".repeat(count);

    assert_eq!(complaints("crates/ops/src/lib.rs", &lines(40)), 0);
    assert_eq!(complaints("crates/ops/src/lib.rs", &lines(41)), 1);
    assert_eq!(complaints("crates/ops/src/adam.rs", &lines(600)), 0);
    assert_eq!(complaints("crates/ops/src/adam.rs", &lines(601)), 1);
    assert_eq!(complaints("crates/ops/src/utils.rs", ""), 1);
    assert_eq!(complaints("crates/ops/src/common/mod.rs", ""), 1);
    assert_eq!(complaints("crates/ops/src/commons.rs", ""), 0);
    assert_eq!(complaints("crates/data/src/pairs.rs", "    println!(\"{x}\");\n// println!\nwriteln!(f)\n"), 1);
    assert_eq!(source_complaints("crates/data/src/tests.rs", "println!(\"skipped\")", true).len(), 0);
    assert_eq!(complaints("crates/data/src/pairs.rs", "std::process::exit(1)"), 1);
    assert_eq!(complaints("crates/cli/src/main.rs", "eprintln!(\"{error}\");"), 0);
    assert_eq!(complaints("crates/data/src/pairs.rs", "let x = unsafe { f() };"), 1);
    assert_eq!(complaints("crates/ops/src/adam.rs", "let x = unsafe { f() };"), 0);
}

#[test]
fn modules_of_tests_are_found() {
    let text = "mod a;\n#[cfg(test)]\nmod tests;\nmod b;\n#[cfg(test)]\nmod verify;\n#[cfg(test)]\nmod inline {}\n";
    assert_eq!(test_modules("crates/ops/src/lib.rs", text), ["crates/ops/src/tests", "crates/ops/src/verify"]);
    assert_eq!(test_modules("crates/ops/src/adam/mod.rs", text)[0], "crates/ops/src/adam/tests");
    assert_eq!(test_modules("crates/data/src/loader.rs", text)[0], "crates/data/src/loader/tests");
}

/// Whether a file belongs to a test module.
fn test_files(sources: &[(String, String)]) -> impl Fn(&str) -> bool {
    let tests: Vec<String> = sources.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    move |path| {
        tests.iter().any(|module| path.starts_with(&format!("{module}.rs")) || path.starts_with(&format!("{module}/")))
    }
}

#[test]
fn sources_keep_to_the_rules() {
    let sources = sources();
    let is_test = test_files(&sources);
    let complaints: Vec<String> =
        sources.iter().flat_map(|(path, text)| source_complaints(path, text, is_test(path))).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Recipes that are named after the network that they train.
const NETWORKS: [&str; 1] = ["pixelwise"];

/// Recipes say what is trained; the crate that trains knows none of them by name.
#[test]
fn training_knows_no_recipe() {
    let recipes = fs::read_dir(root().join("data/recipes")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = recipes.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.retain(|name| !NETWORKS.contains(&name.as_str()));
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    assert!(names.contains(&"\"quickstart\"".to_owned()));
    let sources = sources();
    let is_test = test_files(&sources);
    for (path, text) in sources.iter().filter(|(path, _)| path.starts_with("crates/training/") && !is_test(path)) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let known = names.iter().find(|name| code.contains(*name));
        assert!(known.is_none(), "{path}: names the recipe {}", known.unwrap());
    }
}
