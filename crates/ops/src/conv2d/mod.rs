//! Two-dimensional convolution (cross-correlation, as PyTorch's `conv2d`).

pub(crate) mod bf16;
mod composed;
pub(crate) mod cpu;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod cuda;
mod images;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use images::Contiguous;
pub use images::Images;

use crate::Activation;
use crate::check::{self, refuse};
use crate::kernel::{
    Gradient, InputGradients, Level, Order, Pass, has_kernel, is_tracked, node, node_of_result, values, wide,
};
use crate::norm::{BatchStatistics, NormEval, NormTrain};

/// What a convolution may round on the way. `Fast` and `Direct` differ in f32 on the CPU and, by cuDNN, on a CUDA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Exactness {
    /// Winograd's minimal filtering where it is faster: relative L2 errors up to 1e-5 of results and 2e-5 of gradients. A NaN
    /// or an infinity reaches the tile of results that it is in, up to three pixels further than it would directly, and five in a
    /// prediction ([`conv2d_norm_eval`]). By cuDNN factors may be rounded to TF32, as PyTorch lets it: relative L2 errors around 1e-3.
    #[default]
    Fast,
    /// Sums of products alone: relative L2 errors up to 1e-6.
    Direct,
    /// Mixed precision, PyTorch's autocast of convolutions: factors, results and gradients are rounded to bf16 (8 bits), sums are in f32.
    /// Relative L2 errors around 3e-3. Weights, their steps, statistics and losses stay in f32. By cuDNN on tensor cores, where images stay in
    /// bf16 from op to op: what [`conv2d_activated`], [`conv2d_norm_train`] and the like give there is a bf16 tensor, which every op of this
    /// crate takes, and [`conv2d`] and [`conv_transpose2d`](crate::conv_transpose2d) give f32. Elsewhere all tensors are f32, and values are
    /// rounded and then convolved as with `Fast`, which takes longer than that.
    Bf16,
}

/// How the kernel moves over the image. Pairs are (vertical, horizontal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels between two positions of the kernel, at least 1.
    pub stride: (usize, usize),
    /// Zeros around the image, on each side.
    pub padding: (usize, usize),
    /// Pixels between two taps of the kernel, at least 1.
    pub dilation: (usize, usize),
    /// Blocks of channels that do not see each other; divides both channel counts.
    pub groups: usize,
    /// What may be rounded.
    pub exactness: Exactness,
}

impl Default for Conv2d {
    /// Stride 1, no padding, no dilation, one group, fast.
    fn default() -> Self {
        Self::new(1, 0)
    }
}

impl Conv2d {
    /// The same stride and padding in both directions, no dilation, one group, fast.
    pub fn new(stride: usize, padding: usize) -> Self {
        let (stride, padding) = ((stride, stride), (padding, padding));
        Self { stride, padding, dilation: (1, 1), groups: 1, exactness: Exactness::Fast }
    }
}

/// Sizes of one convolution, checked, and what computes it. The transposed convolution describes itself by the convolution it is the adjoint of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) groups: usize,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
    pub(crate) dilation: (usize, usize),
    /// (height, width) of the image.
    pub(crate) input: (usize, usize),
    /// (height, width) of the result.
    pub(crate) output: (usize, usize),
    pub(crate) exactness: Exactness,
    pub(crate) level: Level,
}

/// Positions of a kernel along one direction, or none if it does not fit.
fn positions(input: usize, kernel: usize, stride: usize, padding: usize, dilation: usize) -> Option<usize> {
    let reach = dilation * (kernel - 1) + 1;
    Some((input + 2 * padding).checked_sub(reach)? / stride + 1)
}

/// Convolves `x` `(n, in, h, w)`, or two images whose channels are stacked ([`Images`]), with `weight` `(out, in / groups, kh, kw)` and adds
/// `bias` `(out)`, to `(n, out, h', w')` with `h' = (h + 2 padding - dilation (kh - 1) - 1) / stride + 1`, rounded down.
///
/// candle's own goes without a bias, takes square settings only, and its backward pass is naive; on Metal it gives wrong
/// weight gradients for batches.
///
/// # Errors
/// Empty or mismatching arguments, and kernels larger than the padded image.
pub fn conv2d<'a>(x: impl Into<Images<'a>>, weight: &Tensor, bias: Option<&Tensor>, spec: Conv2d) -> Result<Tensor> {
    let x = x.into();
    let geometry = geometry(x, weight, bias, spec)?;
    #[cfg(feature = "cuda")]
    if weight.device().is_cuda()
        && let Some(y) = cuda::apply("conv2d", cuda::Direction::Forward, x.all(), weight, bias, &geometry)
    {
        return Ok(y);
    }
    let wide = x.each(wide)?;
    let x = Images::of(&wide);
    if spec.exactness == Exactness::Bf16 {
        let x = x.each(bf16::rounded)?;
        let spec = Conv2d { exactness: Exactness::Fast, ..spec };
        return bf16::rounded(&conv2d(Images::of(&x), &bf16::rounded(weight)?, bias, spec)?);
    }
    if has_kernel(weight) {
        return kernels(x, weight, bias, geometry, Activation::None);
    }
    composed::conv2d(&x.stacked()?, weight, bias, &geometry)
}

/// [`conv2d`], then the activation: what a layer without a norm hands on to the next. On a CUDA device the result is bf16 with [`Exactness::Bf16`].
///
/// # Errors
/// Those of [`conv2d`].
pub fn conv2d_activated<'a>(
    x: impl Into<Images<'a>>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: Conv2d,
    activation: Activation,
) -> Result<Tensor> {
    let x = x.into();
    #[cfg(feature = "cuda")]
    if weight.device().is_cuda() {
        let g = geometry(x, weight, bias, spec)?;
        let direction = cuda::Direction::Forward;
        if let Some(y) = cuda::apply_activated(direction, x.all(), (weight, bias), &g, activation) {
            return Ok(y);
        }
    }
    if has_kernel(weight) && spec.exactness != Exactness::Bf16 && activation.keeps_sign() {
        return kernels(x, weight, bias, geometry(x, weight, bias, spec)?, activation);
    }
    activation.apply(&conv2d(x, weight, bias, spec)?)
}

/// [`conv2d`], then [`batch_norm_eval`](crate::batch_norm_eval) and the activation: for prediction one pass over the result
/// instead of two, in larger tiles where these are faster, with relative L2 errors up to 1e-5 all the same. Where a gradient may be asked for
/// it is the one op after the other. On a CUDA device the result is bf16 with [`Exactness::Bf16`].
///
/// # Errors
/// Those of both.
pub fn conv2d_norm_eval<'a>(
    x: impl Into<Images<'a>>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: Conv2d,
    norm: &NormEval,
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "conv2d_norm_eval";
    let x = x.into();
    let tracked = x.are_tracked() || is_tracked(&[weight]) || bias.is_some_and(|bias| is_tracked(&[bias]));
    #[cfg(feature = "cuda")]
    if !tracked && !norm.is_tracked() && weight.device().is_cuda() {
        let g = geometry(x, weight, bias, spec)?;
        norm.check(OP, weight, g.out_channels)?;
        let direction = cuda::Direction::Forward;
        if let Some(y) = cuda::apply_norm_eval(direction, x.all(), (weight, bias), &g, norm, activation) {
            return Ok(y);
        }
    }
    if tracked || norm.is_tracked() || !has_kernel(weight) || spec.exactness == Exactness::Bf16 {
        return norm.apply(&conv2d(x, weight, bias, spec)?, activation);
    }
    let g = geometry(x, weight, bias, spec)?;
    let (scale, shift) = norm.factors(OP, weight, g.out_channels, bias)?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let ending = cpu::Ending { scale: Some(&scale), shift: Some(&shift), activation };
    let y = x.with_values(&g, |x| Ok(cpu::predict(&g, x, &values(&weight)?, ending)))?;
    Tensor::from_vec(y, (g.batch, g.out_channels, g.output.0, g.output.1), weight.device())
}

/// [`conv2d`], then [`batch_norm_train`](crate::batch_norm_train) and the activation, with the statistics of the batch. On a CUDA device
/// the result, what is between, and the gradients of both are bf16 with [`Exactness::Bf16`].
///
/// # Errors
/// Those of both.
pub fn conv2d_norm_train<'a>(
    x: impl Into<Images<'a>>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    spec: Conv2d,
    norm: &NormTrain,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    let x = x.into();
    #[cfg(feature = "cuda")]
    if weight.device().is_cuda() {
        let g = geometry(x, weight, bias, spec)?;
        norm.check("conv2d_norm_train", weight, g.out_channels, g.batch * g.output.0 * g.output.1)?;
        let direction = cuda::Direction::Forward;
        if let Some(y) = cuda::apply_norm_train(direction, x.all(), (weight, bias), &g, norm, activation) {
            return Ok(y);
        }
    }
    norm.apply(&conv2d(x, weight, bias, spec)?, activation)
}

/// With an activation that keeps signs.
fn kernels(x: Images, weight: &Tensor, bias: Option<&Tensor>, g: Geometry, activation: Activation) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let y = {
        let bias = bias.as_ref().map(values).transpose()?;
        x.with_values(&g, |x| Ok(cpu::forward_activated(&g, x, &values(&weight)?, bias.as_deref(), activation)))?
    };
    let mut inputs: Vec<&Tensor> = x.tensors().iter().collect();
    inputs.push(&weight);
    inputs.extend(&bias);
    let shape = (g.batch, g.out_channels, g.output.0, g.output.1);
    let (images, kernel) = (x.detach(), weight.detach());
    let back = move |pass: &Pass, gradient: &Tensor| {
        let (count, needed) = (images.tensors().len(), pass.needed);
        let of_parameters =
            parameter_gradients(g, images.clone(), gradient.clone(), [needed[count], needed[count + 1]]);
        let mut gradients = InputGradients::<4, Gradient>::default();
        let [weight, bias] = if needed[..count].contains(&true) {
            let (y, weight, first) = (values(gradient)?, values(&kernel)?, images.first_channels(&g));
            let of_images = || cpu::input_gradients(&g, &y, &weight, None, first);
            let (parts, of_parameters) = with_parameters(&g, (pass, count), of_images, of_parameters)?;
            for ((at, image), part) in images.tensors().iter().enumerate().zip(parts) {
                let gradient = || Tensor::from_vec(part, image.shape(), image.device());
                gradients[at] = needed[at].then(gradient).transpose()?.map(Gradient::from);
            }
            of_parameters
        } else {
            of_parameters()?
        };
        (gradients[count], gradients[count + 1]) = (weight, bias);
        Ok(gradients)
    };
    if activation == Activation::None {
        return node("conv2d", &inputs, y, shape, move |pass| back(pass, pass.gradient));
    }
    node_of_result(Order::Planes, "conv2d", &inputs, y, shape, move |pass, y| {
        let (gradient, ()) = pass.overwritten(y, |gradient, y| activation.go_back(gradient, y))?;
        back(pass, &gradient)
    })
}

/// The gradient of an image, and those of the parameters from the input `at` on, but for what is computed beside the passes that follow.
pub(crate) fn with_parameters<R: Send>(
    g: &Geometry,
    (pass, at): (&Pass, usize),
    of_image: impl FnOnce() -> R + Send,
    of_parameters: impl FnOnce() -> Result<[Option<Gradient>; 2]> + Send + 'static,
) -> Result<(R, [Option<Gradient>; 2])> {
    if cpu::goes_by_images(g) {
        let parameters = of_parameters()?;
        return Ok((of_image(), parameters));
    }
    match pass.beside(at, Box::new(of_parameters)) {
        Some(of_parameters) => {
            let (image, parameters) = cpu::side_by_side(g, of_image, of_parameters);
            Ok((image, parameters?))
        }
        None => Ok((of_image(), [None, None])),
    }
}

/// The gradients of weight and bias, once called.
fn parameter_gradients(
    g: Geometry,
    images: Contiguous,
    gradient: Tensor,
    needed: [bool; 2],
) -> impl FnOnce() -> Result<[Option<Gradient>; 2]> + Send {
    move || {
        let y = values(&gradient)?;
        let (weight, bias) = images.with_values(&g, |x| Ok(cpu::parameter_gradients(&g, x, &y, needed)))?;
        let shape = (g.out_channels, g.group_in(), g.kernel.0, g.kernel.1);
        Ok([
            weight.map(|of| of.into_gradient(shape, gradient.device())).transpose()?,
            bias.map(|of| Tensor::from_vec(of, g.out_channels, gradient.device())).transpose()?.map(Gradient::from),
        ])
    }
}

fn geometry<'a>(x: impl Into<Images<'a>>, weight: &Tensor, bias: Option<&Tensor>, spec: Conv2d) -> Result<Geometry> {
    const OP: &str = "conv2d";
    let x = x.into();
    let (batch, in_channels, h, w) = x.size(OP)?;
    let (out_channels, group_channels, kh, kw) = check::image(OP, "weight", weight)?;
    let Conv2d { stride, padding, dilation, groups, exactness } = spec;
    check::positive(OP, "stride", stride)?;
    check::positive(OP, "dilation", dilation)?;
    let like = x.first();
    check::same_kind(OP, "weight", weight, like)?;
    if groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
        refuse!("{OP}: {groups} groups divide not both {in_channels} channels of x and {out_channels} of weight");
    }
    if group_channels * groups != in_channels {
        let (weight, takes) = (weight.dims(), group_channels * groups);
        refuse!(
            "{OP}: weight {weight:?} in {groups} groups takes {takes} channels, x is {:?}",
            [batch, in_channels, h, w]
        );
    }
    if let Some(bias) = bias {
        check::vector(OP, "bias", bias, out_channels, weight)?;
    }
    let (Some(output_h), Some(output_w)) =
        (positions(h, kh, stride.0, padding.0, dilation.0), positions(w, kw, stride.1, padding.1, dilation.1))
    else {
        refuse!(
            "{OP}: weight {:?} with dilation {dilation:?} exceeds x {:?} with padding {padding:?}",
            weight.dims(),
            [batch, in_channels, h, w]
        );
    };
    let (kernel, input, output) = ((kh, kw), (h, w), (output_h, output_w));
    Ok(Geometry {
        batch,
        in_channels,
        out_channels,
        groups,
        kernel,
        stride,
        padding,
        dilation,
        input,
        output,
        exactness,
        level: Level::chosen(),
    })
}
