use candle_core::{Result, Tensor};
use img2seg_ops::{self as ops, Activation, Images};

use super::{BlockKind, NormConfig, UNetConfig};
use crate::Parameters;
use crate::layers::{BatchNorm2d, Conv2d, GroupNorm, InstanceNorm2d, Norm};

/// Two 3x3 convolutions, each followed by a normalisation and ReLU (the report's `conv_block`), with or without a way past them.
#[derive(Debug, Clone)]
pub(super) struct Block {
    conv1: Conv2d,
    norm1: Norm,
    conv2: Conv2d,
    norm2: Norm,
    shortcut: Shortcut,
}

/// What is added to a block's last normalisation.
#[derive(Debug, Clone)]
enum Shortcut {
    Nothing,
    Input,
    Projected(Conv2d),
}

impl NormConfig {
    /// `bn1` or `norm1`, where 1 is the number.
    pub(super) fn build(self, parameters: &Parameters, number: usize, channels: usize) -> Result<Norm> {
        let scope = |kind: &str| parameters.scope(format_args!("{kind}{number}"));
        Ok(match self {
            Self::Batch => Norm::Batch(BatchNorm2d::new(&scope("bn"), channels)?),
            Self::Instance => Norm::Instance(InstanceNorm2d::affine(&scope("norm"), channels)?),
            Self::Group(groups) => Norm::Group(GroupNorm::new(&scope("norm"), groups, channels)?),
        })
    }
}

impl Block {
    pub(super) fn new(
        parameters: &Parameters,
        config: &UNetConfig,
        in_channels: usize,
        out_channels: usize,
    ) -> Result<Self> {
        let same = ops::Conv2d::new(1, 1);
        let norm = |number: usize| config.norm.build(parameters, number, out_channels);
        Ok(Self {
            conv1: Conv2d::new(&parameters.scope("conv1"), in_channels, out_channels, 3, same)?,
            norm1: norm(1)?,
            conv2: Conv2d::new(&parameters.scope("conv2"), out_channels, out_channels, 3, same)?,
            norm2: norm(2)?,
            shortcut: match config.block {
                BlockKind::Plain => Shortcut::Nothing,
                BlockKind::Residual if in_channels == out_channels => Shortcut::Input,
                BlockKind::Residual => {
                    let (scope, point) = (parameters.scope("shortcut"), ops::Conv2d::new(1, 0));
                    Shortcut::Projected(Conv2d::new(&scope, in_channels, out_channels, 1, point)?)
                }
            },
        })
    }

    /// (n, in, h, w), or two images whose channels are stacked, to (n, out, h, w).
    pub(super) fn forward_t<'a>(&self, x: impl Into<Images<'a>>, train: bool) -> Result<Tensor> {
        let x = x.into();
        let y = self.conv1.forward_norm_t(x, &self.norm1, Activation::Relu, train)?;
        let last = |activation| self.conv2.forward_norm_t(&y, &self.norm2, activation, train);
        match &self.shortcut {
            Shortcut::Nothing => last(Activation::Relu),
            Shortcut::Input => ops::add(&last(Activation::None)?, &x.stacked()?, Activation::Relu),
            Shortcut::Projected(conv) => ops::add(&last(Activation::None)?, &conv.forward(x)?, Activation::Relu),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// With a last norm that gives nothing, what is left is the ReLU of the shortcut.
    #[test]
    fn a_residual_block_adds_its_input() {
        let config = UNetConfig { block: BlockKind::Residual, ..UNetConfig::report(2) };
        let x = Tensor::from_iter((0..32).map(|i| (i as f32).sin()), &Device::Cpu).unwrap();
        let x = x.reshape((1, 2, 4, 4)).unwrap();
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for out_channels in [2, 3] {
            let parameters = Parameters::new(1, &Device::Cpu);
            let block = Block::new(&parameters, &config, 2, out_channels).unwrap();
            let (_, last) = parameters.scope("bn2").trainable().pop().unwrap();
            last.set(&Tensor::zeros(out_channels, DType::F32, &Device::Cpu).unwrap()).unwrap();
            let shortcut = match &block.shortcut {
                Shortcut::Projected(conv) => conv.forward(&x).unwrap(),
                _ => x.clone(),
            };
            assert_eq!(shortcut.dims(), [1, out_channels, 4, 4]);
            let expected = values(&ops::relu(&shortcut).unwrap());
            assert_eq!(values(&block.forward_t(&x, true).unwrap()), expected);
        }
    }
}
