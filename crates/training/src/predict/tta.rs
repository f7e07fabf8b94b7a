//! Averages of several looks at the same photos.

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;
use img2seg_ops::{self as ops, Resize};
use serde::{Deserialize, Serialize};

use crate::TrainingError;
use crate::learner::{Learner, Prediction, logits_of, mean_of};

/// How many looks a prediction is averaged over: of the softmax of logits, or of colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestTimeAugmentation {
    /// One: the photo as it is.
    None,
    /// The photo and its mirror image.
    Flip,
    /// Both at 3/4, once and 5/4 of the size.
    MultiScale,
}

impl TestTimeAugmentation {
    /// Sizes in quarters.
    fn scales(self) -> &'static [usize] {
        match self {
            Self::None | Self::Flip => &[4],
            Self::MultiScale => &[3, 4, 5],
        }
    }

    /// Predicts photos (n, 3, h, w) in [-1, 1]. Averaged logits are the logarithms of averaged probabilities.
    ///
    /// # Errors
    /// Those of the network, which may refuse the sizes of a multi-scale prediction.
    pub fn predict(self, learner: &dyn Learner, photos: &Tensor) -> Result<Prediction, TrainingError> {
        if self == Self::None {
            return learner.predict(photos);
        }
        let (_, _, height, width) = photos.dims4()?;
        let mut looks = Vec::new();
        let mut of_classes = true;
        for &quarters in self.scales() {
            let scaled = |side: usize| nearest_multiple(side * quarters / 4, learner.side_multiple());
            let (seen_height, seen_width) =
                if quarters == 4 { (height, width) } else { (scaled(height), scaled(width)) };
            let seen = ops::resize(photos, seen_height, seen_width, Resize::Bilinear)?;
            for mirrored in [false, true] {
                let mirror = |images: &Tensor| if mirrored { images.flip(&[3]) } else { Ok(images.clone()) };
                let look = match learner.predict(&mirror(&seen)?.contiguous()?)? {
                    Prediction::Logits(logits) => ops::softmax(&logits)?,
                    Prediction::Colors(colors) => {
                        of_classes = false;
                        colors
                    }
                };
                looks.push(ops::resize(&mirror(&look)?.contiguous()?, height, width, Resize::Bilinear)?);
            }
        }
        let mean = mean_of(&looks)?;
        Ok(if of_classes { Prediction::Logits(logits_of(&mean)?) } else { Prediction::Colors(mean) })
    }
}

fn nearest_multiple(side: usize, of: usize) -> usize {
    ((side + of / 2) / of).max(1) * of
}

impl fmt::Display for TestTimeAugmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Flip => "flip",
            Self::MultiScale => "multi-scale",
        })
    }
}

impl FromStr for TestTimeAugmentation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::None, Self::Flip, Self::MultiScale]
            .into_iter()
            .find(|known| known.to_string() == text)
            .ok_or_else(|| format!("{text}: not none, flip or multi-scale"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner;
    use crate::learner::tests::{batch, recipe};
    use candle_core::Device;
    use img2seg_data::ClassTable;

    const CLASSES: [&str; 4] = [
        "task.segmentation.output=classes",
        "task.segmentation.loss={ cross-entropy = { weight = 1.0, class_weights = 'none' } }",
        "data.height=64",
        "data.width=64",
    ];

    /// A mirrored photo has the mirrored prediction, which without averaging it has not.
    #[test]
    fn looks_at_both_mirror_images_are_averaged() {
        for settings in [&CLASSES[..], &CLASSES[2..]] {
            let config = recipe("smoke-unet", settings);
            let classes = ClassTable::load(&config.data.classes).unwrap();
            let learner = learner::build(&config, &classes, &Device::Cpu).unwrap();
            let photos = batch(64, 64).photos;
            let values = |tta: TestTimeAugmentation, photos: &Tensor, mirrored: bool| -> Vec<f32> {
                let (Prediction::Logits(of) | Prediction::Colors(of)) = tta.predict(learner.as_ref(), photos).unwrap();
                let of = if mirrored { of.flip(&[3]).unwrap() } else { of };
                of.flatten_all().unwrap().to_vec1().unwrap()
            };
            let mirrored = photos.flip(&[3]).unwrap().contiguous().unwrap();
            for tta in [TestTimeAugmentation::Flip, TestTimeAugmentation::MultiScale] {
                let (one, other) = (values(tta, &photos, false), values(tta, &mirrored, true));
                assert!(one.iter().zip(&other).all(|(one, other)| (one - other).abs() < 1e-4), "{tta}");
                assert!(one != values(TestTimeAugmentation::None, &photos, false), "{tta}");
            }
            let none = TestTimeAugmentation::None;
            let (one, other) = (values(none, &photos, false), values(none, &mirrored, true));
            assert!(one.iter().zip(&other).any(|(one, other)| (one - other).abs() > 1e-3));
        }
    }

    /// Probabilities that are averaged still sum to 1.
    #[test]
    fn averaged_logits_are_logarithms_of_probabilities() {
        let config = recipe("smoke-unet", &CLASSES);
        let classes = ClassTable::load(&config.data.classes).unwrap();
        let learner = learner::build(&config, &classes, &Device::Cpu).unwrap();
        let predicted = TestTimeAugmentation::Flip.predict(learner.as_ref(), &batch(64, 64).photos).unwrap();
        let Prediction::Logits(logits) = predicted else { panic!("not logits") };
        let sums = logits.exp().unwrap().sum(1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    }

    #[test]
    fn names_read_back() {
        for tta in [TestTimeAugmentation::None, TestTimeAugmentation::Flip, TestTimeAugmentation::MultiScale] {
            assert_eq!(tta.to_string().parse(), Ok(tta));
        }
        assert_eq!("Flip".parse::<TestTimeAugmentation>().unwrap_err(), "Flip: not none, flip or multi-scale");
    }
}
