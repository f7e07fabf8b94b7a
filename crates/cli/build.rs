//! Tells the program what it is built from: the commit and whether the sources differ from it, the compiler, and the versions of
//! the libraries that results depend on.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// What computes, decodes, resizes and draws.
const LIBRARIES: [&str; 8] =
    ["candle-core", "candle-nn", "gemm", "image", "zune-jpeg", "fast_image_resize", "rand_chacha", "rayon"];

/// What the program is built from, seen from the workspace's root; of each crate, [`OF_A_CRATE`].
const SOURCES: [&str; 5] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "data/recipes", "data/palettes"];
const OF_A_CRATE: [&str; 4] = ["Cargo.toml", "build.rs", "src", "templates"];

fn main() {
    let root = Path::new("../..");
    let mut sources: Vec<String> = SOURCES.map(str::to_owned).to_vec();
    let crates = fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    for name in crates.filter_map(|entry| entry.file_name().into_string().ok()) {
        sources.extend(OF_A_CRATE.iter().map(|part| format!("crates/{name}/{part}")));
    }
    sources.retain(|path| root.join(path).exists());
    sources.sort();
    for path in &sources {
        println!("cargo::rerun-if-changed=../../{path}");
    }
    // HEAD says which branch, its log every commit and reset, wherever git keeps them (a worktree has its own).
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]).unwrap_or_default();
        // A file that is not there would have this script run with every build.
        if Path::new(path.trim()).exists() {
            println!("cargo::rerun-if-changed={}", path.trim());
        }
    }

    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    // Paths are seen from this folder.
    let places: Vec<String> = sources.iter().map(|path| format!(":/{path}")).collect();
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(places.iter().map(String::as_str));
    let dirty = match git(&status) {
        _ if commit.is_empty() => "",
        Some(changes) if changes.is_empty() => "false",
        Some(_) => "true",
        None => "",
    };
    let compiler = env::var_os("RUSTC").and_then(|rustc| said(Command::new(rustc).arg("--version")));
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    for (name, value) in [
        ("COMMIT", commit.trim()),
        ("DIRTY", dirty),
        ("COMPILER", compiler.unwrap_or_default().trim()),
        ("LIBRARIES", &libraries(&lock).join(" ")),
    ] {
        println!("cargo::rustc-env=IMG2SEG_{name}={value}");
    }
}

/// `NAME=VERSION` of each library that `Cargo.lock` has; where it has several versions, all of them.
fn libraries(lock: &str) -> Vec<String> {
    let value = |line: &str| line.split_once(" = ").map(|(_, value)| value.trim_matches('"').to_owned());
    let packages = lock.split("[[package]]").skip(1).filter_map(|package| {
        let mut lines = package.trim_start().lines();
        Some((value(lines.next()?)?, value(lines.next()?)?))
    });
    let packages: Vec<(String, String)> = packages.collect();
    let versions = |library: &str| {
        let found = packages.iter().filter(|(name, _)| name == library).map(|(_, version)| version.as_str());
        found.collect::<Vec<_>>().join(",")
    };
    let listed = LIBRARIES.iter().map(|library| (library, versions(library)));
    listed.filter(|(_, versions)| !versions.is_empty()).map(|(name, versions)| format!("{name}={versions}")).collect()
}

fn git(arguments: &[&str]) -> Option<String> {
    said(Command::new("git").args(arguments))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
