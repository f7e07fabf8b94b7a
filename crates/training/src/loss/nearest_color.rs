//! A loss of colours that knows what they will be taken for.

use candle_core::{Device, Tensor};
use img2seg_data::ClassTable;
use img2seg_ops::{self as ops, Conv2d};
use serde::{Deserialize, Serialize};

use super::ClassWeights;

/// Softmax cross-entropy of the classes, where a class's logit is `-sharpness` times the squared distance of the predicted colour, in
/// [-1, 1], from the class's own. The likeliest class is that of the nearest colour, which is what a prediction is decoded to: a loss of
/// colours that is small where the decoded label is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearestColor {
    /// Its weight in the sum, above 0.
    pub weight: f64,
    /// How sure a colour is of its class, above 0: the odds of two classes change by a factor of e where the squared distances from their
    /// colours differ by `1 / sharpness`. Black and white lie 12 apart.
    pub sharpness: f64,
    /// How much each class counts.
    pub class_weights: ClassWeights,
}

/// A [`NearestColor`] on a device.
pub(crate) struct NearestColorCriterion {
    /// (classes, 3, 1, 1).
    weight: Tensor,
    /// (classes).
    bias: Tensor,
    class_weights: Option<Tensor>,
}

impl NearestColorCriterion {
    pub(crate) fn new(config: &NearestColor, classes: &ClassTable, device: &Device) -> candle_core::Result<Self> {
        // -s |x - p|^2 = 2 s p x - s |p|^2 - s |x|^2, and softmax does not see the last term, which all classes share.
        let colors: Vec<[f64; 3]> =
            classes.classes().iter().map(|class| class.color.map(|level| f64::from(level) / 127.5 - 1.0)).collect();
        let weight: Vec<f32> = colors.iter().flatten().map(|p| (2.0 * config.sharpness * p) as f32).collect();
        let square = |p: &[f64; 3]| p.iter().map(|p| p * p).sum::<f64>();
        let bias: Vec<f32> = colors.iter().map(|p| (-config.sharpness * square(p)) as f32).collect();
        Ok(Self {
            weight: Tensor::from_vec(weight, (colors.len(), 3, 1, 1), device)?,
            bias: Tensor::from_vec(bias, colors.len(), device)?,
            class_weights: config.class_weights.tensor(colors.len(), device)?,
        })
    }

    /// Of colours (n, 3, h, w) and labels (n, h, w).
    pub(crate) fn of(&self, colors: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
        let logits = ops::conv2d(colors, &self.weight, Some(&self.bias), Conv2d::default())?;
        ops::cross_entropy(&logits, labels, self.class_weights.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss as its definition has it, in f64: of one image of colours (3, h, w).
    fn defined(colors: &[f32], labels: &[u32], classes: &ClassTable, sharpness: f64, weights: &[f64]) -> f64 {
        let (mut sum, mut mass) = (0.0, 0.0);
        for (pixel, &label) in labels.iter().enumerate() {
            let Some(weight) = weights.get(label as usize) else { continue };
            let logit = |color: [u8; 3]| {
                let difference = |channel: usize| {
                    f64::from(colors[channel * labels.len() + pixel]) - (f64::from(color[channel]) / 127.5 - 1.0)
                };
                -sharpness * (0..3).map(|channel| difference(channel).powi(2)).sum::<f64>()
            };
            let logits: Vec<f64> = classes.classes().iter().map(|class| logit(class.color)).collect();
            let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            sum += weight * (log_sum - logits[label as usize]);
            mass += weight;
        }
        sum / mass
    }

    /// Values and gradients, by definition and by central differences; void counts for nothing, and colours may lie beyond [-1, 1].
    #[test]
    fn the_loss_is_its_definition() {
        let classes = ClassTable::load("camvid").unwrap();
        let pixels = 15;
        let colors: Vec<f32> = (0..3 * pixels).map(|i| 1.2 * (i as f32 * 1.7).sin()).collect();
        let labels: Vec<u32> = (0..pixels as u32).map(|i| if i == 4 { 255 } else { i % 11 }).collect();
        let weights: Vec<f64> = (0..11).map(|i| 0.5 + f64::from(i) / 4.0).collect();
        let labels_tensor = Tensor::from_vec(labels.clone(), (1, 3, 5), &Device::Cpu).unwrap();
        for (sharpness, class_weights) in [(3.0, ClassWeights::None), (16.0, ClassWeights::Fixed(weights.clone()))] {
            let weights = if class_weights == ClassWeights::None { vec![1.0; 11] } else { weights.clone() };
            let config = NearestColor { weight: 1.0, sharpness, class_weights };
            let criterion = NearestColorCriterion::new(&config, &classes, &Device::Cpu).unwrap();
            let x = candle_core::Var::from_vec(colors.clone(), (1, 3, 3, 5), &Device::Cpu).unwrap();
            let loss = criterion.of(&x, &labels_tensor).unwrap();
            let expected = defined(&colors, &labels, &classes, sharpness, &weights);
            let found = f64::from(loss.to_scalar::<f32>().unwrap());
            assert!((found - expected).abs() < 1e-5 * expected, "{found} for {expected}");
            let gradients = ops::backward(loss).unwrap();
            let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for i in 0..colors.len() {
                let beside = |by: f32| {
                    let mut colors = colors.clone();
                    colors[i] += by;
                    (f64::from(colors[i]), defined(&colors, &labels, &classes, sharpness, &weights))
                };
                let ((x_1, above), (x_0, below)) = (beside(1e-3), beside(-1e-3));
                let slope = (above - below) / (x_1 - x_0);
                assert!(
                    (f64::from(gradient[i]) - slope).abs() < 1e-3 * (1.0 + slope.abs()),
                    "{i}: {} for {slope}",
                    gradient[i]
                );
            }
        }
    }

    #[test]
    fn a_colour_of_the_palette_costs_nothing() {
        let classes = ClassTable::load("camvid").unwrap();
        let config = NearestColor { weight: 1.0, sharpness: 100.0, class_weights: ClassWeights::None };
        let criterion = NearestColorCriterion::new(&config, &classes, &Device::Cpu).unwrap();
        let colors: Vec<f32> = (0..3)
            .flat_map(|channel| {
                classes.classes().iter().map(move |class| f32::from(class.color[channel]) / 127.5 - 1.0)
            })
            .collect();
        let colors = Tensor::from_vec(colors, (1, 3, 1, 11), &Device::Cpu).unwrap();
        let labels =
            |of: fn(u32) -> u32| Tensor::from_vec((0..11).map(of).collect(), (1, 1, 11), &Device::Cpu).unwrap();
        assert!(criterion.of(&colors, &labels(|i| i)).unwrap().to_scalar::<f32>().unwrap() < 1e-6);
        assert!(criterion.of(&colors, &labels(|i| (i + 1) % 11)).unwrap().to_scalar::<f32>().unwrap() > 10.0);
    }
}
