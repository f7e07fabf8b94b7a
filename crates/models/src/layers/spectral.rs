use candle_core::{Result, Tensor, Var};
use img2seg_ops as ops;

use crate::{Init, Parameters};

/// What a vector's length counts as at least, and the steps of the power method that a new layer begins with, by PyTorch's defaults.
const EPSILON: f64 = 1e-12;
const FIRST_STEPS: usize = 15;

/// A convolution whose weight is divided by an estimate of its spectral norm (Miyato et al. 2018), as exact as its [`Parameters`]
/// are. Each pass in training, by whichever view, takes one step of the power method, as PyTorch's does.
///
/// Parameters are named as by `torch.nn.utils.parametrizations.spectral_norm`: `parametrizations.weight.original` (out, in, k, k)
/// and, if it has one, `bias` (out); buffers: `parametrizations.weight.0._u` (out) and `parametrizations.weight.0._v` (in k k).
#[derive(Debug, Clone)]
pub struct SpectralConv2d {
    original: Tensor,
    bias: Option<Tensor>,
    u: Var,
    v: Var,
    spec: ops::Conv2d,
}

impl SpectralConv2d {
    /// A convolution with these first values, and with a bias if there are any for it; `spec` must have one group, and its exactness
    /// is replaced.
    pub fn with_init(
        parameters: &Parameters,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        spec: ops::Conv2d,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        let norm = parameters.scope("parametrizations.weight");
        let is_new = !norm.has("0._u");
        let normal = Init::Normal { mean: 0.0, deviation: 1.0 };
        let layer = Self {
            original: norm.weight("original", (out_channels, in_channels, kernel, kernel), weight)?,
            bias: bias.map(|init| parameters.weight("bias", out_channels, init)).transpose()?,
            u: norm.buffer("0._u", out_channels, Init::Constant(0.0))?,
            v: norm.buffer("0._v", in_channels * kernel * kernel, normal)?,
            spec: ops::Conv2d { exactness: parameters.exactness(), ..spec },
        };
        if is_new {
            (0..FIRST_STEPS).try_for_each(|_| layer.power_iteration())?;
        }
        Ok(layer)
    }

    /// (n, in, h, w) to (n, out, h', w'). With `train`, the estimate of the norm is moved first.
    pub fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            self.power_iteration()?;
        }
        let [u, v] = [&self.u, &self.v].map(Var::as_detached_tensor);
        let weight = ops::spectral_norm(&self.original, &u, &v)?;
        ops::conv2d(x, &weight, self.bias.as_ref(), self.spec)
    }

    fn power_iteration(&self) -> Result<()> {
        ops::power_iteration(&self.original, &self.u, &self.v, EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn layer(parameters: &Parameters) -> SpectralConv2d {
        let init = Init::Normal { mean: 0.0, deviation: 0.02 };
        let spec = ops::Conv2d::new(1, 0);
        SpectralConv2d::with_init(parameters, 8, 4, 1, spec, init, Some(Init::Constant(0.0))).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// A 1x1 convolution is its matrix: no vector leaves it longer than it came, and some leaves it as long.
    #[test]
    fn its_norm_is_one_from_the_start() {
        let parameters = Parameters::new(1, &Device::Cpu);
        let layer = layer(&parameters);
        let length = |x: &Tensor| values(x).iter().map(|x| x * x).sum::<f32>().sqrt();
        let stretch = |x: &Tensor| length(&layer.forward_t(x, false).unwrap()) / length(x);
        let v = layer.v.as_detached_tensor().reshape((1, 8, 1, 1)).unwrap();
        let most = stretch(&v);
        assert!((most - 1.0).abs() < 1e-3, "{most}");
        let other = Tensor::from_iter((0..8).map(|i| (i as f32).sin()), &Device::Cpu).unwrap();
        assert!(stretch(&other.reshape((1, 8, 1, 1)).unwrap()) < 1.0);
    }

    #[test]
    fn training_moves_the_vectors_and_nothing_else_does() {
        let parameters = Parameters::new(1, &Device::Cpu);
        let first = layer(&parameters);
        let x =
            Tensor::from_iter((0..32).map(|i| (i as f32).sin()), &Device::Cpu).unwrap().reshape((1, 8, 2, 2)).unwrap();
        let u = || values(&parameters.tensors()["parametrizations.weight.0._u"]);
        let before = u();
        let again = layer(&parameters.detached()); // the second layer of the name takes what is there
        again.forward_t(&x, false).unwrap();
        assert_eq!(u(), before);
        let (_, weight) = parameters.trainable().pop().unwrap();
        weight.set(&(weight.as_detached_tensor() + 0.01).unwrap()).unwrap();
        first.forward_t(&x, true).unwrap();
        assert_ne!(u(), before);
        assert!(!again.forward_t(&x, true).unwrap().track_op());
        let y = first.forward_t(&x, true).unwrap();
        let gradients = ops::backward(ops::mse(&y, &y.zeros_like().unwrap()).unwrap()).unwrap();
        assert!(!gradients.through_candle());
        assert_eq!(gradients.len(), 2);
    }
}
