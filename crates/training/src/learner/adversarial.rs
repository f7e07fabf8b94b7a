//! A generator and a discriminator, trained against each other: the lab report's Listing 4.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, keyed};
use img2seg_models::{Discriminator, Generator, Parameters};
use img2seg_ops as ops;

use super::{Learner, Prediction, Step};
use crate::adam::Adam;
use crate::config::AdversarialConfig;
use crate::{Loss, RunConfig, TrainingError};

/// A conditional GAN and its two optimisers.
pub struct AdversarialLearner {
    /// Of both networks, in the scopes `generator` and `discriminator`.
    parameters: Parameters,
    generator: Generator,
    discriminator: Discriminator,
    /// The same discriminator, made of detached variables: the generator learns through it, and it receives no gradient.
    discriminator_seen_by_generator: Discriminator,
    generator_adam: Adam,
    discriminator_adam: Adam,
    l1_weight: f64,
    noise_channels: usize,
    seed: u64,
}

impl AdversarialLearner {
    /// A fresh learner with the weights that the recipe's seed draws.
    pub fn new(task: &AdversarialConfig, config: &RunConfig, device: &Device) -> Result<Self, TrainingError> {
        Generator::check_size(config.data.height, config.data.width)?;
        let parameters = Parameters::new(config.seed, device);
        let generator_scope = parameters.scope("generator");
        let discriminator_scope = parameters.scope("discriminator");
        let generator = Generator::new(&generator_scope, &task.generator)?;
        let discriminator = Discriminator::new(&discriminator_scope, &task.discriminator)?;
        Ok(Self {
            generator_adam: Adam::new(&generator_scope, &task.generator_adam)?,
            discriminator_adam: Adam::new(&discriminator_scope, &task.discriminator_adam)?,
            discriminator_seen_by_generator: Discriminator::new(&discriminator_scope.detached(), &task.discriminator)?,
            parameters,
            generator,
            discriminator,
            l1_weight: task.l1_weight,
            noise_channels: task.generator.noise_channels,
            seed: config.seed,
        })
    }

    /// Standard normal noise (n, `noise_channels`, h, w), or none when the recipe has none. The same for every image of `numbers`.
    fn noise(&self, photos: &Tensor, purpose: &str, numbers: &[u64]) -> candle_core::Result<Option<Tensor>> {
        if self.noise_channels == 0 {
            return Ok(None);
        }
        let (images, _, height, width) = photos.dims4()?;
        let shape = (images, self.noise_channels, height, width);
        let mut rng = keyed::rng(self.seed, purpose, numbers);
        let values: Vec<f32> = (0..images * self.noise_channels * height * width).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(photos.device()).map(Some)
    }

    fn generate(&self, photos: &Tensor) -> candle_core::Result<Tensor> {
        // One image's noise for all: what an image becomes must not depend on its neighbours in the batch.
        let noise = self.noise(&photos.narrow(0, 0, 1)?, "evaluation noise", &[])?;
        let noise = noise.map(|noise| noise.repeat((photos.dim(0)?, 1, 1, 1))).transpose()?;
        Ok(self.generator.forward_t(photos, noise.as_ref(), false)?.detach())
    }
}

impl Learner for AdversarialLearner {
    fn train_step(&mut self, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        let Batch { photos, label_maps, .. } = batch;

        // The discriminator: true pairs are 1, generated ones are 0.
        let judged = self.discriminator.forward_t(photos, label_maps, true)?;
        let real_loss = ops::bce_with_logits(&judged, 1.0)?;
        let noise = self.noise(photos, "training noise", &[step.number])?;
        let generated = self.generator.forward_t(photos, noise.as_ref(), true)?;
        let judged = self.discriminator.forward_t(photos, &generated.detach(), true)?;
        let generated_loss = ops::bce_with_logits(&judged, 0.0)?;
        let gradients = (&real_loss + &generated_loss)?.backward()?;
        self.discriminator_adam.step(&gradients, step.rate_factor)?;

        // The generator: the updated discriminator shall take its pairs for true ones.
        let judged = self.discriminator_seen_by_generator.forward_t(photos, &generated, true)?;
        let generator_loss = ops::bce_with_logits(&judged, 1.0)?;
        let mut losses = vec![
            Loss::of("d_real", &real_loss)?,
            Loss::of("d_fake", &generated_loss)?,
            Loss::of("g", &generator_loss)?,
        ];
        let mut total = generator_loss;
        if self.l1_weight > 0.0 {
            let l1 = ops::l1(&generated, label_maps)?;
            losses.push(Loss::of("l1", &l1)?);
            total = (total + (l1 * self.l1_weight)?)?;
        }
        let gradients = total.backward()?;
        self.generator_adam.step(&gradients, step.rate_factor)?;
        Ok(losses)
    }

    fn evaluate(&self, batch: &Batch) -> Result<(Prediction, Vec<Loss>), TrainingError> {
        let generated = self.generate(&batch.photos)?;
        let seen = &self.discriminator_seen_by_generator;
        let real = seen.forward_t(&batch.photos, &batch.label_maps, false)?;
        let judged = seen.forward_t(&batch.photos, &generated, false)?;
        let losses = vec![
            Loss::of("d_real", &ops::bce_with_logits(&real, 1.0)?)?,
            Loss::of("d_fake", &ops::bce_with_logits(&judged, 0.0)?)?,
            Loss::of("g", &ops::bce_with_logits(&judged, 1.0)?)?,
            Loss::of("l1", &ops::l1(&generated, &batch.label_maps)?)?,
        ];
        Ok((Prediction::Colors(generated), losses))
    }

    fn predict(&self, photos: &Tensor) -> Result<Prediction, TrainingError> {
        Ok(Prediction::Colors(self.generate(photos)?))
    }

    fn weights(&self) -> BTreeMap<String, Tensor> {
        self.parameters.tensors()
    }

    fn load_weights(&mut self, weights: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        Ok(self.parameters.load(weights)?)
    }

    fn optimizer_state(&self) -> Result<BTreeMap<String, Tensor>, TrainingError> {
        let mut state = self.generator_adam.state("generator_adam")?;
        state.extend(self.discriminator_adam.state("discriminator_adam")?);
        Ok(state)
    }

    fn load_optimizer_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        self.generator_adam.restore("generator_adam", state)?;
        Ok(self.discriminator_adam.restore("discriminator_adam", state)?)
    }

    fn networks(&self) -> Vec<(&'static str, usize)> {
        ["generator", "discriminator"].map(|network| (network, self.parameters.scope(network).count())).to_vec()
    }
}
