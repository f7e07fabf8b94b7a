//! Transposed two-dimensional convolution: the adjoint of `conv2d`, as PyTorch's `conv_transpose2d`.

mod composed;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use crate::Activation;
use crate::Exactness;
use crate::check::{self, refuse};
use crate::conv2d::bf16::rounded;
#[cfg(feature = "cuda")]
use crate::conv2d::cuda;
use crate::conv2d::{Geometry, cpu, with_parameters};
use crate::kernel::{Gradient, Level, Order, Pass, has_kernel, is_tracked, node, node_of_result, values, wide};
use crate::norm::{BatchStatistics, NormEval, NormTrain};

const OP: &str = "conv_transpose2d";

/// How each pixel of the image is spread by the kernel. Pairs are (vertical, horizontal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose2d {
    /// Pixels between two spread kernels in the result, at least 1.
    pub stride: (usize, usize),
    /// Pixels cut off the result, on each side.
    pub padding: (usize, usize),
    /// Pixels added to the result at its bottom and right; less than stride or dilation.
    pub output_padding: (usize, usize),
    /// Pixels between two taps of the kernel, at least 1.
    pub dilation: (usize, usize),
    /// Blocks of channels that do not see each other; divides both channel counts.
    pub groups: usize,
    /// What may be rounded.
    pub exactness: Exactness,
}

impl Default for ConvTranspose2d {
    /// Stride 1, no padding, no dilation, one group, fast.
    fn default() -> Self {
        Self::new(1, 0)
    }
}

impl ConvTranspose2d {
    /// The same stride and padding in both directions, no output padding, no dilation, one group, fast.
    pub fn new(stride: usize, padding: usize) -> Self {
        Self {
            stride: (stride, stride),
            padding: (padding, padding),
            output_padding: (0, 0),
            dilation: (1, 1),
            groups: 1,
            exactness: Exactness::Fast,
        }
    }
}

/// Spreads `x` `(n, in, h, w)` by `weight` `(in, out / groups, kh, kw)` and adds `bias` `(out)`, to `(n, out, h', w')` with
/// `h' = (h - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1`.
///
/// candle's own is naive on every device and knows neither groups nor a bias.
///
/// # Errors
/// Empty or mismatching arguments, output padding that reaches both stride and dilation, and padding that leaves no pixel.
pub fn conv_transpose2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec: ConvTranspose2d) -> Result<Tensor> {
    let geometry = geometry(x, weight, bias, spec)?;
    #[cfg(feature = "cuda")]
    if let Some(y) = cuda::apply("conv_transpose2d", cuda::Direction::InputGradient, &[x], weight, bias, &geometry) {
        return Ok(y);
    }
    let x = &wide(x)?;
    if spec.exactness == Exactness::Bf16 {
        let spec = ConvTranspose2d { exactness: Exactness::Fast, ..spec };
        return rounded(&conv_transpose2d(&rounded(x)?, &rounded(weight)?, bias, spec)?);
    }
    if has_kernel(x) {
        return kernels(x, weight, bias, geometry, Activation::None);
    }
    composed::conv_transpose2d(x, weight, bias, &geometry)
}

/// [`conv_transpose2d`], then the activation: what a layer without a norm hands on to the next. On a CUDA device the result is bf16 with
/// [`Exactness::Bf16`].
///
/// # Errors
/// Those of [`conv_transpose2d`].
pub fn conv_transpose2d_activated(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: ConvTranspose2d,
    activation: Activation,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let g = geometry(x, weight, bias, spec)?;
        let direction = cuda::Direction::InputGradient;
        if let Some(y) = cuda::apply_activated(direction, &[x], (weight, bias), &g, activation) {
            return Ok(y);
        }
    }
    if has_kernel(x) && spec.exactness != Exactness::Bf16 && activation.keeps_sign() {
        return kernels(x, weight, bias, geometry(x, weight, bias, spec)?, activation);
    }
    activation.apply(&conv_transpose2d(x, weight, bias, spec)?)
}

/// [`conv_transpose2d`], then [`batch_norm_eval`](crate::batch_norm_eval) and the activation: for prediction one pass over the result
/// instead of two. Where a gradient may be asked for it is the one op after the other. On a CUDA device the result is bf16 with
/// [`Exactness::Bf16`].
///
/// # Errors
/// Those of both.
pub fn conv_transpose2d_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: ConvTranspose2d,
    norm: &NormEval,
    activation: Activation,
) -> Result<Tensor> {
    let tracked = is_tracked(&[x, weight]) || bias.is_some_and(|bias| is_tracked(&[bias])) || norm.is_tracked();
    #[cfg(feature = "cuda")]
    if !tracked && x.device().is_cuda() {
        let g = geometry(x, weight, bias, spec)?;
        norm.check("conv_transpose2d_norm_eval", weight, g.in_channels)?;
        let direction = cuda::Direction::InputGradient;
        if let Some(y) = cuda::apply_norm_eval(direction, &[x], (weight, bias), &g, norm, activation) {
            return Ok(y);
        }
    }
    if tracked || !has_kernel(x) || spec.exactness == Exactness::Bf16 {
        return norm.apply(&conv_transpose2d(x, weight, bias, spec)?, activation);
    }
    let g = geometry(x, weight, bias, spec)?;
    let (scale, shift) = norm.factors("conv_transpose2d_norm_eval", x, g.in_channels, bias)?;
    let [x, weight] = [x.contiguous()?, weight.contiguous()?];
    let ending = cpu::Ending { scale: Some(&scale), shift: Some(&shift), activation };
    let y = cpu::input_gradient_to(&g, &values(&x)?, &values(&weight)?, ending);
    Tensor::from_vec(y, (g.batch, g.in_channels, g.input.0, g.input.1), x.device())
}

/// [`conv_transpose2d`], then [`batch_norm_train`](crate::batch_norm_train) and the activation, with the statistics of the batch. On a CUDA
/// device the result, what is between, and the gradients of both are bf16 with [`Exactness::Bf16`].
///
/// # Errors
/// Those of both.
pub fn conv_transpose2d_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: ConvTranspose2d,
    norm: &NormTrain,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let g = geometry(x, weight, bias, spec)?;
        norm.check("conv_transpose2d_norm_train", weight, g.in_channels, g.batch * g.input.0 * g.input.1)?;
        let direction = cuda::Direction::InputGradient;
        if let Some(y) = cuda::apply_norm_train(direction, &[x], (weight, bias), &g, norm, activation) {
            return Ok(y);
        }
    }
    norm.apply(&conv_transpose2d(x, weight, bias, spec)?, activation)
}

/// What the convolution sends forth we send back, and the other way round. With an activation that keeps signs.
fn kernels(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: Geometry, activation: Activation) -> Result<Tensor> {
    let [x, weight] = [x.contiguous()?, weight.contiguous()?];
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let y = {
        let bias = bias.as_ref().map(values).transpose()?;
        let ending = cpu::Ending { activation, ..cpu::Ending::bias(bias.as_deref()) };
        cpu::input_gradient_to(&g, &values(&x)?, &values(&weight)?, ending)
    };
    let mut inputs = vec![&x, &weight];
    inputs.extend(&bias);
    let (input, kernel) = (x.detach(), weight.detach());
    let shape = (g.batch, g.in_channels, g.input.0, g.input.1);
    let back = move |pass: &Pass, gradient: &Tensor| {
        let [needs_x, needs_weight, needs_bias, ..] = pass.needed;
        let of_parameters = parameter_gradients(g, input.clone(), gradient.clone(), [needs_weight, needs_bias]);
        if !needs_x {
            let [weight, bias] = of_parameters()?;
            return Ok([None, weight, bias]);
        }
        let (y, weight) = (values(gradient)?, values(&kernel)?);
        let of_x = || cpu::forward(&g, g.images(&y), &weight, None);
        let (of_x, [weight, bias]) = with_parameters(&g, (pass, 1), of_x, of_parameters)?;
        Ok([Some(Tensor::from_vec(of_x, input.shape(), input.device())?.into()), weight, bias])
    };
    if activation == Activation::None {
        return node(OP, &inputs, y, shape, move |pass| back(pass, pass.gradient));
    }
    node_of_result(Order::Planes, OP, &inputs, y, shape, move |pass, y| {
        let (gradient, ()) = pass.overwritten(y, |gradient, y| activation.go_back(gradient, y))?;
        back(pass, &gradient)
    })
}

/// The gradients of weight and bias, once called.
fn parameter_gradients(
    g: Geometry,
    x: Tensor,
    gradient: Tensor,
    [needs_weight, needs_bias]: [bool; 2],
) -> impl FnOnce() -> Result<[Option<Gradient>; 2]> + Send {
    move || {
        let (y, x) = (values(&gradient)?, values(&x)?);
        let (weight, bias) = cpu::transposed_parameter_gradients(&g, g.images(&y), &x, [needs_weight, needs_bias]);
        let shape = (g.out_channels, g.group_in(), g.kernel.0, g.kernel.1);
        Ok([
            weight.map(|of| of.into_gradient(shape, gradient.device())).transpose()?,
            bias.map(|of| Tensor::from_vec(of, g.in_channels, gradient.device())).transpose()?.map(Gradient::from),
        ])
    }
}

/// The convolution from `(n, out, h', w')` to `(n, in, h, w)` whose adjoint this is.
pub(crate) fn geometry(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, spec: ConvTranspose2d) -> Result<Geometry> {
    let (batch, in_channels, h, w) = check::image(OP, "x", x)?;
    let (weight_channels, group_channels, kh, kw) = check::image(OP, "weight", weight)?;
    let ConvTranspose2d { stride, padding, output_padding, dilation, groups, exactness } = spec;
    check::positive(OP, "stride", stride)?;
    check::positive(OP, "dilation", dilation)?;
    check::same_kind(OP, "weight", weight, x)?;
    if weight_channels != in_channels {
        let (x, weight) = (x.dims(), weight.dims());
        refuse!("{OP}: weight {weight:?} takes {weight_channels} channels, x is {x:?}");
    }
    if groups == 0 || in_channels % groups != 0 {
        refuse!("{OP}: {groups} groups do not divide the {in_channels} channels of x");
    }
    let out_channels = group_channels * groups;
    if let Some(bias) = bias {
        check::vector(OP, "bias", bias, out_channels, weight)?;
    }
    if output_padding.0 >= stride.0.max(dilation.0) || output_padding.1 >= stride.1.max(dilation.1) {
        refuse!("{OP}: output padding {output_padding:?} reaches both stride {stride:?} and dilation {dilation:?}");
    }
    let size = |input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize, extra: usize| {
        ((input - 1) * stride + dilation * (kernel - 1) + extra + 1).checked_sub(2 * padding).filter(|&size| size > 0)
    };
    let (Some(output_h), Some(output_w)) = (
        size(h, kh, stride.0, padding.0, dilation.0, output_padding.0),
        size(w, kw, stride.1, padding.1, dilation.1, output_padding.1),
    ) else {
        refuse!("{OP}: padding {padding:?} leaves nothing of x {:?} and weight {:?}", x.dims(), weight.dims());
    };
    Ok(Geometry {
        batch,
        in_channels: out_channels,
        out_channels: in_channels,
        groups,
        kernel: (kh, kw),
        stride,
        padding,
        dilation,
        input: (output_h, output_w),
        output: (h, w),
        exactness,
        level: Level::chosen(),
    })
}
