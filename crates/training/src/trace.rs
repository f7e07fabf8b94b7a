//! Hashes of the exact bits of a run's tensors, step by step or epoch by epoch: what tells where two runs part.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use img2seg_data::Batch;
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::checkpoint::hex;
use crate::{Learner, Loss, TrainingError};

/// A text file of steps: `STEP LOSS... | HASH...`, below lines that name the losses and the tensors.
///
/// The first line is the state before the first step, without losses. Tensors are those of the step's batch, then the weights, then
/// their averages, then the state of the optimisers, each in name order.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    file: File,
    /// The line before the first step, until the losses have names.
    start: Option<String>,
}

/// What a batch's tensors are called in a trace.
const BATCH: [&str; 3] = ["batch.photos", "batch.label_maps", "batch.labels"];

impl Trace {
    /// Begins a trace in a new file, with the learner as it is after `steps` steps.
    pub fn create(path: &Path, learner: &dyn Learner, steps: u64) -> Result<Self, TrainingError> {
        let file = File::create(path).map_err(TrainingError::file(path))?;
        let hashes: Vec<String> = state(learner)?.into_iter().map(|(_, hash)| hash).collect();
        let start = format!("{steps} | - - - {}\n", hashes.join(" "));
        Ok(Self { path: path.to_owned(), file, start: Some(start) })
    }

    /// Adds a step that was just taken.
    pub fn add(
        &mut self,
        step: u64,
        losses: &[Loss],
        batch: &Batch,
        learner: &dyn Learner,
    ) -> Result<(), TrainingError> {
        let mut hashes = Vec::new();
        for (name, tensor) in BATCH.into_iter().zip([&batch.photos, &batch.label_maps, &batch.labels]) {
            hashes.push((name.to_owned(), hash(tensor)?));
        }
        hashes.extend(state(learner)?);
        let mut text = String::new();
        if let Some(start) = self.start.take() {
            let losses: Vec<&str> = losses.iter().map(|loss| loss.name).collect();
            let tensors: Vec<&str> = hashes.iter().map(|(name, _)| name.as_str()).collect();
            text = format!("# losses {}\n# tensors {}\n{start}", losses.join(" "), tensors.join(" "));
        }
        let mut words = vec![step.to_string()];
        words.extend(losses.iter().map(|loss| loss.value.to_string()));
        words.push("|".to_owned());
        words.extend(hashes.into_iter().map(|(_, hash)| hash));
        // One write: a kill leaves a whole line or none.
        text.push_str(&words.join(" "));
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(TrainingError::file(&self.path))
    }
}

/// A line of `digests.jsonl`: the hash of every weight, and of its average, after an epoch.
pub fn digests(epoch: usize, learner: &dyn Learner) -> Result<Value, TrainingError> {
    let weights = learner.weights();
    let hashes = [hashes(weights.tensors())?, averages(learner)?].concat();
    let weights: serde_json::Map<String, Value> =
        hashes.into_iter().map(|(name, hash)| (name, Value::String(hash))).collect();
    Ok(json!({ "epoch": epoch, "weights": weights }))
}

/// Weights, then their averages, then optimisers.
fn state(learner: &dyn Learner) -> Result<Vec<(String, String)>, TrainingError> {
    let [weights, averages] = [hashes(learner.weights().tensors())?, averages(learner)?];
    Ok([weights, averages, hashes(learner.optimizer_state()?)?].concat())
}

fn averages(learner: &dyn Learner) -> Result<Vec<(String, String)>, TrainingError> {
    let named = learner.weights().averages().into_iter().map(|(name, tensor)| (format!("ema.{name}"), tensor));
    hashes(named.collect())
}

fn hashes(tensors: BTreeMap<String, Tensor>) -> Result<Vec<(String, String)>, TrainingError> {
    let hash = |(name, tensor): (String, Tensor)| Ok((name, hash(&tensor)?));
    tensors.into_iter().collect::<Vec<_>>().into_par_iter().map(hash).collect()
}

/// The first 64 bits of the SHA-256 of a tensor's elements in row order, little end first, as 16 hexadecimal digits.
///
/// # Errors
/// For tensors of other types than f32, u32 and i64.
pub fn hash(tensor: &Tensor) -> candle_core::Result<String> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    let bytes: Vec<u8> = match flat.dtype() {
        DType::F32 => flat.to_vec1::<f32>()?.into_iter().flat_map(f32::to_le_bytes).collect(),
        DType::U32 => flat.to_vec1::<u32>()?.into_iter().flat_map(u32::to_le_bytes).collect(),
        DType::I64 => flat.to_vec1::<i64>()?.into_iter().flat_map(i64::to_le_bytes).collect(),
        other => candle_core::bail!("no hash of a tensor of {other:?}"),
    };
    Ok(hex(&Sha256::digest(bytes)[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_of_the_exact_bits() {
        let of = |values: &[f32]| hash(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        // printf '\0\0\200\77\0\0\0\300' | sha256sum
        assert_eq!(of(&[1.0, -2.0]), "ee4ac73c2bd27756");
        assert_ne!(of(&[0.0]), of(&[-0.0]));
        assert_ne!(of(&[1.0]), of(&[1.0 + f32::EPSILON]));
        let matrix = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        assert_eq!(hash(&matrix.t().unwrap()).unwrap(), of(&[1.0, 3.0, 2.0, 4.0]));
        assert_eq!(hash(&Tensor::new(&[7u32], &Device::Cpu).unwrap()).unwrap(), of(&[f32::from_bits(7)]));
        assert!(hash(&Tensor::new(&[7u8], &Device::Cpu).unwrap()).is_err());
    }
}
