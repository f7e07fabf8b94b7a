//! A conditional variational autoencoder (Kingma and Welling 2014; Sohn, Lee and Yan 2015).

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, ClassTable, keyed};
use img2seg_models::Cvae;
use img2seg_ops::{self as ops, Gradients};

use super::{Learner, Prediction, Step, in_pool, logits_of, mean_of, move_parameters, no_such_part, one_hot};
use crate::config::{Output, VariationalConfig};
use crate::loss::{SegmentationCriterion, Unread};
use crate::optimizer::Optimizer;
use crate::weights::Weights;
use crate::{Loss, RunConfig, TrainingError};

/// The one part of a step.
const NETWORK: &str = "network";

/// A conditional VAE and its optimiser. What it predicts is the mean of several samples.
pub struct VariationalLearner {
    weights: Weights,
    network: Cvae,
    /// The same network of the weights that predict, detached: its predictions keep no graph.
    predictor: Cvae,
    optimizer: Optimizer,
    criterion: SegmentationCriterion,
    task: VariationalConfig,
    classes: usize,
    seed: u64,
}

impl VariationalLearner {
    /// A fresh learner for the evaluated classes of a table, with the weights that the recipe's seed draws.
    pub fn new(
        task: &VariationalConfig,
        config: &RunConfig,
        classes: &ClassTable,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        for (height, width) in config.data.sizes() {
            task.network.check_size(height, width)?;
        }
        let weights = Weights::new(config, device);
        let channels = match task.output {
            Output::Rgb => 3,
            Output::Classes => classes.len(),
        };
        Ok(Self {
            network: Cvae::new(weights.learning(), &task.network, channels, channels)?,
            predictor: Cvae::new(&weights.predicting(), &task.network, channels, channels)?,
            optimizer: Optimizer::new(weights.learning(), &task.optimizer)?,
            criterion: SegmentationCriterion::new(&task.loss, classes, device)?,
            task: task.clone(),
            classes: classes.len(),
            seed: config.seed,
            weights,
        })
    }

    /// Standard normal numbers (n, latent).
    fn noise(&self, images: usize, purpose: &str, numbers: &[u64], device: &Device) -> candle_core::Result<Tensor> {
        let latent = self.task.network.latent_channels;
        let mut rng = keyed::rng(self.seed, purpose, numbers);
        let values: Vec<f32> = (0..images * latent).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, (images, latent), &Device::Cpu)?.to_device(device)
    }

    /// The label maps as the encoder sees them: colours, or a plane for each class.
    fn seen(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        match self.task.output {
            Output::Rgb => Ok(batch.label_maps.clone()),
            Output::Classes => one_hot(&batch.labels, self.classes),
        }
    }

    /// The weight of the divergence in a step, counted from 1: it rises in a straight line, so that the latent is used before it is
    /// charged for (Bowman et al. 2016, section 3.1).
    fn kl_weight(&self, step: u64) -> f64 {
        let warmup = self.task.kl_warmup_steps;
        if step >= warmup { self.task.kl_weight } else { self.task.kl_weight * step as f64 / warmup as f64 }
    }

    fn gradients(&self, batch: &Batch, step: u64) -> candle_core::Result<(Gradients, Unread)> {
        let (mean, log_variance) = self.network.encode(&batch.photos, &self.seen(batch)?, true)?;
        let noise = self.noise(batch.names.len(), "latent noise", &[step], batch.photos.device())?;
        let latent = ops::reparameterize(&mean, &log_variance, &noise)?;
        let kl = ops::gaussian_kl(&mean, &log_variance)?;
        drop((mean, log_variance)); // `backward` frees on its way what nobody else holds
        let (loss, mut losses) = self.criterion.of(&self.network.decode(&batch.photos, &latent, true)?, batch)?;
        losses.push("kl", &kl);
        let total = ops::weighted_sum(&[(&loss, 1.0), (&kl, self.kl_weight(step))])?;
        drop((latent, loss, kl));
        let losses = losses.gather()?;
        Ok((ops::backward(total)?, losses))
    }

    /// What the network paints with each of the fixed latents of a prediction, the same for every image.
    fn samples(&self, photos: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let features = self.predictor.features_t(photos, false)?;
        let images = photos.dim(0)?;
        let sample = |index: usize| {
            let latent = self.noise(1, "predicted latent", &[index as u64], photos.device())?;
            let painted = self.predictor.paint(&features, &latent.repeat((images, 1))?)?;
            if self.task.output == Output::Classes { ops::softmax(&painted) } else { Ok(painted) }
        };
        (0..self.task.samples).map(sample).collect()
    }

    /// The mean of the samples, as logits or colours.
    fn mean(&self, photos: &Tensor) -> candle_core::Result<Tensor> {
        let mean = mean_of(&self.samples(photos)?)?;
        if self.task.output == Output::Classes { logits_of(&mean) } else { Ok(mean) }
    }

    fn prediction(&self, output: Tensor) -> Prediction {
        match self.task.output {
            Output::Rgb => Prediction::Colors(output),
            Output::Classes => Prediction::Logits(output),
        }
    }
}

impl Learner for VariationalLearner {
    fn train_step(&mut self, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        in_pool(|| {
            self.weights.learning().set_step(step.number);
            let (gradients, unread) = self.gradients(batch, step.number)?;
            let losses = move_parameters(NETWORK, &mut self.optimizer, &gradients, unread, step)?;
            self.weights.follow(step.number)?;
            Ok(losses)
        })
    }

    fn train_step_from(&mut self, part: &str, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        if part == NETWORK { self.train_step(batch, step) } else { Err(no_such_part(part)) }
    }

    fn evaluate(&self, batch: &Batch) -> Result<(Prediction, Vec<Loss>), TrainingError> {
        in_pool(|| {
            let output = self.mean(&batch.photos)?;
            let (_, losses) = self.criterion.of(&output, batch)?;
            Ok((self.prediction(output), losses.read()?))
        })
    }

    fn predict(&self, photos: &Tensor) -> Result<Prediction, TrainingError> {
        in_pool(|| Ok(self.prediction(self.mean(photos)?)))
    }

    /// The mean distance of the samples from their mean: half the sum over classes of the differences of probability, or the mean over
    /// channels of the differences of colour, where 1 is all that there can be.
    fn uncertainty(&self, photos: &Tensor) -> Result<Option<Tensor>, TrainingError> {
        in_pool(|| {
            let samples = self.samples(photos)?;
            let count = samples.len() as f64;
            let mean = mean_of(&samples)?;
            let mut total = mean.zeros_like()?;
            for sample in &samples {
                total = (total + (sample - &mean)?.abs()?)?;
            }
            let per_pixel = match self.task.output {
                Output::Classes => (total.sum(1)? / (2.0 * count))?,
                Output::Rgb => (total.mean(1)? / (2.0 * count))?,
            };
            // Colours have no bounds.
            Ok(Some(per_pixel.clamp(0f32, 1f32)?))
        })
    }

    fn side_multiple(&self) -> usize {
        1 << self.task.network.levels
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn optimizer_state(&self) -> Result<BTreeMap<String, Tensor>, TrainingError> {
        Ok(self.optimizer.state("optimizer")?)
    }

    fn load_optimizer_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        Ok(self.optimizer.restore("optimizer", state)?)
    }

    fn networks(&self) -> Vec<(&'static str, usize)> {
        vec![("cvae", self.weights.learning().count())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, four_classes, recipe};
    use super::*;

    fn learner(settings: &[&str]) -> VariationalLearner {
        let config = recipe("smoke-cvae", &[settings, &["data.height=32", "data.width=32"]].concat());
        let crate::config::TaskConfig::Variational(task) = &config.task else { panic!("another task") };
        VariationalLearner::new(task, &config, &four_classes(), &Device::Cpu).unwrap()
    }

    const COLORS: [&str; 2] = ["task.variational.output=rgb", "task.variational.loss={ l1 = { weight = 1.0 } }"];

    /// Every parameter has its gradient, nothing else has one, and none comes by way of candle.
    #[test]
    fn a_step_has_the_gradients_of_its_network() {
        for settings in [&[][..], &COLORS] {
            let learner = learner(settings);
            let (gradients, losses) = learner.gradients(&batch(32, 32), 1).unwrap();
            assert!(
                losses.read().unwrap().iter().any(|loss| loss.name == "kl" && loss.value > 0.0)
                    && !gradients.through_candle()
            );
            let parameters = learner.weights.learning().trainable();
            assert_eq!(gradients.len(), parameters.len());
            assert!(parameters.iter().all(|(_, parameter)| gradients.get(parameter).is_some()));
        }
    }

    #[test]
    fn the_divergence_is_charged_for_little_by_little() {
        let learner = learner(&["task.variational.kl_weight=0.5", "task.variational.kl_warmup_steps=10"]);
        let percent = |learner: &VariationalLearner, step| (learner.kl_weight(step) * 100.0).round() as i64;
        assert_eq!([1, 5, 10, 1000].map(|step| percent(&learner, step)), [5, 25, 50, 50]);
        assert_eq!(percent(&self::learner(&["task.variational.kl_warmup_steps=0"]), 1), 1);
    }

    #[test]
    fn samples_differ_and_their_disagreement_is_a_share() {
        for settings in [&[][..], &COLORS] {
            let learner = learner(settings);
            let photos = batch(32, 32).photos;
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let samples = learner.samples(&photos).unwrap();
            assert_eq!(samples.len(), 4);
            assert_ne!(values(&samples[0]), values(&samples[1]));
            let uncertainty = learner.uncertainty(&photos).unwrap().unwrap();
            assert_eq!(uncertainty.dims(), [2, 32, 32]);
            let values = values(&uncertainty);
            assert!(values.iter().all(|share| (0.0..=1.0).contains(share)) && values.iter().any(|share| *share > 0.0));
        }
        // A single sample agrees with itself.
        let alone = learner(&["task.variational.samples=1"]).uncertainty(&batch(32, 32).photos).unwrap().unwrap();
        assert!(alone.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|share| share.to_bits() == 0));
    }
}
