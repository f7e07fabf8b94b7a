//! `manifest.json`: what made a run what it is, besides its recipe.

use std::path::{Path, PathBuf};

use img2seg_data::Dataset;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::checkpoint::hex;
use crate::run_dir::write_whole;
use crate::{Learner, RunConfig, RunDir, TrainingError};

/// What the library cannot know of the program that uses it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The program's version.
    pub version: String,
    /// The commit that it was built from; empty when unknown.
    pub commit: String,
    /// The device, in words.
    pub device: String,
    /// Threads of the CPU that the run may use.
    pub threads: usize,
}

/// Files the manifest of a run.
pub fn write(
    run: &RunDir,
    config: &RunConfig,
    root: &Path,
    origin: &Origin,
    learner: &dyn Learner,
    train: &Dataset,
    val: &Dataset,
) -> Result<(), TrainingError> {
    let parameters: serde_json::Map<String, Value> =
        learner.networks().into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    let manifest = json!({
        "program": "img2seg",
        "version": origin.version,
        "commit": origin.commit,
        "recipe": config.recipe,
        "recipe_digest": hex(&Sha256::digest(config.to_toml()?.as_bytes())),
        "seed": config.seed,
        "device": origin.device,
        "threads": origin.threads,
        "parameters": parameters,
        "data": {
            "root": root.display().to_string(),
            "layout": train.layout(),
            "train_images": train.len(),
            "val_images": val.len(),
            "digest": digest(&[train, val])?,
        },
        "libraries": { "candle": "0.11.1" },
    });
    let text = serde_json::to_string_pretty(&manifest).map_err(candle_core::Error::wrap)?;
    write_whole(&run.file("manifest.json"), format!("{text}\n").as_bytes())
}

/// The data root that a run was trained on.
pub fn data_root(run: &RunDir) -> Option<PathBuf> {
    let text = std::fs::read_to_string(run.file("manifest.json")).ok()?;
    let manifest: Value = serde_json::from_str(&text).ok()?;
    manifest["data"]["root"].as_str().map(Into::into)
}

/// SHA-256 over every sample's name and the sizes of its files, in file order.
fn digest(datasets: &[&Dataset]) -> Result<String, TrainingError> {
    let mut hash = Sha256::new();
    for dataset in datasets {
        for index in 0..dataset.len() {
            hash.update(dataset.name(index).as_bytes());
            hash.update([0]);
            for path in std::iter::once(dataset.path(index)).chain(dataset.mask_path(index)) {
                let size = std::fs::metadata(path).map_err(TrainingError::file(path))?.len();
                hash.update(size.to_le_bytes());
            }
        }
        hash.update([1]);
    }
    Ok(hex(&hash.finalize()))
}
