//! A convolution, or its adjoint, as a node of both graphs: what cuDNN computes, and the kernels beside it.

use candle_core::{Result, Tensor};

use super::direction::{Direction, Role};
use super::form::{Form, Stored};
use crate::activation::{self, Activation};
use crate::conv2d::{Exactness, Geometry};
use crate::cuda::{Stage, moves};
use crate::kernel::{InputGradients, Order, Pass, node_of_result, node_taking_bf16};
use crate::norm::{BatchStatistics, NormEval, NormTrain, batch_norm};

/// `images`, one or a stack of two, through the kernel `weight` in a direction, and `bias` added, in this order.
pub(super) struct Convolution<'a> {
    pub(super) name: &'static str,
    /// `Forward`, or `InputGradient` of a transposed convolution.
    pub(super) direction: Direction,
    pub(super) images: &'a [&'a Tensor],
    pub(super) weight: &'a Tensor,
    pub(super) bias: Option<&'a Tensor>,
    pub(super) geometry: Geometry,
}

impl Convolution<'_> {
    /// In f32.
    ///
    /// # Errors
    /// What cuDNN does not do in one of the directions.
    pub(super) fn apply(&self, stage: &Stage, order: Order) -> Result<Tensor> {
        let bias = self.bias.map(Tensor::contiguous).transpose()?;
        self.node(stage, order, bias.as_ref(), Activation::None, false)
    }

    /// The same activated where it lies, for ops to come: in bf16 if cuDNN gives that.
    pub(super) fn apply_activated(&self, stage: &Stage, order: Order, activation: Activation) -> Result<Tensor> {
        let bias = self.bias.map(Tensor::contiguous).transpose()?;
        if activation.keeps_sign() {
            return self.node(stage, order, bias.as_ref(), activation, true);
        }
        activation::cuda::apply(stage, activation, &self.node(stage, order, bias.as_ref(), Activation::None, true)?)
    }

    /// The same, normalised by its own statistics. The bias is left to them, since it moves them along with the result; it nevertheless gets
    /// its gradient.
    pub(super) fn apply_norm_train(
        &self,
        stage: &Stage,
        order: Order,
        norm: &NormTrain,
        activation: Activation,
    ) -> Result<(Tensor, BatchStatistics)> {
        let y = self.node(stage, order, None, Activation::None, true)?;
        let (y, mut statistics) = batch_norm::cuda::train(stage, &y, norm.weight, norm.bias, norm.epsilon, activation)?;
        if let Some(bias) = self.bias {
            statistics.mean = (statistics.mean + bias.detach())?;
        }
        Ok((y, statistics))
    }

    /// The same, normalised by running statistics where it lies, in no graph.
    pub(super) fn apply_norm_eval(
        &self,
        stage: &Stage,
        order: Order,
        norm: &NormEval,
        activation: Activation,
    ) -> Result<Tensor> {
        let form = Form::new(stage, order, &self.geometry);
        let (x, weight) = self.stored(&form, order)?;
        let [_, _, role] = self.direction.roles();
        let [_, _, shape] = self.direction.shapes(&self.geometry);
        let y = form.run(self.direction, [&x, &weight], None, true)?;
        batch_norm::cuda::eval_after(stage, form.order_of(role), (y, shape), self.bias, norm, activation)
    }

    /// The images, or the stack of them, and the kernel, as cuDNN takes them.
    fn stored(&self, form: &Form, order: Order) -> Result<(Stored, Stored)> {
        let [of_x, of_weight, _] = self.direction.roles();
        let x = match *self.images {
            [x] => form.store_as(of_x, x)?,
            _ => form.store_as(of_x, &self.stack(form, order)?)?,
        };
        Ok((x, form.store_as(of_weight, self.weight)?))
    }

    fn stack(&self, form: &Form, order: Order) -> Result<Tensor> {
        let narrows = self.geometry.exactness == Exactness::Bf16 && order == Order::Pixels;
        let taken = |x: &&Tensor| if narrows { moves::narrow_image(form.stage(), x) } else { Ok((*x).clone()) };
        moves::stack(form.stage(), order, &self.images.iter().map(taken).collect::<Result<Vec<_>>>()?)
    }

    /// With this bias, which may be left out of the result but not of the way back, and an activation that keeps signs.
    fn node(
        &self,
        stage: &Stage,
        order: Order,
        bias: Option<&Tensor>,
        activation: Activation,
        may_be_narrow: bool,
    ) -> Result<Tensor> {
        let form = Form::new(stage, order, &self.geometry);
        let (x, weight) = self.stored(&form, order)?;
        let mut y = form.run(self.direction, [&x, &weight], bias, may_be_narrow)?;
        let [_, _, role] = self.direction.roles();
        let [_, _, shape] = self.direction.shapes(&self.geometry);
        let order = form.order_of(role);
        let channels = self.images.iter().map(|x| x.dim(1)).collect::<Result<_>>()?;
        let saved = Saved { form, direction: self.direction, x, weight: self.weight.detach(), channels };
        let inputs: Vec<&Tensor> = self.images.iter().copied().chain([self.weight]).chain(self.bias).collect();
        if activation == Activation::None {
            let backward = move |pass: &Pass| saved.backward(pass.gradient, pass.needed);
            return node_taking_bf16(order, self.name, &inputs, y, &shape[..], backward);
        }
        activation::cuda::apply_in_place(stage, activation, &mut y, shape.iter().product())?;
        node_of_result(order, self.name, &inputs, y, &shape[..], move |pass, y| {
            let gradient = activation::cuda::back(saved.form.stage(), activation, y, pass.gradient)?;
            saved.backward(&gradient, pass.needed)
        })
    }
}

/// What the way back needs.
struct Saved {
    form: Form,
    direction: Direction,
    /// The image, or the stack of two.
    x: Stored,
    /// As the variable lies: in the order that cuDNN takes, large ones take much memory.
    weight: Tensor,
    /// Channels of each image.
    channels: Vec<usize>,
}

impl Saved {
    /// What goes back through the convolution, given the gradient of its result.
    fn backward(&self, gradient: &Tensor, needed: [bool; 4]) -> Result<InputGradients<4>> {
        use Direction::{Forward, InputGradient, WeightGradient};
        let (form, count) = (&self.form, self.channels.len());
        let [of_x, _, given] = self.direction.roles();
        let (gradient, sums) = form.store_with_sums(given, gradient, needed[count + 1])?;
        let mut gradients = InputGradients::<4>::default();
        if needed[..count].contains(&true) {
            let back = if self.direction == Forward { InputGradient } else { Forward };
            let x = form.turn(back, [&gradient, &form.store_as(Role::Kernel, &self.weight)?], true)?;
            if count == 1 {
                gradients[0] = Some(x);
            } else {
                let mut start = 0;
                for (at, &channels) in self.channels.iter().enumerate() {
                    if needed[at] {
                        gradients[at] = Some(moves::part(form.stage(), form.order_of(of_x), &x, start, channels)?);
                    }
                    start += channels;
                }
            }
        }
        if needed[count] {
            let both = if self.direction == Forward { [&self.x, &gradient] } else { [&gradient, &self.x] };
            let weight = form.turn(WeightGradient, both, false)?;
            // As the variable lies, which optimisers go through value by value.
            gradients[count] = Some(moves::arrange(form.stage(), Order::Planes, &weight)?);
        }
        gradients[count + 1] = sums;
        Ok(gradients)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
