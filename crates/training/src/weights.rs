//! The parameters that learn, and those that predict: the same, or their running average.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use img2seg_models::Parameters;
use img2seg_ops::move_towards;

use crate::{RunConfig, TrainingError};

/// The parameters and running statistics of a learner's networks, and beside them, where the recipe wants it, their exponential
/// moving average over the steps (Polyak and Juditsky 1992, with exponential weights), which predicts in their place.
pub struct Weights {
    learning: Parameters,
    average: Option<Parameters>,
    decay: f64,
}

impl Weights {
    /// Those that the recipe's seed draws, once networks are built of them.
    pub fn new(config: &RunConfig, device: &Device) -> Self {
        let parameters = || Parameters::new(config.seed, device).with_exactness(config.exactness);
        let average = (config.ema_decay > 0.0).then(parameters);
        Self { learning: parameters(), average, decay: config.ema_decay }
    }

    /// The parameters that learn.
    pub fn learning(&self) -> &Parameters {
        &self.learning
    }

    /// The parameters that predict, for networks that keep no graph. What is built of them is averaged, nothing else.
    pub fn predicting(&self) -> Parameters {
        self.average.as_ref().unwrap_or(&self.learning).detached()
    }

    /// Lets the average follow a step, counted from 1. Early in a run it averages over fewer steps than later: its decay is at most
    /// (1 + step) / (10 + step), as in TensorFlow's average with a step count.
    pub fn follow(&self, step: u64) -> Result<(), TrainingError> {
        let Some(average) = &self.average else { return Ok(()) };
        let step = step as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        let learning = self.learning.tensors();
        let average: Vec<(String, Var)> = average.trainable().into_iter().chain(average.buffers()).collect();
        let pairs: Vec<_> = average.iter().filter_map(|(name, average)| Some((average, learning.get(name)?))).collect();
        Ok(move_towards(&pairs, 1.0 - decay)?)
    }

    /// All that learns, by name. The tensors share storage with the networks.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.learning.tensors()
    }

    /// Takes back what [`Weights::tensors`] gave; the average begins anew from there. Nothing changes unless every name and shape
    /// fits.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        self.learning.load(tensors)?;
        let Some(average) = &self.average else { return Ok(()) };
        let averaged = average.tensors();
        let of_average = tensors.iter().filter(|(name, _)| averaged.contains_key(*name));
        Ok(average.load(&of_average.map(|(name, tensor)| (name.clone(), tensor.clone())).collect())?)
    }

    /// The averages, by the names of what they are averages of; empty where there are none.
    pub fn averages(&self) -> BTreeMap<String, Tensor> {
        self.average.as_ref().map(Parameters::tensors).unwrap_or_default()
    }

    /// Takes back what [`Weights::averages`] gave; nothing changes unless every name and shape fits.
    pub fn load_averages(&self, tensors: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        Ok(self.average.as_ref().map_or(Ok(()), |average| average.load(tensors))?)
    }
}

#[cfg(test)]
mod tests {
    use img2seg_models::Init;

    use super::*;
    use crate::learner::tests::recipe;

    #[test]
    fn averages_follow_weights_and_running_statistics() {
        let weights = Weights::new(&recipe("smoke-unet", &["ema_decay=0.9"]), &Device::Cpu);
        for parameters in [weights.learning(), &weights.predicting()] {
            parameters.weight("weight", 2, Init::Constant(0.0)).unwrap();
            parameters.buffer("running_mean", 2, Init::Constant(0.0)).unwrap();
        }
        weights.learning().weight("unseen", 1, Init::Constant(0.0)).unwrap();
        let values = |tensors: BTreeMap<String, Tensor>| -> Vec<f32> {
            tensors.values().flat_map(|tensor| tensor.to_vec1::<f32>().unwrap()).collect()
        };
        let ones: BTreeMap<_, _> =
            weights.tensors().into_iter().map(|(name, tensor)| (name, tensor.ones_like().unwrap())).collect();
        weights.learning().load(&ones).unwrap();
        assert_eq!(values(weights.averages()), [0.0; 4]);
        weights.follow(1).unwrap();
        // A decay of 2 / 11 at the first step.
        let all = |expected: f32| values(weights.averages()).iter().all(|value| (value - expected).abs() < 1e-6);
        assert!(all(9.0 / 11.0));
        let saved = weights.averages().into_iter().map(|(name, one)| (name, (one * 0.0).unwrap())).collect();
        weights.load_averages(&saved).unwrap();
        weights.follow(1_000_000).unwrap();
        assert!(all(0.1));
        weights.load(&ones).unwrap();
        assert!(all(1.0));
        assert_eq!(weights.averages().len(), 2);
    }

    #[test]
    fn without_a_decay_what_learns_predicts() {
        let weights = Weights::new(&recipe("smoke-unet", &["ema_decay=0.0"]), &Device::Cpu);
        weights.predicting().weight("weight", 2, Init::Constant(1.0)).unwrap();
        weights.follow(1).unwrap();
        assert_eq!((weights.tensors().len(), weights.averages().len()), (1, 0));
    }
}
