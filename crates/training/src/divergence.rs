//! A step whose loss or gradient is not finite: what is left of it, and how it is taken again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, ClassTable, read_text, shown};
use img2seg_models::{read_tensors, save_weights};
use img2seg_ops::squared_norms;
use serde::{Deserialize, Serialize};

use crate::learner::{self, Step};
use crate::run_dir::{readable_by_all, sync_directory, unfinished_folder, write_whole};
use crate::{Learner, Loss, RunConfig, RunDir, TrainingError};

/// Which step it was; the weights, the batch, the recipe and the class table stand beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// The step, from 1.
    pub step: u64,
    /// The schedule's factor on the learning rates.
    pub rate_factor: f64,
    /// The part of the learner's step that failed; those before it are done.
    pub part: String,
    /// The first tensor with a bad value.
    pub tensor: String,
    /// The names of the batch's samples.
    pub names: Vec<String>,
}

/// What taking a dumped step again gave.
#[derive(Debug)]
pub struct Replay {
    /// The step as it was.
    pub dump: Dump,
    /// The losses, where all was finite this time; else what was not.
    pub outcome: Result<Vec<Loss>, String>,
    /// Name, norm and largest magnitude of each tensor that went into the step: photos, label maps, then weights by name.
    pub inputs: Vec<(String, f64, f32)>,
}

const DUMP: &str = "dump.json";
const CONFIG: &str = "config.toml";
const CLASSES: &str = "classes.toml";
const WEIGHTS: &str = "weights.safetensors";
const BATCH: &str = "batch.safetensors";

/// Leaves `diverged/step-NNNNNNNN/` in the run directory and returns the error that ends the run.
pub(crate) fn diverged(
    run: &RunDir,
    learner: &dyn Learner,
    batch: &Batch,
    step: Step,
    part: &'static str,
    tensor: String,
) -> TrainingError {
    // A loss or a gradient is named that is not finite; what went in and is not finite either came first.
    let inputs = || {
        let mut inputs =
            vec![("photos".to_owned(), batch.photos.clone()), ("label_maps".to_owned(), batch.label_maps.clone())];
        inputs.extend(learner.weights().tensors().into_iter().filter(|(name, _)| !is_running_statistic(name)));
        inputs
    };
    let tensor = first_not_finite(&inputs()).unwrap_or(tensor);
    let names = batch.names.clone();
    let dump = Dump { step: step.number, rate_factor: step.rate_factor, part: part.to_owned(), tensor, names };
    let written = write(run, learner, batch, &dump).map_err(|error| error.to_string());
    TrainingError::Diverged {
        step: step.number,
        part,
        tensor: dump.tensor,
        batch: batch.names.join(", "),
        dump: written,
    }
}

/// In training these are written, not read: the step that failed has filled them with what is not finite.
fn is_running_statistic(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

fn first_not_finite(tensors: &[(String, Tensor)]) -> Option<String> {
    let norms = squared_norms(&tensors.iter().map(|(_, tensor)| tensor).collect::<Vec<_>>()).ok()?;
    let at = norms.iter().position(|norm| !norm.is_finite())?;
    Some(tensors[at].0.clone())
}

fn write(run: &RunDir, learner: &dyn Learner, batch: &Batch, dump: &Dump) -> Result<PathBuf, TrainingError> {
    let directory = run.file("diverged");
    let in_directory = || TrainingError::file(&directory);
    fs::create_dir_all(&directory).map_err(in_directory())?;
    let new = unfinished_folder(&directory).map_err(in_directory())?;
    for name in [CONFIG, CLASSES] {
        let path = run.file(name);
        fs::copy(&path, new.path().join(name)).map_err(TrainingError::file(&path))?;
    }
    save_weights(new.path().join(WEIGHTS), &learner.weights().tensors())?;
    let Batch { names: _, photos, label_maps, labels } = batch.clone();
    let tensors = [("photos", photos), ("label_maps", label_maps), ("labels", labels)];
    save_weights(new.path().join(BATCH), &tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into())?;
    let text = serde_json::to_string_pretty(dump).map_err(candle_core::Error::wrap)?;
    write_whole(&new.path().join(DUMP), format!("{text}\n").as_bytes())?;

    let target = directory.join(format!("step-{:08}", dump.step));
    let put_in_place = || {
        readable_by_all(new.path())?;
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::rename(new.path(), &target)?;
        sync_directory(&directory)
    };
    put_in_place().map_err(TrainingError::file(&target))?;
    Ok(target)
}

/// Takes a dumped step again, on any device.
///
/// # Errors
/// When a file of the dump is missing or does not fit its recipe. That the step fails again is no error, but [`Replay::outcome`].
pub fn replay(directory: &Path, device: &Device) -> Result<Replay, TrainingError> {
    let path = directory.join(DUMP);
    let dump: Dump =
        serde_json::from_str(&text(&path)?).map_err(|error| TrainingError::checkpoint(&path, error.to_string()))?;
    let path = directory.join(CONFIG);
    let config = RunConfig::from_toml(&text(&path)?, &shown(&path), &[])?;
    let path = directory.join(CLASSES);
    let classes = ClassTable::from_toml(&text(&path)?, &shown(&path))?;
    let mut learner = learner::build(&config, &classes, device)?;
    let weights = tensors(&directory.join(WEIGHTS))?;
    learner
        .weights()
        .load(&weights)
        .map_err(|error| TrainingError::checkpoint(&directory.join(WEIGHTS), error.to_string()))?;
    let batch = batch(&directory.join(BATCH), &dump.names)?.to_device(device)?;

    let mut inputs =
        vec![("photos".to_owned(), batch.photos.clone()), ("label_maps".to_owned(), batch.label_maps.clone())];
    inputs.extend(weights.into_iter().filter(|(name, _)| !is_running_statistic(name)));
    let norms = squared_norms(&inputs.iter().map(|(_, tensor)| tensor).collect::<Vec<_>>())?;
    let inputs = inputs.into_iter().zip(norms).map(|((name, tensor), norm)| Ok((name, norm.sqrt(), largest(&tensor)?)));
    let inputs = inputs.collect::<candle_core::Result<_>>()?;

    let step = Step { number: dump.step, rate_factor: dump.rate_factor };
    let outcome = match learner.train_step_from(&dump.part, &batch, step) {
        Ok(losses) => Ok(losses),
        Err(error @ TrainingError::NotFinite { .. }) => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    Ok(Replay { dump, outcome, inputs })
}

/// The largest magnitude; NaN where there is one.
fn largest(tensor: &Tensor) -> candle_core::Result<f32> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().fold(0.0, |largest: f32, value| if value.is_nan() { f32::NAN } else { largest.max(value.abs()) }))
}

fn batch(path: &Path, names: &[String]) -> Result<Batch, TrainingError> {
    let mut tensors = tensors(path)?;
    let mut take =
        |name: &str| tensors.remove(name).ok_or_else(|| TrainingError::checkpoint(path, format!("{name} is missing")));
    Ok(Batch {
        names: names.to_vec(),
        photos: take("photos")?,
        label_maps: take("label_maps")?,
        labels: take("labels")?,
    })
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, TrainingError> {
    let bytes = fs::read(path).map_err(TrainingError::file(path))?;
    read_tensors(&bytes).map_err(|error| TrainingError::checkpoint(path, error.to_string()))
}

fn text(path: &Path) -> Result<String, TrainingError> {
    read_text(path).map_err(TrainingError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::tests::{batch, recipe};

    fn run(folder: &Path, config: &RunConfig) -> RunDir {
        let (run, _lock) = RunDir::create(folder, &ClassTable::load(&config.data.classes).unwrap()).unwrap();
        run.begin(config).unwrap();
        run
    }

    /// A step with photos and label maps that blow up, its dump, and the dump taken again.
    #[test]
    fn a_dump_reproduces_its_step() {
        for (name, part, loss) in
            [("smoke-unet", "network", "the loss mse"), ("smoke-cgan", "discriminator", "the loss d_real")]
        {
            let folder = tempfile::tempdir().unwrap();
            let config = recipe(name, &["data.height=64", "data.width=64"]);
            let run = run(&folder.path().join("run"), &config);
            let mut learner = learner::build(&config, &run.classes().unwrap(), &Device::Cpu).unwrap();
            let mut batch = batch(64, 64);
            // Finite, but their squares are not.
            batch.photos = (batch.photos * 1e38).unwrap();
            batch.label_maps = (batch.label_maps * 1e38).unwrap();
            let step = Step { number: 7, rate_factor: 0.5 };
            let Err(TrainingError::NotFinite { part: failed, tensor }) = learner.train_step(&batch, step) else {
                panic!("{name}: the step went well")
            };
            assert_eq!((failed, &tensor[..]), (part, loss));
            let error = diverged(&run, learner.as_ref(), &batch, step, failed, tensor.clone());
            let dump = run.file("diverged/step-00000007");
            assert_eq!(
                error.to_string(),
                format!("step 7: {loss} is not finite ({part}; batch: a, b); {} reproduces the step", dump.display())
            );
            let again = replay(&dump, &Device::Cpu).unwrap();
            assert_eq!(again.outcome.unwrap_err(), format!("{tensor} is not finite ({part})"));
            assert_eq!(again.inputs[0].0, "photos");
            assert!(again.inputs.iter().all(|(_, norm, largest)| norm.is_finite() && largest.is_finite()));

            // With a batch as it should be, the same weights take the step.
            let healthy = tests::batch(64, 64);
            let tensors = [("photos", healthy.photos), ("label_maps", healthy.label_maps), ("labels", healthy.labels)];
            let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into();
            save_weights(dump.join(BATCH), &tensors).unwrap();
            let losses = replay(&dump, &Device::Cpu).unwrap().outcome.unwrap();
            assert!(losses.iter().all(|loss| loss.value.is_finite()));
        }
    }

    #[test]
    fn what_went_in_is_named_before_what_came_out() {
        let folder = tempfile::tempdir().unwrap();
        let config = recipe("smoke-unet", &[]);
        let run = run(&folder.path().join("run"), &config);
        let learner = learner::build(&config, &run.classes().unwrap(), &Device::Cpu).unwrap();
        let mut batch = batch(32, 64);
        batch.label_maps = (batch.label_maps / 0.0).unwrap();
        let step = Step { number: 1, rate_factor: 1.0 };
        let error = diverged(&run, learner.as_ref(), &batch, step, "network", "the loss mse".to_owned());
        assert!(error.to_string().starts_with("step 1: label_maps is not finite (network; batch: a, b)"), "{error}");
    }

    /// The generator's part follows a finished step of the discriminator: only that part is taken again.
    #[test]
    fn a_part_is_taken_again_from_where_it_failed() {
        let config = recipe("smoke-cgan", &[]);
        let classes = ClassTable::load(&config.data.classes).unwrap();
        let [mut whole, mut parts] = [0, 1].map(|_| learner::build(&config, &classes, &Device::Cpu).unwrap());
        let (batch, step) = (batch(64, 64), Step { number: 1, rate_factor: 1.0 });
        let losses = whole.train_step(&batch, step).unwrap();
        let of_discriminator = |learner: &dyn Learner| -> Vec<Vec<f32>> {
            let weights = learner.weights().tensors().into_iter();
            let weights = weights.filter(|(name, _)| name.starts_with("discriminator.") && !is_running_statistic(name));
            weights.map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        let before = of_discriminator(parts.as_ref());
        let of_generator = parts.train_step_from("generator", &batch, step).unwrap();
        let names: Vec<&str> = of_generator.iter().map(|loss| loss.name).collect();
        assert_eq!(names, ["g", "l1"]);
        assert_eq!(losses.len(), 4);
        assert!(!before.is_empty() && of_discriminator(parts.as_ref()) == before);
        assert!(of_discriminator(whole.as_ref()) != before);
        assert!(parts.train_step_from("no", &batch, step).unwrap_err().to_string().starts_with("no: "));
    }
}
