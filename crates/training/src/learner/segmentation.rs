//! One network, trained towards the label map: the lab report's Listing 8.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, ClassTable};
use img2seg_ops::{self as ops, Gradients};

use super::network::Network;
use super::{Learner, Prediction, Step, in_pool, move_parameters, no_such_part};
use crate::config::{Output, SegmentationConfig};
use crate::loss::{SegmentationCriterion, Unread};
use crate::optimizer::Optimizer;
use crate::weights::Weights;
use crate::{Loss, RunConfig, TrainingError};

/// The one part of a step.
const NETWORK: &str = "network";

/// A network from photo to label map and its optimiser.
pub struct SegmentationLearner {
    weights: Weights,
    network: Network,
    /// The same network of the weights that predict, detached: its predictions keep no graph.
    predictor: Network,
    optimizer: Optimizer,
    output: Output,
    criterion: SegmentationCriterion,
}

impl SegmentationLearner {
    /// A fresh learner for the evaluated classes of a table, with the weights that the recipe's seed draws.
    pub fn new(
        task: &SegmentationConfig,
        config: &RunConfig,
        classes: &ClassTable,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let weights = Weights::new(config, device);
        let out_channels = match task.output {
            Output::Rgb => 3,
            Output::Classes => classes.len(),
        };
        for (height, width) in config.data.sizes() {
            task.network.check_size(height, width)?;
        }
        let network = Network::new(weights.learning(), &task.network, 3, out_channels)?;
        let predictor = Network::new(&weights.predicting(), &task.network, 3, out_channels)?;
        let optimizer = Optimizer::new(weights.learning(), &task.optimizer)?;
        let criterion = SegmentationCriterion::new(&task.loss, classes, device)?;
        Ok(Self { weights, network, predictor, optimizer, output: task.output, criterion })
    }

    fn gradients(&self, batch: &Batch) -> candle_core::Result<(Gradients, Unread)> {
        let (loss, losses) = self.criterion.of(&self.network.forward_t(&batch.photos, true)?, batch)?;
        let losses = losses.gather()?;
        Ok((ops::backward(loss)?, losses))
    }
}

impl Learner for SegmentationLearner {
    fn train_step(&mut self, batch: &Batch, step: Step) -> Result<Vec<Loss>, TrainingError> {
        in_pool(|| {
            self.weights.learning().set_step(step.number);
            let (gradients, unread) = self.gradients(batch)?;
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
            let prediction = self.predict(&batch.photos)?;
            let (Prediction::Logits(output) | Prediction::Colors(output)) = &prediction;
            let (_, losses) = self.criterion.of(output, batch)?;
            Ok((prediction, losses.read()?))
        })
    }

    fn predict(&self, photos: &Tensor) -> Result<Prediction, TrainingError> {
        in_pool(|| {
            let output = self.predictor.forward_t(photos, false)?;
            Ok(match self.output {
                Output::Rgb => Prediction::Colors(output),
                Output::Classes => Prediction::Logits(output),
            })
        })
    }

    fn side_multiple(&self) -> usize {
        self.network.side_multiple()
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
        vec![(self.network.name(), self.weights.learning().count())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, four_classes, recipe};
    use super::*;

    const EVERY_LOSS_OF_CLASSES: &str = "task.segmentation.loss={ cross-entropy = { weight = 1.0, class_weights = 'none' }, \
         focal = { weight = 1.0, gamma = 2.0, class_weights = { fixed = [1.0, 2.0, 3.0, 4.0] } }, dice = { weight = 0.5 }, \
         lovasz = { weight = 0.5 } }";

    const EVERY_LOSS_OF_COLORS: &str = "task.segmentation.loss={ mse = { weight = 1.0 }, l1 = { weight = 1.0 }, \
         charbonnier = { weight = 1.0, epsilon = 1e-3 }, \
         nearest-color = { weight = 1.0, sharpness = 4.0, class_weights = { fixed = [1.0, 2.0, 3.0, 4.0] } } }";

    #[test]
    fn crops_that_the_network_does_not_take_are_refused() {
        for (crop, taken) in [("[32, 48]", true), ("[32, 40]", false)] {
            let crop = format!("data.augment.crop={crop}");
            let config = recipe("smoke-unet", &[&crop]);
            let crate::config::TaskConfig::Segmentation(task) = &config.task else { panic!("another task") };
            assert_eq!(SegmentationLearner::new(task, &config, &four_classes(), &Device::Cpu).is_ok(), taken, "{crop}");
        }
    }

    /// Every parameter has its gradient, nothing else has one, and none comes by way of candle.
    #[test]
    fn a_step_has_the_gradients_of_its_network() {
        let unet: &[&str] = &["task.segmentation.network.unet.base_channels=1"];
        let classes: &[&str] = &["task.segmentation.output=classes", EVERY_LOSS_OF_CLASSES];
        for (name, settings) in [
            ("smoke-unet", unet),
            ("smoke-unet", classes),
            ("smoke-unet", &[EVERY_LOSS_OF_COLORS]),
            ("pixelwise", &[]),
            ("smoke-unet", &["exactness=bf16"]),
        ] {
            let config = recipe(name, &[&["data.height=32", "data.width=32"], settings].concat());
            let crate::config::TaskConfig::Segmentation(task) = &config.task else { panic!("another task") };
            let learner = SegmentationLearner::new(task, &config, &four_classes(), &Device::Cpu).unwrap();
            let (gradients, losses) = learner.gradients(&batch(32, 32)).unwrap();
            assert!(losses.read().unwrap()[0].value > 0.0 && !gradients.through_candle());
            let parameters = learner.weights.learning().trainable();
            assert_eq!(gradients.len(), parameters.len());
            assert!(parameters.iter().all(|(_, parameter)| gradients.get(parameter).is_some()));
        }
    }
}
