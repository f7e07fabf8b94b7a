//! Whole steps: the lab report's networks as `Learner`s, one batch in memory.

use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use img2seg_data::{Batch, ClassTable, streets};
use img2seg_ops::Exactness;
use img2seg_training::RunConfig;
use img2seg_training::learner::{self, Step};

use crate::Case;

/// A training step, or a prediction, of `unet` or `cgan` with `base` channels on `batch` street scenes of `size` x `size`.
pub(crate) fn build(
    train: bool,
    network: &str,
    [base, size, batch]: [usize; 3],
    exactness: Exactness,
    device: &Device,
) -> Result<Case> {
    let config = RunConfig { exactness, ..recipe(network, base, size)? };
    let classes = ClassTable::load(&config.data.classes)?;
    let scenes: Vec<_> = (0..batch as u64).map(|index| streets::scene(0, index, size, size)).collect();
    let batch = Batch::stack(&scenes)?.to_device(device)?;
    let mut learner = learner::build(&config, &classes, device)?;
    let networks = learner.networks();
    // The first network is the one that predicts.
    let trained = if train { networks.len() } else { 1 };
    let size = networks.iter().take(trained).map(|(_, numbers)| numbers).sum();
    let mut number = 0;
    let step = move || {
        if train {
            number += 1;
            learner.train_step(&batch, Step { number, rate_factor: 1.0 })?;
        } else {
            learner.predict(&batch.photos)?;
        }
        Ok(())
    };
    Ok(Case { size, step: Box::new(step) })
}

/// The lab report's recipe of a network, at another width and size.
fn recipe(network: &str, base: usize, size: usize) -> Result<RunConfig> {
    let (name, widths) = match network {
        "unet" => ("lab-unet", &["task.segmentation.network.unet"][..]),
        "cgan" => ("lab-cgan", &["task.adversarial.generator.lab", "task.adversarial.discriminator.lab"][..]),
        _ => bail!("{network}: not one of unet, cgan"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../data/recipes/{name}.toml"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut settings = vec![format!("data.height={size}"), format!("data.width={size}")];
    settings.extend(widths.iter().map(|key| format!("{key}.base_channels={base}")));
    Ok(RunConfig::from_toml(&text, name, &settings)?)
}
