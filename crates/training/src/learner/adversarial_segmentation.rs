//! A network that gives classes, and a discriminator that tells its softmax maps from true ones (Luc et al. 2016; Hung et al. 2018).

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, ClassTable};
use img2seg_models::PatchDiscriminator;
use img2seg_ops::{self as ops, Gradients};

use super::network::Network;
use super::{Learner, Prediction, Step, in_pool, move_parameters, no_such_part, one_hot};
use crate::config::AdversarialSegmentationConfig;
use crate::loss::{SegmentationCriterion, Unread};
use crate::optimizer::Optimizer;
use crate::weights::Weights;
use crate::{Loss, RunConfig, TrainingError};

/// The parts of a step, in their order; also the scopes of the networks' names.
const DISCRIMINATOR: &str = "discriminator";
const NETWORK: &str = "network";

/// A segmentation network, a discriminator of its class maps, and their optimisers.
pub struct AdversarialSegmentationLearner {
    weights: Weights,
    network: Network,
    /// The same network of the weights that predict, detached: its predictions keep no graph.
    predictor: Network,
    discriminator: PatchDiscriminator,
    /// The same discriminator, detached: the network learns through it, and it receives no gradient.
    discriminator_seen_by_network: PatchDiscriminator,
    optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    criterion: SegmentationCriterion,
    adversarial_weight: f64,
    classes: usize,
}

impl AdversarialSegmentationLearner {
    /// A fresh learner for the evaluated classes of a table, with the weights that the recipe's seed draws.
    pub fn new(
        task: &AdversarialSegmentationConfig,
        config: &RunConfig,
        classes: &ClassTable,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let weights = Weights::new(config, device);
        let [network_scope, discriminator_scope] = [NETWORK, DISCRIMINATOR].map(|name| weights.learning().scope(name));
        for (height, width) in config.data.sizes() {
            task.network.check_size(height, width)?;
            task.discriminator.check_size(height, width)?;
        }
        let discriminator = |parameters| PatchDiscriminator::new(parameters, &task.discriminator, 3 + classes.len());
        Ok(Self {
            network: Network::new(&network_scope, &task.network, 3, classes.len())?,
            predictor: Network::new(&weights.predicting().scope(NETWORK), &task.network, 3, classes.len())?,
            discriminator: discriminator(&discriminator_scope)?,
            discriminator_seen_by_network: discriminator(&discriminator_scope.detached())?,
            optimizer: Optimizer::new(&network_scope, &task.optimizer)?,
            discriminator_optimizer: Optimizer::new(&discriminator_scope, &task.discriminator_optimizer)?,
            criterion: SegmentationCriterion::new(&task.loss, classes, device)?,
            adversarial_weight: task.adversarial_weight,
            classes: classes.len(),
            weights,
        })
    }

    /// The true class maps (n, classes, h, w): 1 at the label and 0 elsewhere. Where the label is void the prediction stands, so that void
    /// tells nothing.
    fn true_maps(&self, labels: &Tensor, predicted: &Tensor) -> candle_core::Result<Tensor> {
        let void = labels.eq(ops::VOID)?.unsqueeze(1)?.broadcast_as(predicted.shape())?;
        void.where_cond(predicted, &one_hot(labels, self.classes)?)
    }

    /// True maps are 1, predicted ones are 0.
    fn discriminator_gradients(&self, batch: &Batch, predicted: &Tensor) -> candle_core::Result<(Gradients, Unread)> {
        let judge = |maps: &Tensor, target: f64| {
            ops::bce_with_logits(&self.discriminator.forward_t(Some(&batch.photos), maps, true)?, target)
        };
        let (real, fake) = (judge(&self.true_maps(&batch.labels, predicted)?, 1.0)?, judge(predicted, 0.0)?);
        let mut losses = Unread::default();
        losses.push("d_real", &real);
        losses.push("d_fake", &fake);
        let total = ops::weighted_sum(&[(&real, 1.0), (&fake, 1.0)])?;
        drop((real, fake)); // `backward` frees on its way what nobody else holds
        let losses = losses.gather()?;
        Ok((ops::backward(total)?, losses))
    }

    /// The labels shall be met, and the discriminator shall take the map for a true one.
    fn network_gradients(
        &self,
        batch: &Batch,
        logits: &Tensor,
        predicted: Tensor,
    ) -> candle_core::Result<(Gradients, Unread)> {
        let (loss, mut losses) = self.criterion.of(logits, batch)?;
        let judged = self.discriminator_seen_by_network.forward_t(Some(&batch.photos), &predicted, true)?;
        drop(predicted);
        let adversarial = ops::bce_with_logits(&judged, 1.0)?;
        losses.push("g", &adversarial);
        let total = ops::weighted_sum(&[(&loss, 1.0), (&adversarial, self.adversarial_weight)])?;
        drop((loss, judged, adversarial));
        let losses = losses.gather()?;
        Ok((ops::backward(total)?, losses))
    }
}

impl Learner for AdversarialSegmentationLearner {
    fn train_step(&mut self, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        self.train_step_from(DISCRIMINATOR, batch, step)
    }

    fn train_step_from(&mut self, part: &str, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        if part != DISCRIMINATOR && part != NETWORK {
            return Err(no_such_part(part));
        }
        in_pool(|| {
            self.weights.learning().set_step(step.number);
            let logits = self.network.forward_t(&batch.photos, true)?;
            let predicted = ops::softmax(&logits)?;
            let mut losses = Vec::new();
            if part == DISCRIMINATOR {
                let (gradients, unread) = self.discriminator_gradients(batch, &predicted.detach())?;
                let optimizer = &mut self.discriminator_optimizer;
                losses = move_parameters(DISCRIMINATOR, optimizer, &gradients, unread, step)?;
            }
            let (gradients, unread) = self.network_gradients(batch, &logits, predicted)?;
            let of_network = move_parameters(NETWORK, &mut self.optimizer, &gradients, unread, step)?;
            self.weights.follow(step.number)?;
            Ok([of_network, losses].concat())
        })
    }

    fn evaluate(&self, batch: &Batch) -> Result<(Prediction, Vec<Loss>), TrainingError> {
        in_pool(|| {
            let logits = self.predictor.forward_t(&batch.photos, false)?;
            let (_, losses) = self.criterion.of(&logits, batch)?;
            Ok((Prediction::Logits(logits), losses.read()?))
        })
    }

    fn predict(&self, photos: &Tensor) -> Result<Prediction, TrainingError> {
        in_pool(|| Ok(Prediction::Logits(self.predictor.forward_t(photos, false)?)))
    }

    fn side_multiple(&self) -> usize {
        self.network.side_multiple()
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn optimizer_state(&self) -> Result<BTreeMap<String, Tensor>, TrainingError> {
        let mut state = self.optimizer.state("optimizer")?;
        state.extend(self.discriminator_optimizer.state("discriminator_optimizer")?);
        Ok(state)
    }

    fn load_optimizer_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<(), TrainingError> {
        self.optimizer.restore("optimizer", state)?;
        Ok(self.discriminator_optimizer.restore("discriminator_optimizer", state)?)
    }

    fn networks(&self) -> Vec<(&'static str, usize)> {
        let count = |scope: &str| self.weights.learning().scope(scope).count();
        vec![(self.network.name(), count(NETWORK)), (DISCRIMINATOR, count(DISCRIMINATOR))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, four_classes, recipe};
    use super::*;

    fn learner() -> AdversarialSegmentationLearner {
        let config = recipe("smoke-adversarial", &["data.height=64", "data.width=64"]);
        let crate::config::TaskConfig::AdversarialSegmentation(task) = &config.task else { panic!("another task") };
        AdversarialSegmentationLearner::new(task, &config, &four_classes(), &Device::Cpu).unwrap()
    }

    /// Each network's part computes the gradients of that network alone, and none by way of candle.
    #[test]
    fn each_part_has_the_gradients_of_its_network() {
        let (learner, batch) = (learner(), batch(64, 64));
        let logits = learner.network.forward_t(&batch.photos, true).unwrap();
        let predicted = ops::softmax(&logits).unwrap();
        let of_discriminator = learner.discriminator_gradients(&batch, &predicted.detach()).unwrap().0;
        let of_network = learner.network_gradients(&batch, &logits, predicted).unwrap().0;
        for (scope, gradients) in [(DISCRIMINATOR, of_discriminator), (NETWORK, of_network)] {
            assert!(!gradients.through_candle());
            let parameters = learner.weights.learning().scope(scope).trainable();
            assert_eq!(gradients.len(), parameters.len());
            assert!(parameters.iter().all(|(_, parameter)| gradients.get(parameter).is_some()));
        }
    }

    /// Before a run has begun: both networks have to take the photos.
    #[test]
    fn sizes_that_the_discriminator_does_not_take_are_refused() {
        let patch = "task.adversarial-segmentation.discriminator.patch=286";
        let config = recipe("smoke-adversarial", &["data.height=64", "data.width=64", patch]);
        let crate::config::TaskConfig::AdversarialSegmentation(task) = &config.task else { panic!("another task") };
        let refused = AdversarialSegmentationLearner::new(task, &config, &four_classes(), &Device::Cpu)
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("the patch discriminator"), "{refused}");
    }

    #[test]
    fn void_tells_the_discriminator_nothing() {
        let labels = Tensor::new(&[[[1_u32, 255]]], &Device::Cpu).unwrap();
        let predicted =
            Tensor::new(&[[[[0.1_f32, 0.2]], [[0.2, 0.3]], [[0.3, 0.4]], [[0.4, 0.1]]]], &Device::Cpu).unwrap();
        let maps = learner().true_maps(&labels, &predicted).unwrap().flatten_all().unwrap();
        assert_eq!(maps.to_vec1::<f32>().unwrap(), [0.0, 0.2, 1.0, 0.3, 0.0, 0.4, 0.0, 0.1]);
    }
}
