//! Losses that are means over values, by kernels on a CUDA device: nothing is read back, on the way there or back.

use candle_core::{Result, Tensor};

use crate::cuda::moves::arrange;
use crate::cuda::sums::size;
use crate::cuda::{Memory, Stage, address};
use crate::kernel::{Order, node};

/// The loss of each value; the kernels' `enum` in its order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Squared,
    Absolute,
    Charbonnier,
    CrossEntropy,
    Hinge,
    Mean,
}

/// What a loss is of, besides its values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Of the values' shape.
    Each(&'a Tensor),
    All(f64),
}

/// The kernels' `struct Loss`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Parameters {
    x: u64,
    target: u64,
    gradient: u64,
    parts: u64,
    y: u64,
    len: i32,
    blocks: i32,
    kind: i32,
    constant: f32,
    epsilon_squared: f32,
    sign: f32,
}

/// The mean of a loss of each of `x`, of any shape; `epsilon` is Charbonnier's.
#[allow(unsafe_code, reason = "a kernel is told where tensors lie")]
pub(crate) fn mean_of(
    stage: &Stage,
    op: &'static str,
    kind: Kind,
    x: &Tensor,
    target: Target,
    epsilon: f64,
) -> Result<Tensor> {
    let order = if x.rank() == 4 { Order::of(x) } else { Order::Planes };
    let in_order = |x: &Tensor| if x.rank() == 4 { arrange(stage, order, x) } else { x.detach().contiguous() };
    let values = in_order(x)?;
    let (targets, constant) = match target {
        Target::Each(target) => (Some(in_order(target)?), 0.),
        Target::All(constant) => (None, constant as f32),
    };
    let len = values.elem_count();
    let blocks = len.div_ceil(stage.summands());
    let [mut parts, mut loss]: [Memory; 2] = [stage.memory(2 * blocks)?, stage.memory(1)?]; // parts of f64
    let parameters = Parameters {
        x: address(&values)?,
        target: targets.as_ref().map_or(Ok(0), address)?,
        gradient: 0,
        parts: parts.address()?,
        y: loss.address()?,
        len: size(len)?,
        blocks: size(blocks)?,
        kind: kind as i32,
        constant,
        epsilon_squared: (epsilon * epsilon) as f32,
        sign: 1.,
    };
    // SAFETY: x and target have `len` values and are alive; parts and loss were made for it.
    unsafe {
        stage.launch("loss_parts", (blocks, 1), &parameters)?;
        stage.launch("mean_loss", (1, 1), &parameters)?;
    }
    let mut inputs = vec![x];
    if let Target::Each(target) = target {
        inputs.push(target);
    }
    let stage = stage.clone();
    node(op, &inputs, loss, (), move |pass| {
        let towards = |needed: bool, sign: f32| -> Result<Option<Tensor>> {
            if !needed {
                return Ok(None);
            }
            let mut gradient = stage.memory(len)?;
            let parameters = Parameters {
                x: address(&values)?,
                target: targets.as_ref().map_or(Ok(0), address)?,
                gradient: address(pass.gradient)?,
                y: gradient.address()?,
                sign,
                ..parameters
            };
            // SAFETY: as above, and the loss's gradient is one value.
            unsafe { stage.launch("loss_back", (stage.blocks(len), 1), &parameters)? };
            Ok(Some(gradient.into_tensor_like(&values)?))
        };
        // Targets are given to losses of distances alone, whose slope is the same both ways.
        Ok([towards(pass.needed[0], 1.)?, towards(pass.needed[1], -1.)?])
    })
}
