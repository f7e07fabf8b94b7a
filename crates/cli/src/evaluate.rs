//! `img2seg evaluate`: score a trained run on a split.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use img2seg_data::{Dataset, Split, shown};
use img2seg_training::checkpoint::Which;
use img2seg_training::evaluate::Evaluation;
use img2seg_training::evaluation_files::{Evaluating, evaluate_run};
use img2seg_training::predict::Inference;
use img2seg_training::predict::TestTimeAugmentation;
use img2seg_training::{RunDir, manifest};

use crate::origin::origin;
use crate::{device, progress, table};

/// Score a trained run on a split.
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Arguments {
    /// The run directory
    run: PathBuf,
    /// The data, if not where the run was trained
    #[arg(long, value_name = "ROOT")]
    data: Option<PathBuf>,
    /// The split: train, val or test
    #[arg(long, default_value = "val")]
    split: Split,
    /// The checkpoint: best or last
    #[arg(long, default_value = "best", value_parser = ["best", "last"])]
    checkpoint: String,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long, default_value = "auto")]
    device: String,
    /// How many looks at a photo are averaged: none, flip or multi-scale [default: as the recipe has it]
    #[arg(long, value_name = "KIND")]
    tta: Option<TestTimeAugmentation>,
    /// Score at the size of the label maps' files, with predictions brought to it
    #[arg(long)]
    at_original_size: bool,
    /// Show photos to the networks at their own scale, in overlapping tiles; scores at the size of the files
    #[arg(long)]
    tiles: bool,
    /// Warn of what has changed since the run was made, instead of refusing
    #[arg(long)]
    allow_changes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let run = RunDir::open(&arguments.run)?;
    let which = if arguments.checkpoint == "best" { Which::Best } else { Which::Last };
    let asked = Evaluating {
        split: arguments.split,
        which,
        inference: Inference { tta: arguments.tta, tiles: arguments.tiles },
        at_original_size: arguments.at_original_size,
    };
    let evaluation = score(&run, arguments.data.clone(), asked, &arguments.device, arguments.allow_changes)?;
    if arguments.json {
        sayln!("{}", serde_json::to_string(&evaluation.scores)?);
    } else {
        sayln!("{} images of {}, checkpoint {}", evaluation.scores.images, arguments.split, which.name());
        say!("{}", table::scores(&[&evaluation.scores]));
        sayln!("IoU by class");
        say!("{}", table::class_iou(&evaluation.scores));
    }
    let page = img2seg_report::write(&arguments.run)?;
    if !arguments.json {
        sayln!("{}", shown(&page));
    }
    Ok(())
}

/// Scores and files a split, with a bar.
pub(crate) fn score(
    run: &RunDir,
    root: Option<PathBuf>,
    asked: Evaluating,
    device: &str,
    allow_changes: bool,
) -> anyhow::Result<Evaluation> {
    let root = root.or_else(|| manifest::data_root(run));
    let root =
        root.with_context(|| format!("{}: names no data; give --data ROOT", shown(&run.file("manifest.json"))))?;
    let (device, words) = device::open(device, run.config()?.exactness)?;
    let split = asked.split;
    let dataset = Dataset::open(&root, split, &run.config()?.data, Arc::new(run.classes()?))?;
    manifest::check_evaluation(run, &dataset, &origin(&words), allow_changes)?;
    let bar = progress::counter(&format!("scoring {split}"));
    let evaluation = evaluate_run(run, &root, asked, &device, |done, total| bar.show(done, total))?;
    Ok(evaluation)
}
