use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use crate::Parameters;
use crate::layers::{BatchNorm2d, Conv2d};

/// The width of a [`Pixelwise`] network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelwiseConfig {
    /// Channels of both hidden layers.
    pub base_channels: usize,
}

/// Three 1x1 convolutions, the first two followed by batch norm and ReLU: it sees each pixel's colour and nothing around it. What it
/// reaches is what colour alone tells of the classes.
#[derive(Debug, Clone)]
pub struct Pixelwise {
    hidden: [(Conv2d, BatchNorm2d); 2],
    outputs: Conv2d,
}

impl Pixelwise {
    /// Parameters: `conv1.weight`, `bn1.weight`, `conv2.weight`, `bn2.weight`, `outputs.weight`, and so on.
    pub fn new(
        parameters: &Parameters,
        config: &PixelwiseConfig,
        in_channels: usize,
        out_channels: usize,
    ) -> Result<Self> {
        let base = config.base_channels;
        if base == 0 || in_channels == 0 || out_channels == 0 {
            return Err(Error::Msg(format!(
                "pixelwise network of {in_channels} to {out_channels} channels, base_channels {base}: none may be 0"
            )));
        }
        let point = ops::Conv2d::new(1, 0);
        let hidden = |number: usize, in_channels: usize| -> Result<_> {
            let conv = Conv2d::new(&parameters.scope(format_args!("conv{number}")), in_channels, base, 1, point)?;
            Ok((conv, BatchNorm2d::new(&parameters.scope(format_args!("bn{number}")), base)?))
        };
        Ok(Self {
            hidden: [hidden(1, in_channels)?, hidden(2, base)?],
            outputs: Conv2d::new(&parameters.scope("outputs"), base, out_channels, 1, point)?,
        })
    }

    /// (n, in, h, w) to (n, out, h, w) of any size: unbounded values.
    pub fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = x.clone();
        for (conv, bn) in &self.hidden {
            x = bn.forward_t(&conv.forward(&x)?, Activation::Relu, train)?;
        }
        self.outputs.forward(&x)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_pixel_sees_no_other() {
        let parameters = Parameters::new(1, &Device::Cpu);
        let network = Pixelwise::new(&parameters, &PixelwiseConfig { base_channels: 4 }, 3, 5).unwrap();
        let values: Vec<f32> = (0..3 * 4 * 6).map(|i| (i as f32).sin()).collect();
        let output = |values: &[f32]| {
            let photo = Tensor::from_slice(values, (1, 3, 4, 6), &Device::Cpu).unwrap();
            network.forward_t(&photo, false).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let before = output(&values);
        let mut changed = values.clone();
        changed[8] += 1.0; // red of the pixel 8
        for (index, (before, after)) in before.iter().zip(output(&changed)).enumerate() {
            assert_eq!(index % 24 == 8, before.to_bits() != after.to_bits(), "{index}");
        }
    }
}
