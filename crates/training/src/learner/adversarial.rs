//! A generator and a discriminator, trained against each other: the lab report's Listing 4, and pix2pix.

use std::collections::BTreeMap;
use std::iter;

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, ClassTable, keyed};
use img2seg_ops::{self as ops, Gradients};

use super::network::{JudgingNetwork, PaintingNetwork};
use super::{Learner, Prediction, Step, in_pool, move_parameters, no_such_part};
use crate::config::{AdversarialConfig, AdversarialLoss};
use crate::loss::{SegmentationCriterion, Unread};
use crate::optimizer::Optimizer;
use crate::weights::Weights;
use crate::{Loss, RunConfig, TrainingError};

/// The parts of a step, in their order; also the scopes of the networks' names.
const DISCRIMINATOR: &str = "discriminator";
const GENERATOR: &str = "generator";

/// A conditional GAN and its two optimisers.
pub struct AdversarialLearner {
    /// Of both networks, in the scopes `generator` and `discriminator`.
    weights: Weights,
    generator: PaintingNetwork,
    /// The same generator of the weights that predict, detached: its predictions keep no graph.
    predictor: PaintingNetwork,
    discriminator: JudgingNetwork,
    /// The same discriminator, made of detached variables: the generator learns through it, and it receives no gradient.
    discriminator_seen_by_generator: JudgingNetwork,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    reconstruction: SegmentationCriterion,
    loss: AdversarialLoss,
    seed: u64,
}

impl AdversarialLearner {
    /// A fresh learner for the evaluated classes of a table, with the weights that the recipe's seed draws.
    pub fn new(
        task: &AdversarialConfig,
        config: &RunConfig,
        classes: &ClassTable,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        for (height, width) in config.data.sizes() {
            task.check_size(height, width)?;
        }
        let weights = Weights::new(config, device);
        let [generator_scope, discriminator_scope] =
            [GENERATOR, DISCRIMINATOR].map(|name| weights.learning().scope(name));
        let generator = PaintingNetwork::new(&generator_scope, &task.generator)?;
        let discriminator = JudgingNetwork::new(&discriminator_scope, &task.discriminator)?;
        Ok(Self {
            generator_optimizer: Optimizer::new(&generator_scope, &task.generator_optimizer)?,
            discriminator_optimizer: Optimizer::new(&discriminator_scope, &task.discriminator_optimizer)?,
            discriminator_seen_by_generator: JudgingNetwork::new(&discriminator_scope.detached(), &task.discriminator)?,
            predictor: PaintingNetwork::new(&weights.predicting().scope(GENERATOR), &task.generator)?,
            weights,
            generator,
            discriminator,
            reconstruction: SegmentationCriterion::new(&task.reconstruction, classes, device)?,
            loss: task.loss,
            seed: config.seed,
        })
    }

    /// Standard normal noise (n, channels, h, w), or none when the recipe has none. The same for every image of `numbers`.
    fn noise(&self, photos: &Tensor, purpose: &str, numbers: &[u64]) -> candle_core::Result<Option<Tensor>> {
        let channels = self.generator.noise_channels();
        if channels == 0 {
            return Ok(None);
        }
        let (images, _, height, width) = photos.dims4()?;
        let shape = (images, channels, height, width);
        let mut rng = keyed::rng(self.seed, purpose, numbers);
        let values: Vec<f32> = (0..images * channels * height * width).map(|_| rng.normal()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(photos.device()).map(Some)
    }

    fn generate(&self, photos: &Tensor) -> candle_core::Result<Tensor> {
        // One image's noise for all: what an image becomes must not depend on its neighbours in the batch.
        let noise = self.noise(&photos.narrow(0, 0, 1)?, "evaluation noise", &[])?;
        let noise = noise.map(|noise| noise.repeat((photos.dim(0)?, 1, 1, 1))).transpose()?;
        self.predictor.forward_t(photos, noise.as_ref(), false)
    }

    /// True pairs are 1, generated ones are 0.
    fn discriminator_gradients(&self, batch: &Batch, generated: &Tensor) -> candle_core::Result<(Gradients, Unread)> {
        let judge = |label_maps: &Tensor| self.discriminator.forward_t(&batch.photos, label_maps, true);
        let (real, fake) = (self.loss.of_real(&judge(&batch.label_maps)?)?, self.loss.of_fake(&judge(generated)?)?);
        let mut losses = Unread::default();
        losses.push("d_real", &real);
        losses.push("d_fake", &fake);
        let total = ops::weighted_sum(&[(&real, 1.0), (&fake, 1.0)])?;
        drop((real, fake)); // `backward` frees on its way what nobody else holds
        let losses = losses.gather()?;
        Ok((ops::backward(total)?, losses))
    }

    /// The discriminator shall take the generator's pairs for true ones.
    fn generator_gradients(&self, batch: &Batch, generated: Tensor) -> candle_core::Result<(Gradients, Unread)> {
        let seen = &self.discriminator_seen_by_generator;
        let adversarial = self.loss.of_generator(&seen.forward_t(&batch.photos, &generated, true)?)?;
        let mut losses = Unread::default();
        losses.push("g", &adversarial);
        let terms = self.reconstruction.terms(&generated, batch)?;
        for (name, term, _) in &terms {
            losses.push(name, term);
        }
        let mut total = adversarial;
        if !terms.is_empty() {
            let reconstruction = terms.iter().map(|(_, term, weight)| (term, *weight));
            total = ops::weighted_sum(&iter::once((&total, 1.0)).chain(reconstruction).collect::<Vec<_>>())?;
        }
        drop(terms);
        drop(generated);
        let losses = losses.gather()?;
        Ok((ops::backward(total)?, losses))
    }
}

impl Learner for AdversarialLearner {
    fn train_step(&mut self, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        self.train_step_from(DISCRIMINATOR, batch, step)
    }

    fn train_step_from(&mut self, part: &str, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        if part != DISCRIMINATOR && part != GENERATOR {
            return Err(no_such_part(part));
        }
        in_pool(|| {
            self.weights.learning().set_step(step.number);
            let noise = self.noise(&batch.photos, "training noise", &[step.number])?;
            let generated = self.generator.forward_t(&batch.photos, noise.as_ref(), true)?;
            let mut losses = Vec::new();
            if part == DISCRIMINATOR {
                let (gradients, unread) = self.discriminator_gradients(batch, &generated.detach())?;
                let optimizer = &mut self.discriminator_optimizer;
                losses = move_parameters(DISCRIMINATOR, optimizer, &gradients, unread, step)?;
            }
            let (gradients, unread) = self.generator_gradients(batch, generated)?;
            let of_generator = move_parameters(GENERATOR, &mut self.generator_optimizer, &gradients, unread, step)?;
            self.weights.follow(step.number)?;
            losses.extend(of_generator);
            Ok(losses)
        })
    }

    fn evaluate(&self, batch: &Batch) -> Result<(Prediction, Vec<Loss>), TrainingError> {
        in_pool(|| {
            let generated = self.generate(&batch.photos)?;
            let seen = &self.discriminator_seen_by_generator;
            let real = seen.forward_t(&batch.photos, &batch.label_maps, false)?;
            let judged = seen.forward_t(&batch.photos, &generated, false)?;
            let mut losses = Unread::default();
            losses.push("d_real", &self.loss.of_real(&real)?);
            losses.push("d_fake", &self.loss.of_fake(&judged)?);
            losses.push("g", &self.loss.of_generator(&judged)?);
            for (name, term, _) in &self.reconstruction.terms(&generated, batch)? {
                losses.push(name, term);
            }
            Ok((Prediction::Colors(generated), losses.read()?))
        })
    }

    fn predict(&self, photos: &Tensor) -> Result<Prediction, TrainingError> {
        in_pool(|| Ok(Prediction::Colors(self.generate(photos)?)))
    }

    fn side_multiple(&self) -> usize {
        self.generator.side_multiple()
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn optimizer_state(&self) -> Result<BTreeMap<String, Tensor>, TrainingError> {
        let mut state = self.generator_optimizer.state("generator_optimizer")?;
        state.extend(self.discriminator_optimizer.state("discriminator_optimizer")?);
        Ok(state)
    }

    fn load_optimizer_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        self.generator_optimizer.restore("generator_optimizer", state)?;
        Ok(self.discriminator_optimizer.restore("discriminator_optimizer", state)?)
    }

    fn networks(&self) -> Vec<(&'static str, usize)> {
        [GENERATOR, DISCRIMINATOR].map(|network| (network, self.weights.learning().scope(network).count())).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, four_classes, recipe};
    use super::*;

    /// Each network's step computes the gradients of that network alone, and none by way of candle.
    #[test]
    fn each_step_has_the_gradients_of_its_network() {
        const PIX2PIX: &str = "task.adversarial.generator={ pix2pix = { base_channels = 2, levels = 5, norm = 'instance', dropout = 0.5 } }";
        const PATCH: &str = "task.adversarial.discriminator={ patch = { base_channels = 2, patch = 16, norm = 'batch', spectral_norm = true } }";
        let (l1, hinge) =
            ("task.adversarial.reconstruction={ l1 = { weight = 100.0 } }", "task.adversarial.loss=hinge");
        let without = "task.adversarial.reconstruction={}";
        let classes = "task.adversarial.reconstruction={ mse = { weight = 1.0 }, nearest-color = { weight = 1.0, sharpness = 4.0, class_weights = 'none' } }";
        let least_squares = "task.adversarial.loss=least-squares";
        for settings in
            [&[l1][..], &[without], &[l1, hinge, PIX2PIX], &[without, least_squares, PATCH], &[classes, PIX2PIX, PATCH]]
        {
            let config = recipe("smoke-cgan", &[settings, &["data.height=64", "data.width=64"]].concat());
            let crate::config::TaskConfig::Adversarial(task) = &config.task else { panic!("another task") };
            let learner = AdversarialLearner::new(task, &config, &four_classes(), &Device::Cpu).unwrap();
            let batch = batch(64, 64);
            let noise = learner.noise(&batch.photos, "training noise", &[1]).unwrap();
            let generated = learner.generator.forward_t(&batch.photos, noise.as_ref(), true).unwrap();
            let of_discriminator = learner.discriminator_gradients(&batch, &generated.detach()).unwrap().0;
            let of_generator = learner.generator_gradients(&batch, generated).unwrap().0;
            for (network, gradients) in [("discriminator", of_discriminator), ("generator", of_generator)] {
                assert!(!gradients.through_candle());
                let parameters = learner.weights.learning().scope(network).trainable();
                assert_eq!(gradients.len(), parameters.len());
                assert!(parameters.iter().all(|(_, parameter)| gradients.get(parameter).is_some()));
            }
        }
    }
}
