use candle_core::{Error, Result, Tensor};
use img2seg_ops::{self as ops, Activation};
use serde::{Deserialize, Serialize};

use crate::layers::{BatchNorm2d, Conv2d, ConvTranspose2d};
use crate::{Parameters, sizes};

/// The width of a [`UNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of the first level; each of the four levels below has twice as many. The report's U-Net has 64.
    pub base_channels: usize,
}

/// The U-Net of the lab report (Listings 5 to 7; Ronneberger, Fischer and Brox 2015, padded and with batch norm): four levels that
/// halve the image, a bottleneck, four that double it again, each joined by a skip.
#[derive(Debug, Clone)]
pub struct UNet {
    encoder: [Block; 4],
    bottleneck: Block,
    decoder: [(ConvTranspose2d, Block); 4],
    outputs: Conv2d,
}

impl UNet {
    /// Parameters: `en1.conv.conv1.weight` to `en4`, `b.conv1.weight`, `d1.convT.weight`, `d1.conv.conv1.weight` to `d4`,
    /// `outputs.weight`.
    pub fn new(parameters: &Parameters, config: &UNetConfig, in_channels: usize, out_channels: usize) -> Result<Self> {
        let base = config.base_channels;
        if base == 0 || in_channels == 0 || out_channels == 0 {
            return Err(Error::Msg(format!(
                "U-Net of {in_channels} to {out_channels} channels, base_channels {base}: none may be 0"
            )));
        }
        let level = |i: usize| base << i; // channels: 1, 2, 4, 8 times base, and 16 in the bottleneck
        let encode = |i: usize| {
            let scope = parameters.scope(format_args!("en{}", i + 1));
            Block::new(&scope.scope("conv"), if i == 0 { in_channels } else { level(i - 1) }, level(i))
        };
        let decode = |i: usize| -> Result<_> {
            let scope = parameters.scope(format_args!("d{}", i + 1));
            let (in_channels, out_channels) = (level(4 - i), level(3 - i));
            let double = ops::ConvTranspose2d::new(2, 0);
            let up = ConvTranspose2d::new(&scope.scope("convT"), in_channels, out_channels, 2, double)?;
            Ok((up, Block::new(&scope.scope("conv"), 2 * out_channels, out_channels)?))
        };
        Ok(Self {
            encoder: [encode(0)?, encode(1)?, encode(2)?, encode(3)?],
            bottleneck: Block::new(&parameters.scope("b"), level(3), level(4))?,
            decoder: [decode(0)?, decode(1)?, decode(2)?, decode(3)?],
            outputs: Conv2d::new(&parameters.scope("outputs"), base, out_channels, 1, ops::Conv2d::new(1, 0))?,
        })
    }

    /// (n, in, h, w) to (n, out, h, w): unbounded values, colours or logits as the loss reads them. With `train`, batch norm uses
    /// the batch's statistics and moves the running ones.
    pub fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        Self::check_size(height, width)?;
        let mut x = x.clone();
        let mut skips = Vec::with_capacity(self.encoder.len());
        for block in &self.encoder {
            let skip = block.forward_t(&x, train)?;
            x = ops::max_pool2d(&skip, 2)?;
            skips.push(skip);
        }
        x = self.bottleneck.forward_t(&x, train)?;
        for ((up, block), skip) in self.decoder.iter().zip(skips.iter().rev()) {
            x = block.forward_t(&ops::cat(&[&up.forward(&x)?, skip])?, train)?;
        }
        self.outputs.forward(&x)
    }

    /// Four halvings: both sides must be multiples of 16. The error names the nearest sizes.
    pub fn check_size(height: usize, width: usize) -> Result<()> {
        sizes::check("U-Net", height, width, 16, 16)
    }
}

/// Two 3x3 convolutions, each followed by batch norm and ReLU (the report's `conv_block`).
#[derive(Debug, Clone)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
}

impl Block {
    fn new(parameters: &Parameters, in_channels: usize, out_channels: usize) -> Result<Self> {
        let same = ops::Conv2d::new(1, 1);
        Ok(Self {
            conv1: Conv2d::new(&parameters.scope("conv1"), in_channels, out_channels, 3, same)?,
            bn1: BatchNorm2d::new(&parameters.scope("bn1"), out_channels)?,
            conv2: Conv2d::new(&parameters.scope("conv2"), out_channels, out_channels, 3, same)?,
            bn2: BatchNorm2d::new(&parameters.scope("bn2"), out_channels)?,
        })
    }

    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.conv1.forward_norm_t(x, &self.bn1, Activation::Relu, train)?;
        self.conv2.forward_norm_t(&x, &self.bn2, Activation::Relu, train)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn unet(base_channels: usize, out_channels: usize) -> (Parameters, UNet) {
        let parameters = Parameters::new(1, &Device::Cpu);
        let unet = UNet::new(&parameters, &UNetConfig { base_channels }, 3, out_channels).unwrap();
        (parameters, unet)
    }

    /// The counts are those of the report's listing in PyTorch.
    #[test]
    fn it_has_as_many_parameters_as_the_listing() {
        assert_eq!(unet(1, 3).0.count(), 7_898);
        assert_eq!(unet(4, 3).0.count(), 122_471);
        assert_eq!(unet(4, 19).0.count(), 122_551);
        assert_eq!(unet(64, 3).0.count(), 31_043_651);
    }

    #[test]
    fn its_initialisation_is_pytorchs() {
        let parameters = unet(2, 3).0;
        let largest = |name: &str| {
            let tensor = &parameters.tensors()[name];
            tensor.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        let within = |name: &str, fan_in: f32| {
            let (bound, largest) = (1.0 / fan_in.sqrt(), largest(name));
            assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest} for {bound}");
        };
        within("en2.conv.conv1.weight", 2.0 * 9.0);
        within("b.conv2.bias", 32.0 * 9.0);
        within("d1.convT.weight", 16.0 * 4.0); // of the 32 to 16 channels, the 16 that PyTorch counts
        within("d1.convT.bias", 16.0 * 4.0);
        let both = |name: &str| parameters.tensors()[name].to_vec1::<f32>().unwrap();
        assert_eq!(both("en1.conv.bn1.bias"), [0.0, 0.0]);
        assert_eq!(both("en1.conv.bn1.running_var"), [1.0, 1.0]);
    }

    #[test]
    fn training_moves_the_running_statistics_and_evaluation_does_not() {
        let (parameters, unet) = unet(1, 3);
        let photos = Tensor::from_iter((0..2 * 3 * 16 * 32).map(|i| (i as f32).sin()), &Device::Cpu).unwrap();
        let photos = photos.reshape((2, 3, 16, 32)).unwrap();
        let mean = || parameters.tensors()["en1.conv.bn1.running_mean"].to_vec1::<f32>().unwrap();
        assert_eq!(unet.forward_t(&photos, false).unwrap().dims(), [2, 3, 16, 32]);
        assert_eq!(mean(), [0.0]);
        unet.forward_t(&photos, true).unwrap();
        assert_ne!(mean(), [0.0]);
    }

    #[test]
    fn a_direct_network_agrees_with_a_fast_one_but_not_in_bits() {
        let photos = Tensor::from_iter((0..3 * 32 * 32).map(|i| (i as f32).sin()), &Device::Cpu).unwrap();
        let photos = photos.reshape((1, 3, 32, 32)).unwrap();
        let output = |exactness| {
            let parameters = Parameters::new(1, &Device::Cpu).with_exactness(exactness);
            let unet = UNet::new(&parameters, &UNetConfig { base_channels: 8 }, 3, 3).unwrap();
            unet.forward_t(&photos, false).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (fast, direct) = (output(ops::Exactness::Fast), output(ops::Exactness::Direct));
        assert!(fast != direct);
        assert!(fast.iter().zip(&direct).all(|(fast, direct)| (fast - direct).abs() < 1e-4));
    }

    #[test]
    fn sizes_that_do_not_halve_four_times_are_refused() {
        let (_, unet) = unet(1, 3);
        let photos = Tensor::zeros((1, 3, 24, 16), DType::F32, &Device::Cpu).unwrap();
        let error = unet.forward_t(&photos, false).unwrap_err().to_string();
        assert!(error.starts_with("16x24 image: U-Net takes"), "{error}");
        assert!(error.contains("16x16 and 16x32"), "{error}");
        let parameters = Parameters::new(1, &Device::Cpu);
        assert!(UNet::new(&parameters, &UNetConfig { base_channels: 0 }, 3, 3).is_err());
    }

    /// The bottleneck of one 16x16 photo is a single pixel, which has no variance.
    #[test]
    fn a_batch_without_variance_is_refused_in_training() {
        let (_, unet) = unet(1, 3);
        let photo = Tensor::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
        assert!(unet.forward_t(&photo, false).is_ok());
        assert!(unet.forward_t(&photo, true).is_err());
    }
}
