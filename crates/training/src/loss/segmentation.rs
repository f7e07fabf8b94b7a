//! How far a prediction lies from its label map, or from its labels.

use candle_core::{Device, Tensor};
use img2seg_data::{Batch, ClassTable};
use img2seg_ops as ops;
use serde::{Deserialize, Serialize};

use super::nearest_color::NearestColorCriterion;
use super::{ClassWeights, NearestColor, Unread};

/// A weighted sum of losses; `[task.segmentation.loss.KIND]` in a recipe, once for each term.
///
/// `mse`, `l1` and `charbonnier` compare colours in [-1, 1], `nearest-color` compares colours with labels; the others compare logits with
/// labels. Where labels are compared, void pixels are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SegmentationLoss {
    /// Mean squared error of colours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mse: Option<Weighted>,
    /// Mean absolute error of colours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l1: Option<Weighted>,
    /// Charbonnier's loss of colours: a smooth absolute error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charbonnier: Option<Charbonnier>,
    /// Softmax cross-entropy of the classes whose colours are near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest_color: Option<NearestColor>,
    /// Softmax cross-entropy of logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<CrossEntropy>,
    /// Focal loss of logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub focal: Option<Focal>,
    /// Soft Dice loss of logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dice: Option<Weighted>,
    /// Lovasz-softmax of logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lovasz: Option<Weighted>,
}

/// A loss with no settings of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// Its weight in the sum, above 0.
    pub weight: f64,
}

/// Charbonnier's loss: the mean of `sqrt(d^2 + epsilon^2)` (Charbonnier et al. 1994; Lai et al. 2017 take 1e-3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charbonnier {
    /// Its weight in the sum, above 0.
    pub weight: f64,
    /// Differences below it count as squares, above 0.
    pub epsilon: f64,
}

/// Softmax cross-entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropy {
    /// Its weight in the sum, above 0.
    pub weight: f64,
    /// How much each class counts.
    pub class_weights: ClassWeights,
}

/// Focal loss (Lin et al. 2017).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Focal {
    /// Its weight in the sum, above 0.
    pub weight: f64,
    /// How fast what is already predicted well stops counting, 0 or more; 2 in the paper, 0 is cross-entropy.
    pub gamma: f64,
    /// How much each class counts.
    pub class_weights: ClassWeights,
}

impl SegmentationLoss {
    /// Cross-entropy alone, all classes alike.
    pub fn cross_entropy() -> Self {
        let cross_entropy = CrossEntropy { weight: 1.0, class_weights: ClassWeights::None };
        Self { cross_entropy: Some(cross_entropy), ..Self::default() }
    }

    /// Whether it has no terms.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the ranges, and that there is a loss of colours alone or of classes alone; `key` is where the table stands in the recipe.
    pub(crate) fn validate(&self, key: &str, of_colors: bool) -> Result<(), String> {
        let Self { mse, l1, charbonnier, nearest_color, cross_entropy, focal, dice, lovasz } = self;
        let weight = |of: &Weighted| of.weight;
        let terms = [
            ("mse", true, mse.as_ref().map(weight)),
            ("l1", true, l1.as_ref().map(weight)),
            ("charbonnier", true, charbonnier.as_ref().map(|of| of.weight)),
            ("nearest-color", true, nearest_color.as_ref().map(|of| of.weight)),
            ("cross-entropy", false, cross_entropy.as_ref().map(|of| of.weight)),
            ("focal", false, focal.as_ref().map(|of| of.weight)),
            ("dice", false, dice.as_ref().map(weight)),
            ("lovasz", false, lovasz.as_ref().map(weight)),
        ];
        let mut given = terms.iter().filter_map(|&(name, colors, weight)| Some((name, colors, weight?))).peekable();
        let fits = if of_colors {
            "\"rgb\" takes mse, l1, charbonnier and nearest-color"
        } else {
            "\"classes\" takes cross-entropy, focal, dice and lovasz"
        };
        if given.peek().is_none() {
            return Err(format!("{key}: names no loss; output {fits}"));
        }
        for (name, colors, weight) in given {
            if colors != of_colors {
                return Err(format!("{key}.{name}: output {fits}"));
            }
            if !(weight.is_finite() && weight > 0.0) {
                return Err(format!("{key}.{name}.weight: must be above 0"));
            }
        }
        if charbonnier.as_ref().is_some_and(|of| !(of.epsilon.is_finite() && of.epsilon > 0.0)) {
            return Err(format!("{key}.charbonnier.epsilon: must be above 0"));
        }
        if nearest_color.as_ref().is_some_and(|of| !(of.sharpness.is_finite() && of.sharpness > 0.0)) {
            return Err(format!("{key}.nearest-color.sharpness: must be above 0"));
        }
        if focal.as_ref().is_some_and(|of| !(of.gamma.is_finite() && of.gamma >= 0.0)) {
            return Err(format!("{key}.focal.gamma: must be 0 or more"));
        }
        for (name, weights) in self.class_weights() {
            weights.validate(&format!("{key}.{name}.class_weights"))?;
        }
        Ok(())
    }

    fn class_weights(&self) -> impl Iterator<Item = (&'static str, &ClassWeights)> {
        let Self { nearest_color, cross_entropy, focal, .. } = self;
        [
            nearest_color.as_ref().map(|of| ("nearest-color", &of.class_weights)),
            cross_entropy.as_ref().map(|of| ("cross-entropy", &of.class_weights)),
            focal.as_ref().map(|of| ("focal", &of.class_weights)),
        ]
        .into_iter()
        .flatten()
    }

    /// The class weights of all terms.
    pub(crate) fn class_weights_mut(&mut self) -> impl Iterator<Item = &mut ClassWeights> {
        let Self { nearest_color, cross_entropy, focal, .. } = self;
        [
            nearest_color.as_mut().map(|of| &mut of.class_weights),
            cross_entropy.as_mut().map(|of| &mut of.class_weights),
            focal.as_mut().map(|of| &mut of.class_weights),
        ]
        .into_iter()
        .flatten()
    }

    /// Takes the numbers of `settled`, a loss of the same terms, where these class weights were left to the data.
    pub(crate) fn take_settled_weights(&mut self, settled: &Self) {
        let settled: Vec<_> = settled.class_weights().map(|(name, weights)| (name, weights.clone())).collect();
        let names: Vec<_> = self.class_weights().map(|(name, _)| name).collect();
        for (name, weights) in names.into_iter().zip(self.class_weights_mut()) {
            if let Some((_, settled)) = settled.iter().find(|(of, _)| *of == name) {
                weights.take_settled(settled);
            }
        }
    }
}

/// A term of a loss: its name, its value as a scalar tensor, and its weight in the sum.
pub(crate) type Term = (&'static str, Tensor, f64);

/// A [`SegmentationLoss`] on a device.
pub(crate) struct SegmentationCriterion {
    config: SegmentationLoss,
    nearest_color: Option<NearestColorCriterion>,
    cross_entropy_weights: Option<Tensor>,
    focal_weights: Option<Tensor>,
}

impl SegmentationCriterion {
    /// For the evaluated classes of a table.
    pub(crate) fn new(config: &SegmentationLoss, classes: &ClassTable, device: &Device) -> candle_core::Result<Self> {
        let tensor = |weights: Option<&ClassWeights>| match weights {
            Some(weights) => weights.tensor(classes.len(), device),
            None => Ok(None),
        };
        let nearest_color = config.nearest_color.as_ref();
        Ok(Self {
            nearest_color: nearest_color.map(|of| NearestColorCriterion::new(of, classes, device)).transpose()?,
            cross_entropy_weights: tensor(config.cross_entropy.as_ref().map(|of| &of.class_weights))?,
            focal_weights: tensor(config.focal.as_ref().map(|of| &of.class_weights))?,
            config: config.clone(),
        })
    }

    /// The terms for a network's output (n, c, h, w), to be differentiated: names, values and weights.
    pub(crate) fn terms(&self, output: &Tensor, batch: &Batch) -> candle_core::Result<Vec<Term>> {
        let SegmentationLoss { mse, l1, charbonnier, nearest_color, cross_entropy, focal, dice, lovasz } = &self.config;
        let mut terms: Vec<Term> = Vec::new();
        if let Some(of) = mse {
            terms.push(("mse", ops::mse(output, &batch.label_maps)?, of.weight));
        }
        if let Some(of) = l1 {
            terms.push(("l1", ops::l1(output, &batch.label_maps)?, of.weight));
        }
        if let Some(of) = charbonnier {
            terms.push(("charbonnier", ops::charbonnier(output, &batch.label_maps, of.epsilon)?, of.weight));
        }
        if let (Some(of), Some(criterion)) = (nearest_color, &self.nearest_color) {
            terms.push(("nearest_color", criterion.of(output, &batch.labels)?, of.weight));
        }
        if let Some(of) = cross_entropy {
            let weights = self.cross_entropy_weights.as_ref();
            terms.push(("cross_entropy", ops::cross_entropy(output, &batch.labels, weights)?, of.weight));
        }
        if let Some(of) = focal {
            let weights = self.focal_weights.as_ref();
            terms.push(("focal", ops::focal(output, &batch.labels, of.gamma, weights)?, of.weight));
        }
        if let Some(of) = dice {
            terms.push(("dice", ops::dice(output, &batch.labels, None)?, of.weight));
        }
        if let Some(of) = lovasz {
            terms.push(("lovasz", ops::lovasz_softmax(output, &batch.labels)?, of.weight));
        }
        Ok(terms)
    }

    /// The loss of a network's output (n, c, h, w), to be differentiated, and the values to tell: of the only term, or of the sum
    /// (`loss`) and then of each term.
    pub(crate) fn of(&self, output: &Tensor, batch: &Batch) -> candle_core::Result<(Tensor, Unread)> {
        let (terms, mut losses) = (self.terms(output, batch)?, Unread::default());
        if let [(name, only, weight)] = &terms[..]
            && weight.to_bits() == 1f64.to_bits()
        {
            losses.push(name, only);
            return Ok((only.clone(), losses));
        }
        let total = ops::weighted_sum(&terms.iter().map(|(_, term, weight)| (term, *weight)).collect::<Vec<_>>())?;
        losses.push("loss", &total);
        for (name, term, _) in &terms {
            losses.push(name, term);
        }
        Ok((total, losses))
    }
}
