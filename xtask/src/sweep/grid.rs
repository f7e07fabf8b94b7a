//! A grid: the runs of a sweep, each over the same seeds, as a TOML file says them.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use toml::Spanned;

/// The file as it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    data: Option<String>,
    seeds: Spanned<Vec<u64>>,
    #[serde(default)]
    settings: Vec<Spanned<String>>,
    #[serde(default)]
    run: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    recipe: Spanned<String>,
    #[serde(default)]
    settings: Vec<Spanned<String>>,
}

/// What a sweep trains: each of `rows` with each of `seeds`.
#[derive(Debug, PartialEq)]
pub(super) struct Grid {
    /// Also the name of the folder that its runs are in.
    pub(super) name: String,
    /// The data of all runs, if it is not the recipes' own.
    pub(super) data: Option<String>,
    pub(super) seeds: Vec<u64>,
    pub(super) rows: Vec<Row>,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    /// A built-in recipe or a file.
    pub(super) recipe: String,
    /// `key=value`: those of the grid, then the row's own.
    pub(super) settings: Vec<String>,
    /// Where it stands in the grid: `FILE:LINE`.
    pub(super) place: String,
}

impl Grid {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a grid; `origin` goes before the line into every error.
    pub(super) fn parse(text: &str, origin: &str) -> Result<Self> {
        let at = |span: Range<usize>| format!("{origin}:{}", text[..span.start].matches('\n').count() + 1);
        let file: File = toml::from_str(text)
            .map_err(|error| anyhow!("{}: {}", at(error.span().unwrap_or(0..0)), error.message()))?;
        check_name("name", &file.name).with_context(|| at(file.name.span()))?;
        let seeds = file.seeds.get_ref();
        ensure!(!seeds.is_empty(), "{}: seeds: none", at(file.seeds.span()));
        if let Some(seed) = repeated(seeds) {
            return Err(anyhow!("{}: seeds: {seed} is there twice", at(file.seeds.span())));
        }
        ensure!(!file.run.is_empty(), "{origin}: has no [[run]]");
        let mut rows: Vec<Row> = Vec::new();
        for entry in &file.run {
            let place = at(entry.name.span());
            let name = entry.name.get_ref();
            check_name("run.name", &entry.name).with_context(|| place.clone())?;
            if let Some(first) = rows.iter().find(|row| row.name == *name) {
                return Err(anyhow!("{place}: run.name: {name} is also the name of the run at {}", first.place));
            }
            let mut settings = Vec::new();
            for setting in file.settings.iter().chain(&entry.settings) {
                check_setting(setting.get_ref()).with_context(|| at(setting.span()))?;
                settings.push(setting.get_ref().clone());
            }
            let place = at(entry.recipe.span());
            rows.push(Row { name: name.clone(), recipe: entry.recipe.get_ref().clone(), settings, place });
        }
        let (name, seeds) = (file.name.into_inner(), file.seeds.into_inner());
        Ok(Self { name, data: file.data, seeds, rows })
    }
}

/// A name becomes one of a folder.
fn check_name(key: &str, name: &Spanned<String>) -> Result<()> {
    let name = name.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fits = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
    ensure!(fits, "{key}: {name:?} is not made of letters, digits, '-', '_' and '.'");
    Ok(())
}

fn check_setting(setting: &str) -> Result<()> {
    let (key, _) =
        setting.split_once('=').with_context(|| format!("settings: {setting:?} is not of the form key=value"))?;
    ensure!(key.trim() != "seed", "settings: {setting:?} sets the seed, which `seeds` says");
    Ok(())
}

fn repeated(seeds: &[u64]) -> Option<u64> {
    seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed)).map(|(_, &seed)| seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: &str = r#"name = "gan-or-not"
seeds = [0, 7]
settings = ["epochs=40"]

[[run]]
name = "without"
recipe = "camvid-unet"

[[run]]
name = "with"
recipe = "camvid-cgan"
settings = ["task.adversarial.reconstruction={ l1 = { weight = 10.0 } }"]
"#;

    #[test]
    fn a_grid_is_its_rows_with_all_their_settings() {
        let grid = Grid::parse(GRID, "grid.toml").unwrap();
        assert_eq!((grid.name.as_str(), grid.data, grid.seeds), ("gan-or-not", None, vec![0, 7]));
        let row = |name: &str, recipe: &str, settings: &[&str], line: u32| Row {
            name: name.into(),
            recipe: recipe.into(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            place: format!("grid.toml:{line}"),
        };
        let with = row(
            "with",
            "camvid-cgan",
            &["epochs=40", "task.adversarial.reconstruction={ l1 = { weight = 10.0 } }"],
            11,
        );
        assert_eq!(grid.rows, [row("without", "camvid-unet", &["epochs=40"], 7), with]);
        let data = Grid::parse(&format!("data = \"pairs\"\n{GRID}"), "grid.toml").unwrap().data;
        assert_eq!(data.as_deref(), Some("pairs"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, told) in [
            ("seeds = [0, 7]", "sedes = [0, 7]", "grid.toml:2: unknown field `sedes`, expected one of"),
            ("recipe = \"camvid-unet\"", "", "missing field `recipe`"),
            ("settings = [\"task", "setting = [\"task", "grid.toml:12: unknown field `setting`, expected one of"),
            ("seeds = [0, 7]", "seeds = [0, 7, 0]", "grid.toml:2: seeds: 0 is there twice"),
            ("seeds = [0, 7]", "seeds = []", "grid.toml:2: seeds: none"),
            ("seeds = [0, 7]", "seeds = [-1]", "grid.toml:2: invalid value"),
            ("seeds = [0, 7]", "seeds = [0, 7", "grid.toml:"),
            ("\"with\"", "\"without\"", "grid.toml:10: run.name: without is also the name of the run at grid.toml:7"),
            ("\"with\"", "\"a/b\"", "grid.toml:10: run.name: \"a/b\" is not made of"),
            ("\"gan-or-not\"", "\"..\"", "grid.toml:1: name: \"..\" is not made of"),
            ("epochs=40", "epochs", "grid.toml:3: settings: \"epochs\" is not of the form key=value"),
            ("epochs=40", "seed = 3", "grid.toml:3: settings: \"seed = 3\" sets the seed"),
        ] {
            assert!(GRID.contains(from));
            let error = format!("{:#}", Grid::parse(&GRID.replacen(from, to, 1), "grid.toml").unwrap_err());
            assert!(error.contains(told), "{error}, not {told}");
        }
        let error = Grid::parse("name = \"a\"\nseeds = [1]\n", "grid.toml").unwrap_err().to_string();
        assert_eq!(error, "grid.toml: has no [[run]]");
    }

    #[test]
    fn the_grids_that_come_with_the_project_are_grids() {
        let folder = crate::program::workspace_root().join("data/sweeps");
        let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!paths.is_empty());
        for path in paths {
            let grid = Grid::read(&path).unwrap();
            assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(grid.name.as_str()));
            for row in &grid.rows {
                super::super::recipe::Recipe::read(row, 0).unwrap();
            }
        }
    }
}
