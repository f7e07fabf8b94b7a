//! What a run of a sweep is to be: a recipe with its settings and seed put in, and how a run that is there differs from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use toml::{Table, Value};

use super::grid::Row;
use crate::program::workspace_root;

/// A recipe with everything put in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe(Table);

impl Recipe {
    /// The recipe of a row with this seed.
    pub(super) fn read(row: &Row, seed: u64) -> Result<Self> {
        let text = text(&row.recipe).with_context(|| format!("{}: recipe", row.place))?;
        let mut table: Table =
            text.parse().map_err(|error: toml::de::Error| anyhow!("{}: {}", row.recipe, error.message()))?;
        for setting in &row.settings {
            set(&mut table, setting).with_context(|| format!("{}: settings: {setting}", row.place))?;
        }
        table.insert("seed".to_owned(), Value::Integer(i64::try_from(seed).context("seeds: one is too large")?));
        Ok(Self(table))
    }

    pub(super) fn epochs(&self) -> Option<u64> {
        u64::try_from(self.0.get("epochs")?.as_integer()?).ok()
    }

    /// Where the recipe that a run was made with, its `config.toml`, differs: `epochs was 20 and is to be 40`.
    pub(super) fn differences(&self, config: &str) -> Result<Vec<String>> {
        let was: Table = config.parse().map_err(|error: toml::de::Error| anyhow!("{}", error.message()))?;
        let (mut was, mut is) = (leaves(&was), leaves(&self.0));
        // Where a recipe does not say its name, the program gives it that of the file.
        was.remove("recipe");
        is.remove("recipe");
        settle(&mut is, &was);
        let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
        keys.sort();
        keys.dedup();
        let difference = |key: &String| match (was.get(key), is.get(key)) {
            (Some(was), Some(is)) if equal(was, is) => None,
            (Some(was), Some(is)) => Some(format!("{key} was {was} and is to be {is}")),
            (Some(was), None) => Some(format!("{key} was {was} and is not there any more")),
            (None, is) => {
                Some(format!("{key} was not there{}", is.map(|is| format!(" and is to be {is}")).unwrap_or_default()))
            }
        };
        Ok(keys.into_iter().filter_map(difference).collect())
    }
}

/// Class weights that a recipe leaves to the data stand in `config.toml` as the numbers that they have become.
fn settle<'a>(is: &mut BTreeMap<String, &'a Value>, was: &BTreeMap<String, &'a Value>) {
    for (numbers, &settled) in was {
        let Some(weights) = numbers.strip_suffix(".fixed").filter(|key| key.ends_with(".class_weights")) else {
            continue;
        };
        let is_rule = |key: &str, value: &Value| match key.strip_prefix(weights) {
            Some("") => value.as_str().is_some_and(|rule| rule != "none"),
            Some(rule) => rule.starts_with('.') && rule != ".fixed",
            None => false,
        };
        let before = is.len();
        is.retain(|key, value| !is_rule(key, value));
        if is.len() < before {
            is.insert(numbers.clone(), settled);
        }
    }
}

/// A built-in recipe by its name, or a file from where the caller stands, as `img2seg train` takes them.
fn text(recipe: &str) -> Result<String> {
    if recipe.contains(['/', '\\', '.']) {
        return fs::read_to_string(recipe).context(recipe.to_owned());
    }
    let folder = workspace_root().join("data/recipes");
    let path = folder.join(format!("{recipe}.toml"));
    if !path.is_file() {
        bail!("{recipe} is none; there are {}, or give a TOML file", names(&folder)?.join(", "));
    }
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let mut names: Vec<String> = paths.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Puts `key.path=value` in, by the rules of `img2seg train --set`.
fn set(table: &mut Table, setting: &str) -> Result<()> {
    let (path, text) = setting.split_once('=').context("not of the form key=value")?;
    let (path, text) = (path.trim(), text.trim());
    let value = match format!("value = {text}").parse::<Table>() {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").context("not one value")?,
        Ok(_) => bail!("{text:?} is not one value"),
        Err(_) => Value::String(text.to_owned()),
    };
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).context("the key is empty")?;
    let mut inner = table;
    for key in keys {
        inner = inner
            .entry(key)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .with_context(|| format!("{key} is a value, not a table"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}

/// Every value by its dotted key. An empty table is one too: it chooses a kind that has nothing more to say.
fn leaves(table: &Table) -> BTreeMap<String, &Value> {
    let mut leaves = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if !inner.is_empty() => {
                leaves.extend(self::leaves(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            value => _ = leaves.insert(key.clone(), value),
        }
    }
    leaves
}

/// Whole numbers are floats too, to a key that takes these.
fn equal(was: &Value, is: &Value) -> bool {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    match (was, is) {
        (Value::Integer(was), Value::Integer(is)) => was == is,
        (Value::Array(was), Value::Array(is)) => {
            was.len() == is.len() && was.iter().zip(is).all(|(was, is)| equal(was, is))
        }
        _ => match (number(was), number(is)) {
            (Some(was), Some(is)) => was.to_bits() == is.to_bits(),
            _ => was == is,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(recipe: &str, settings: &[&str]) -> Row {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Row { name: "a".into(), recipe: recipe.into(), settings, place: "grid.toml:3".into() }
    }

    fn recipe(settings: &[&str]) -> Recipe {
        Recipe::read(&row("smoke-unet", settings), 5).unwrap()
    }

    #[test]
    fn a_recipe_has_its_settings_and_its_seed() {
        let Recipe(table) = recipe(&["epochs=7", "exactness=direct", "data.augment.hue=1"]);
        assert_eq!(table["seed"].as_integer(), Some(5));
        assert_eq!(table["exactness"].as_str(), Some("direct"));
        assert_eq!(table["data"]["augment"]["hue"].as_integer(), Some(1));
        assert_eq!(Recipe(table).epochs(), Some(7));
    }

    #[test]
    fn a_difference_names_its_key_and_both_values() {
        let Recipe(written) =
            recipe(&["data.augment.hue=0.0", "schedule={ warmup_epochs = 0.0, decay = { constant = {} } }"]);
        let config = format!("recipe = \"smoke-unet\"\n{written}");
        let differences = |settings: &[&str]| recipe(settings).differences(&config).unwrap();
        assert_eq!(differences(&["schedule={ warmup_epochs = 0.0, decay = { constant = {} } }"]), [""; 0]);
        assert_eq!(
            differences(&["schedule={ warmup_epochs = 0.0, decay = { constant = {} } }", "data.augment.hue=0"]),
            [""; 0]
        );
        assert_eq!(
            differences(&["epochs=40", "schedule={ warmup_epochs = 0.0, decay = { constant = {} } }"]),
            ["epochs was 2 and is to be 40"]
        );
        assert_eq!(
            differences(&[]),
            [
                "schedule.decay.constant was {} and is not there any more",
                "schedule.decay.cosine was not there and is to be {}",
                "schedule.warmup_epochs was 0.0 and is to be 0.5"
            ]
        );
        let other =
            Recipe::read(&row("smoke-unet", &["schedule={ warmup_epochs = 0.0, decay = { constant = {} } }"]), 6)
                .unwrap();
        assert_eq!(other.differences(&config).unwrap(), ["seed was 5 and is to be 6"]);
        let augment = differences(&[
            "schedule={ warmup_epochs = 0.0, decay = { constant = {} } }",
            "data.augment.scale=[0.9, 1.3]",
        ]);
        assert_eq!(augment, ["data.augment.scale was [0.9, 1.2] and is to be [0.9, 1.3]"]);
    }

    #[test]
    fn class_weights_that_the_data_has_settled_are_no_difference() {
        let key = "task.segmentation.loss.cross-entropy.class_weights";
        let Recipe(written) = recipe(&[&format!("{key}={{ fixed = [1.0, 2.0] }}")]);
        for rule in ["inverse", "{ inverse-power = 0.3 }"] {
            let open = recipe(&[&format!("{key}={rule}")]);
            assert_eq!(open.differences(&written.to_string()).unwrap(), [""; 0], "{rule}");
        }
        let none = recipe(&[&format!("{key}=none")]);
        assert_eq!(none.differences(&written.to_string()).unwrap().len(), 2);
        let others = recipe(&[&format!("{key}={{ fixed = [1.0, 3.0] }}")]);
        assert_eq!(others.differences(&written.to_string()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_recipe_is_told_with_its_place() {
        let error = |row: &Row| format!("{:#}", Recipe::read(row, 0).unwrap_err());
        let told = error(&row("smoke-unett", &[]));
        assert!(
            told.starts_with("grid.toml:3: recipe: smoke-unett is none; there are camvid-adversarial-128, "),
            "{told}"
        );
        let told = error(&row("missing/recipe.toml", &[]));
        assert!(told.starts_with("grid.toml:3: recipe: missing/recipe.toml: "), "{told}");
        assert_eq!(
            error(&row("smoke-unet", &["epochs.x=1"])),
            "grid.toml:3: settings: epochs.x=1: epochs is a value, not a table"
        );
    }
}
