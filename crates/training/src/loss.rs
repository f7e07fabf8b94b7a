//! The losses of a step, by name.

mod class_weights;
mod nearest_color;
mod segmentation;

use candle_core::Tensor;

pub use class_weights::ClassWeights;
pub use nearest_color::NearestColor;
pub(crate) use segmentation::SegmentationCriterion;
pub use segmentation::{Charbonnier, CrossEntropy, Focal, SegmentationLoss, Weighted};

/// The value of one loss in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// Its name, as in `losses.txt`.
    pub name: &'static str,
    /// Its value, a mean over the batch.
    pub value: f32,
}

/// Losses that still are where they were computed. Reading waits for all that was asked of a device before, so a step asks for them, and for
/// its way back and the norms of its gradients, before it reads them all at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread {
    names: Vec<&'static str>,
    losses: Vec<Tensor>,
}

impl Unread {
    /// Adds a loss of one number.
    pub(crate) fn push(&mut self, name: &'static str, loss: &Tensor) {
        self.names.push(name);
        self.losses.push(loss.detach()); // which keeps nothing alive that the loss was made from
    }

    /// Asks for one tensor of them all.
    pub(crate) fn gather(self) -> candle_core::Result<Self> {
        let losses = if self.losses.len() > 1 { vec![Tensor::stack(&self.losses, 0)?] } else { self.losses };
        Ok(Self { names: self.names, losses })
    }

    pub(crate) fn read(self) -> candle_core::Result<Vec<Loss>> {
        let Self { names, losses } = self.gather()?;
        let values = losses.first().map_or(Ok(Vec::new()), |losses| losses.flatten_all()?.to_vec1::<f32>())?;
        Ok(names.into_iter().zip(values).map(|(name, value)| Loss { name, value }).collect())
    }
}

/// Sums of losses by name, in the order of their first appearance.
#[derive(Debug, Clone, Default)]
pub struct LossMeans {
    sums: Vec<(String, f64)>,
    steps: u64,
}

impl LossMeans {
    /// Counts one step's losses.
    pub fn add<'a>(&mut self, losses: impl IntoIterator<Item = (&'a str, f32)>) {
        self.steps += 1;
        for (name, value) in losses {
            match self.sums.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += f64::from(value),
                None => self.sums.push((name.to_owned(), f64::from(value))),
            }
        }
    }

    /// The mean of each loss over the steps; empty before the first.
    pub fn means(&self) -> Vec<(String, f64)> {
        self.sums.iter().map(|(name, sum)| (name.clone(), sum / self.steps as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_order() {
        let mut losses = Unread::default();
        assert_eq!(losses.clone().read().unwrap(), []);
        for (name, value) in [("g", 2f32), ("l1", 0.5)] {
            losses.push(name, &Tensor::new(value, &candle_core::Device::Cpu).unwrap());
        }
        let expected = [Loss { name: "g", value: 2. }, Loss { name: "l1", value: 0.5 }];
        assert_eq!(losses.clone().read().unwrap(), expected);
        assert_eq!(losses.gather().unwrap().gather().unwrap().read().unwrap(), expected);
    }

    #[test]
    fn means_are_per_step_and_in_order() {
        let mut means = LossMeans::default();
        assert!(means.means().is_empty());
        means.add([("b", 1.0), ("a", 4.0)]);
        means.add([("b", 2.0), ("a", 0.0)]);
        assert_eq!(means.means(), [("b".to_owned(), 1.5), ("a".to_owned(), 2.0)]);
    }
}
