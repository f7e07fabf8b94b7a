//! The recipes that come with the program.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use img2seg_data::shown;
use img2seg_training::RunConfig;

use crate::UsageError;

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../data/recipes/", $name, ".toml")))),*]
    };
}

const RECIPES: [(&str, &str); 18] = recipes![
    "quickstart",
    "pixelwise",
    "lab-unet",
    "lab-cgan",
    "camvid-unet",
    "camvid-cgan",
    "camvid-classes",
    "camvid-classes-128",
    "camvid-colors-128",
    "camvid-adversarial-128",
    "camvid-cvae-128",
    "camvid-pix2pix-128",
    "camvid-classes-gpu",
    "cityscapes-pix2pix",
    "smoke-unet",
    "smoke-cgan",
    "smoke-adversarial",
    "smoke-cvae",
];

/// The largest recipe.
const MAX_BYTES: u64 = 1 << 20;

/// List the built-in recipes, or print one.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The recipe to print
    name: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(name) = &arguments.name {
        say!("{}", text(name)?);
        return Ok(());
    }
    let mut list = String::new();
    for (name, text) in RECIPES {
        let summary = text.lines().next().unwrap_or_default().trim_start_matches("# ");
        writeln!(list, "{name:<14} {summary}")?;
    }
    say!("{list}");
    Ok(())
}

/// Reads a recipe by its built-in name or its file, with `settings` (`key=value`) put in.
pub(crate) fn load(name: &str, settings: &[String]) -> anyhow::Result<RunConfig> {
    let mut config = RunConfig::from_toml(&text(name)?, name, settings).map_err(|error| {
        // What --set says is the command line's fault.
        let message = error.to_string();
        if message.starts_with("--set ") { UsageError(message).into() } else { anyhow::Error::from(error) }
    })?;
    if config.recipe.is_empty() {
        config.recipe = Path::new(name).file_stem().map_or(name.into(), |stem| stem.to_string_lossy().into_owned());
    }
    Ok(config)
}

fn text(name: &str) -> anyhow::Result<String> {
    if let Some((_, text)) = RECIPES.iter().find(|(known, _)| *known == name) {
        return Ok((*text).to_owned());
    }
    if name.contains(['/', '\\', '.']) {
        // One byte more than is read as a recipe: its reader says so. A device has no end.
        let mut text = String::new();
        let file = File::open(name).with_context(|| shown(name.as_ref()))?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(|| shown(name.as_ref()))?;
        return Ok(text);
    }
    let names: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
    Err(UsageError(format!(
        "{}: no such recipe; there are {}, or give a TOML file",
        shown(name.as_ref()),
        names.join(", ")
    ))
    .into())
}
