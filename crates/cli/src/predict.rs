//! `img2seg predict`: label photos with a trained run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use image::GrayImage;
use img2seg_data::{read_image, shown, split_pair};
use img2seg_report::{indexed_png, overlay};
use img2seg_training::RunDir;
use img2seg_training::checkpoint::Which;
use img2seg_training::predict::TestTimeAugmentation;
use img2seg_training::predict::{Inference, Predictor};

use crate::{UsageError, device, message, progress};

/// Label photos with a trained run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run directory
    run: PathBuf,
    /// Photos, or folders of photos
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Where NAME.png (class ids, with the class colours as palette) and NAME-overlay.png go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The inputs are photo and label map side by side
    #[arg(long)]
    pairs: bool,
    /// The checkpoint: best or last
    #[arg(long, default_value = "best", value_parser = ["best", "last"])]
    checkpoint: String,
    /// How many looks at a photo are averaged: none, flip or multi-scale [default: as the recipe has it]
    #[arg(long, value_name = "KIND")]
    tta: Option<TestTimeAugmentation>,
    /// Show photos to the networks at their own scale, in overlapping tiles of the size that the run was trained at
    #[arg(long)]
    tiles: bool,
    /// Also write NAME-uncertainty.png: the lighter a pixel, the less sure is its class (not for networks of colours with a single answer)
    #[arg(long)]
    uncertainty: bool,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long, default_value = "auto")]
    device: String,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let run = RunDir::open(&arguments.run)?;
    let which = if arguments.checkpoint == "best" { Which::Best } else { Which::Last };
    let inputs = photos(&arguments.inputs)?;
    let (device, _) = device::open(&arguments.device, run.config()?.exactness)?;
    let inference = Inference { tta: arguments.tta, tiles: arguments.tiles };
    let predictor = Predictor::open(&run, which, inference, &device)?;
    if arguments.uncertainty && !predictor.tells_uncertainty() {
        let text = "--uncertainty: the run gives colours, and one answer alone: it does not say how sure it is";
        return Err(UsageError(text.to_owned()).into());
    }

    let bar = progress::counter("labelling");
    let mut failures = 0;
    for (index, (name, path)) in inputs.iter().enumerate() {
        if let Err(error) = label(&predictor, path, &arguments.out.join(name), arguments) {
            failures += 1;
            bar.line(&format!("error: {}", message(&error)));
        }
        bar.show(index + 1, inputs.len());
    }
    sayln!("{} of {} photos labelled in {}", inputs.len() - failures, inputs.len(), shown(&arguments.out));
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the labels and the overlay of one photo, and how unsure they are; `stem` is their path without extension.
fn label(predictor: &Predictor, path: &Path, stem: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut photo = read_image(path)?;
    if arguments.pairs {
        photo = split_pair(&photo, predictor.data().direction, path)?.0;
    }
    let predicted = predictor.predict(&photo)?;
    let (width, height) = photo.dimensions();
    let png = indexed_png(&predicted.labels, width, height, predictor.classes())?;
    let overlay = overlay(&photo, &predicted.labels, predictor.classes());
    let shares = if arguments.uncertainty { predictor.uncertainty(&photo, &predicted)? } else { None };
    let level = |share: &f32| (share * 255.0).round() as u8;
    let uncertainty = shares.and_then(|shares| GrayImage::from_raw(width, height, shares.iter().map(level).collect()));
    if let Some(folder) = stem.parent() {
        std::fs::create_dir_all(folder).with_context(|| shown(folder))?;
    }
    let [labels_path, overlay_path, uncertainty_path] = SUFFIXES.map(|suffix| with_suffix(stem, suffix));
    std::fs::write(&labels_path, png).with_context(|| shown(&labels_path))?;
    overlay.save(&overlay_path).with_context(|| shown(&overlay_path))?;
    uncertainty.map_or(Ok(()), |map| map.save(&uncertainty_path).with_context(|| shown(&uncertainty_path)))
}

/// What follows a photo's name in the names of its labels, of its overlay and of its uncertainty.
const SUFFIXES: [&str; 3] = [".png", "-overlay.png", "-uncertainty.png"];

fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The photos that the inputs name, by the name that their output gets: a file's stem, or its path below the folder given.
fn photos(inputs: &[PathBuf]) -> anyhow::Result<BTreeMap<PathBuf, PathBuf>> {
    let mut photos = BTreeMap::new();
    let mut written = BTreeMap::new();
    for input in inputs {
        let found = if input.is_dir() { below(input)? } else { vec![input.clone()] };
        if found.is_empty() {
            anyhow::bail!("{}: holds no .jpg, .jpeg or .png", shown(input));
        }
        for path in found {
            let relative = if input.is_dir() { path.strip_prefix(input)?.to_owned() } else { file_name(&path)? };
            let stem = relative.with_extension("");
            for suffix in SUFFIXES {
                if let Some(other) = written.insert(with_suffix(&stem, suffix), path.clone()) {
                    let text = format!("{} and {}: both would be written to one file", shown(&other), shown(&path));
                    return Err(UsageError(text).into());
                }
            }
            photos.insert(stem, path);
        }
    }
    Ok(photos)
}

fn file_name(path: &Path) -> anyhow::Result<PathBuf> {
    path.file_name().map(PathBuf::from).with_context(|| format!("{}: not a file", shown(path)))
}

/// Every image file below a folder. Symbolic links to folders are not followed: they may lead in a circle.
fn below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| shown(&folder))? {
            let entry = entry.with_context(|| shown(&folder))?;
            let path = entry.path();
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if ["jpg", "jpeg", "png"].contains(&extension.as_str()) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
