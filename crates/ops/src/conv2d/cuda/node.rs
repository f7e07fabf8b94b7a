//! A convolution, or its adjoint, as a node of both graphs: what cuDNN computes, and the kernels beside it.

use candle_core::{Error, Result, Tensor};

use super::direction::{Direction, Stored};
use crate::Activation;
use crate::conv2d::Geometry;
use crate::cuda::{Memory, Stage, moves};
use crate::kernel::{InputGradients, Order, Pass, node_taking_bf16};
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
    /// # Errors
    /// What cuDNN does not do in one of the directions.
    pub(super) fn apply(&self, stage: &Stage, order: Order) -> Result<Tensor> {
        self.node(stage, order, |x, weight| {
            let bias = self.bias.map(Tensor::contiguous).transpose()?;
            self.direction.run_in_f32(stage, &self.geometry, order, [x, weight], bias.as_ref())
        })
    }

    /// The same as cuDNN gives it, which may be bf16, and less the bias, which nevertheless gets its gradient: for a normalisation by the
    /// result's own statistics, which a bias moves along with the result.
    pub(super) fn apply_without_bias(&self, stage: &Stage, order: Order) -> Result<Tensor> {
        self.node(stage, order, |x, weight| {
            self.direction.run(&self.geometry, order, x, weight, None).map(|(y, _)| y.into())
        })
    }

    /// The same in the order of pixels, normalised by its own statistics.
    pub(super) fn apply_norm_train(
        &self,
        stage: &Stage,
        norm: &NormTrain,
        activation: Activation,
    ) -> Result<(Tensor, BatchStatistics)> {
        let y = self.apply_without_bias(stage, Order::Pixels)?;
        let (y, mut statistics) = batch_norm::cuda::train(stage, &y, norm.weight, norm.bias, norm.epsilon, activation)?;
        if let Some(bias) = self.bias {
            statistics.mean = (statistics.mean + bias.detach())?;
        }
        Ok((y, statistics))
    }

    /// The image, or the stack of two.
    fn stacked(&self, stage: &Stage, order: Order) -> Result<Tensor> {
        let mut images = self.images.iter().map(|x| moves::arrange(stage, order, x)).collect::<Result<Vec<_>>>()?;
        if images.len() == 1 { Ok(images.swap_remove(0)) } else { moves::stack(stage, order, &images) }
    }

    fn node(
        &self,
        stage: &Stage,
        order: Order,
        run: impl FnOnce(&Stored, &Stored) -> Result<Memory>,
    ) -> Result<Tensor> {
        let g = self.geometry;
        let x = Stored::new(stage, order, g.exactness, &self.stacked(stage, order)?)?;
        let channels = self.images.iter().map(|x| x.dim(1)).collect::<Result<_>>()?;
        let y = run(&x, &Stored::new(stage, order, g.exactness, self.weight)?)?;
        let weight = self.weight.detach();
        let saved = Saved { stage: stage.clone(), order, direction: self.direction, geometry: g, x, weight, channels };
        let inputs: Vec<&Tensor> = self.images.iter().copied().chain([self.weight]).chain(self.bias).collect();
        let [_, _, shape] = self.direction.shapes(&g);
        node_taking_bf16(order, self.name, &inputs, y, &shape[..], move |pass| saved.backward(pass))
    }

    /// The same, normalised by running statistics, in no graph: what cuDNN has rounded to bf16 is read as such, and what is f32 is
    /// normalised where it lies.
    pub(super) fn apply_norm_eval(
        &self,
        stage: &Stage,
        order: Order,
        norm: &NormEval,
        activation: Activation,
    ) -> Result<Tensor> {
        let g = self.geometry;
        let x = self.stacked(stage, order)?;
        let [x, weight] = [&x, self.weight].map(|x| Stored::new(stage, order, g.exactness, x));
        let (y, _) = self.direction.run(&g, order, &x?, &weight?, None)?;
        let [_, _, shape] = self.direction.shapes(&g);
        batch_norm::cuda::eval_after(stage, order, (Memory::from(y), shape), self.bias, norm, activation)
    }
}

/// What the way back needs.
struct Saved {
    stage: Stage,
    order: Order,
    direction: Direction,
    geometry: Geometry,
    /// The image, or the stack of two.
    x: Stored,
    /// As the variable lies: in the order that cuDNN takes, large ones take much memory.
    weight: Tensor,
    /// Channels of each image.
    channels: Vec<usize>,
}

impl Saved {
    fn backward(&self, pass: &Pass) -> Result<InputGradients<4>> {
        use Direction::{Forward, InputGradient, WeightGradient};
        let g = &self.geometry;
        let count = self.channels.len();
        let (gradient, sums) =
            Stored::with_sums(&self.stage, self.order, g.exactness, pass.gradient, pass.needed[count + 1])?;
        let mut gradients = InputGradients::<4>::default();
        if pass.needed[..count].contains(&true) {
            let back = if self.direction == Forward { InputGradient } else { Forward };
            let weight = Stored::new(&self.stage, self.order, g.exactness, &self.weight)?;
            let x = self.turn(back, &gradient, &weight, self.order == Order::Pixels)?;
            if count == 1 {
                gradients[0] = Some(x);
            } else {
                let mut start = 0;
                for (at, &channels) in self.channels.iter().enumerate() {
                    if pass.needed[at] {
                        gradients[at] = Some(moves::part(&self.stage, self.order, &x, start, channels)?);
                    }
                    start += channels;
                }
            }
        }
        if pass.needed[count] {
            let (image, result) = if self.direction == Forward { (&self.x, &gradient) } else { (&gradient, &self.x) };
            let weight = self.turn(WeightGradient, image, result, false)?;
            // As the variable lies, which optimisers go through value by value.
            gradients[count] = Some(moves::arrange(&self.stage, Order::Planes, &weight)?);
        }
        gradients[count + 1] = sums;
        Ok(gradients)
    }

    /// Another direction of the same convolution, in f32 unless it may be `as_given`; by candle's ops where this device fails at it.
    fn turn(&self, direction: Direction, a: &Stored, b: &Stored, as_given: bool) -> Result<Tensor> {
        let [_, _, shape] = direction.shapes(&self.geometry);
        let by_candle = |error: Error| {
            let y = direction.composed(&self.geometry, &a.seen(self.order)?, &b.seen(self.order)?);
            self.order.arrange(&y.map_err(|_| error)?)
        };
        let y = if as_given {
            direction.run(&self.geometry, self.order, a, b, None).map(|(y, _)| Memory::from(y))
        } else {
            direction.run_in_f32(&self.stage, &self.geometry, self.order, [a, b], None)
        };
        y.and_then(|y| y.into_image(shape, self.order)).or_else(by_candle)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use candle_core::{DType, Result, Tensor, Var};

    use super::{Convolution, Saved, Stored};
    use crate::Activation;
    use crate::conv2d::cuda::direction::Direction;
    use crate::conv2d::{Conv2d, geometry};
    use crate::cuda::Stage;
    use crate::kernel::Order;
    use crate::norm::{BatchStatistics, NormEval, NormTrain, batch_norm};
    use crate::verify::{self, draw};
    use crate::{ConvTranspose2d, Exactness, conv_transpose2d, conv2d};

    const STAGE: Stage = Stage::Emulator { without: None };

    fn convolve(order: Order, images: &[&Tensor], rest: &[Tensor], spec: Conv2d) -> Result<Tensor> {
        let (weight, bias) = (&rest[0], rest.get(1));
        let stacked = if images.len() > 1 { crate::cat(images)? } else { images[0].clone() };
        let geometry = geometry(&stacked, weight, bias, spec)?;
        let direction = Direction::Forward;
        Convolution { name: "conv2d", direction, images, weight, bias, geometry }.apply(&STAGE, order)
    }

    fn adjoint(order: Order, x: &[Tensor], spec: ConvTranspose2d) -> Result<Tensor> {
        let (weight, bias) = (&x[1], x.get(2));
        let geometry = crate::conv_transpose2d::geometry(&x[0], weight, bias, spec)?;
        let direction = Direction::InputGradient;
        Convolution { name: "conv_transpose2d", direction, images: &[&x[0]], weight, bias, geometry }
            .apply(&STAGE, order)
    }

    const DIRECT: Exactness = Exactness::Direct;

    #[test]
    fn convolutions_hold_in_both_orders() {
        let uneven = Conv2d { stride: (3, 2), padding: (0, 2), dilation: (1, 2), groups: 2, exactness: DIRECT };
        for (spec, x, weight) in [
            (Conv2d { exactness: DIRECT, ..Conv2d::new(1, 1) }, (2, 5, 7, 6), (4, 5, 3, 3)),
            (Conv2d { exactness: DIRECT, ..Conv2d::default() }, (3, 6, 5, 1), (4, 6, 1, 1)),
            (Conv2d { exactness: DIRECT, ..Conv2d::new(2, 1) }, (2, 1, 9, 8), (9, 1, 4, 4)),
            (uneven, (2, 4, 11, 9), (6, 2, 2, 3)),
        ] {
            for order in [Order::Planes, Order::Pixels] {
                let inputs = [draw(x, 1), draw(weight, 2), draw(weight.0, 3)];
                for inputs in [&inputs[..], &inputs[..2]] {
                    let node = |x: &[Tensor]| convolve(order, &[&x[0]], &x[1..], spec);
                    verify::assert_like_composed(node, |x| conv2d(&x[0], &x[1], x.get(2), spec), inputs);
                }
            }
        }
    }

    #[test]
    fn adjoints_hold_in_both_orders() {
        for (spec, x, weight) in [
            (ConvTranspose2d { exactness: DIRECT, ..ConvTranspose2d::new(2, 0) }, (2, 6, 4, 5), (6, 3, 2, 2)),
            (ConvTranspose2d { exactness: DIRECT, ..ConvTranspose2d::new(2, 1) }, (2, 3, 5, 3), (3, 4, 4, 4)),
        ] {
            for order in [Order::Planes, Order::Pixels] {
                let inputs = [draw(x, 1), draw(weight, 2), draw(weight.1, 3)];
                let node = |x: &[Tensor]| adjoint(order, x, spec);
                verify::assert_like_composed(node, |x| conv_transpose2d(&x[0], &x[1], x.get(2), spec), &inputs);
            }
        }
    }

    #[test]
    fn stacks_hold_whichever_gradients_are_needed() {
        let spec = Conv2d { exactness: DIRECT, ..Conv2d::new(1, 1) };
        let inputs = [draw((2, 3, 5, 4), 1), draw((2, 9, 5, 4), 2), draw((4, 12, 3, 3), 3), draw(4, 4)];
        for order in [Order::Planes, Order::Pixels] {
            let node = |x: &[Tensor]| convolve(order, &[&x[0], &x[1]], &x[2..], spec);
            let composed = |x: &[Tensor]| conv2d([&x[0], &x[1]], &x[2], x.get(3), spec);
            verify::assert_like_composed(node, composed, &inputs);
            let cotangent = draw((2, 4, 5, 4), 5);
            let (_, expected) = verify::differentiate(&node, &inputs, &cotangent);
            for (at, expected) in expected.iter().enumerate() {
                let variable = Var::from_tensor(&inputs[at]).unwrap();
                let mut some = inputs.clone();
                some[at] = variable.as_tensor().clone();
                let y = (node(&some).unwrap() * &cotangent).unwrap().sum_all().unwrap();
                let gradients = y.backward().unwrap();
                assert_eq!(verify::values(gradients.get(&variable).unwrap()), verify::values(expected));
            }
        }
    }

    #[test]
    fn convolutions_are_normalised_where_they_lie() {
        let [x, weight, bias] = [draw((2, 3, 6, 5), 1), draw((8, 6, 3, 3), 2), draw(8, 3)];
        let [scale, shift, mean] = [draw(8, 4), draw(8, 5), draw(8, 6)];
        let variance = mean.sqr().unwrap();
        let norm =
            NormEval { weight: &scale, bias: &shift, running_mean: &mean, running_var: &variance, epsilon: 1e-3 };
        for exactness in [DIRECT, Exactness::Fast, Exactness::Bf16] {
            let spec = Conv2d { exactness, ..Conv2d::new(1, 1) };
            let images = [&x, &x];
            let geometry = geometry(images, &weight, Some(&bias), spec).unwrap();
            for (order, bias) in [(Order::Planes, None), (Order::Pixels, None), (Order::Pixels, Some(&bias))] {
                let (direction, name) = (Direction::Forward, "conv2d");
                let of = Convolution { name, direction, images: &images, weight: &weight, bias, geometry };
                let activation = Activation::LeakyRelu(0.2);
                let y = of.apply_norm_eval(&STAGE, order, &norm, activation).unwrap();
                assert_eq!(Order::of(&y), order);
                let one_by_one = norm.apply(&of.apply(&STAGE, order).unwrap(), activation).unwrap();
                verify::assert_close("normalised", &y, &one_by_one.to_dtype(DType::F64).unwrap(), 1e-6);
            }
        }
    }

    /// What is between convolution and normalisation is bf16, and so is its gradient; a bias is left to the statistics.
    #[test]
    fn what_is_normalised_by_itself_stays_bf16() {
        let spec = Conv2d { exactness: Exactness::Bf16, ..Conv2d::new(1, 1) };
        for channels in [5, 8] {
            let inputs = [
                draw((2, 3, 6, 5), 1),
                draw((channels, 6, 3, 3), 2),
                draw(channels, 3),
                draw(channels, 4),
                draw(channels, 5),
            ];
            let of = |x: &[Tensor], together: bool| -> Result<(Tensor, BatchStatistics)> {
                let images = [&x[0], &x[0]];
                let (direction, name, weight, bias) = (Direction::Forward, "conv2d", &x[1], Some(&x[2]));
                let geometry = geometry(images, weight, bias, spec)?;
                let of = Convolution { name, direction, images: &images, weight, bias, geometry };
                let norm = NormTrain { weight: &x[3], bias: &x[4], epsilon: 1e-5 };
                if together {
                    return of.apply_norm_train(&STAGE, &norm, Activation::Relu);
                }
                let y = of.apply(&STAGE, Order::Pixels)?;
                batch_norm::cuda::train(&STAGE, &y, norm.weight, norm.bias, norm.epsilon, Activation::Relu)
            };
            let (statistics, expected) = (of(&inputs, true).unwrap().1, of(&inputs, false).unwrap().1);
            for (actual, expected) in [(statistics.mean, expected.mean), (statistics.variance, expected.variance)] {
                verify::assert_close("statistics", &actual, &expected.to_dtype(DType::F64).unwrap(), 1e-6);
            }
            let cotangent = draw((2, channels, 6, 5), 6);
            let [(y, gradients), (expected, expected_gradients)] =
                [true, false].map(|together| verify::differentiate(&|x| Ok(of(x, together)?.0), &inputs, &cotangent));
            verify::assert_close("result", &y, &expected.to_dtype(DType::F64).unwrap(), 1e-6);
            for (at, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
                let size = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                if at == 2 {
                    // The statistics take it away again: rounding is all that is left.
                    assert!(size(gradient) < 0.05 * size(&gradients[1]) && size(expected) < 0.05 * size(&gradients[1]));
                } else {
                    verify::assert_close("gradient", gradient, &expected.to_dtype(DType::F64).unwrap(), 1e-5);
                }
            }
        }
    }

    /// With an image that two ops use, and in bf16 with gradients that are summed in f32.
    #[test]
    fn what_follows_keeps_the_order_and_both_graphs_agree() {
        let inputs = [draw((2, 3, 6, 4), 1), draw((9, 3, 3, 3), 2), draw(9, 3), draw(9, 4), draw((4, 18, 1, 1), 5)];
        let [deeper, last] = [draw((9, 9, 3, 3), 6), draw((9, 18, 3, 3), 7)];
        for exactness in [Exactness::Fast, Exactness::Bf16] {
            let spec = Conv2d { exactness, ..Conv2d::new(1, 1) };
            let network = |x: &[Tensor]| {
                let normalised = |y: &Tensor| {
                    batch_norm::cuda::train(&STAGE, y, &x[2], &x[3], 1e-5, Activation::Relu).map(|(y, _)| y)
                };
                let skip = normalised(&convolve(Order::Pixels, &[&x[0]], &x[1..2], spec)?)?;
                let y = normalised(&convolve(Order::Pixels, &[&skip], std::slice::from_ref(&deeper), spec)?)?;
                let y = normalised(&convolve(Order::Pixels, &[&y, &skip], std::slice::from_ref(&last), spec)?)?;
                let y = crate::pool::max_pool2d::cuda::max_pool2d(&STAGE, &y, 2)?;
                let y = crate::activation::cuda::apply(&STAGE, Activation::LeakyRelu(0.2), &y)?;
                assert_eq!(Order::of(&y), Order::Pixels);
                convolve(Order::Pixels, &[&y, &y], &x[4..], spec)
            };
            let variables: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let x: Vec<Tensor> = variables.iter().map(|x| x.as_tensor().clone()).collect();
            let ours = crate::backward(network(&x).unwrap()).unwrap();
            assert!(!ours.through_candle());
            let candles = network(&x).unwrap().sum_all().unwrap().backward().unwrap();
            for variable in &variables {
                let [ours, candles] = [ours.get(variable).unwrap(), candles.get(variable).unwrap()];
                verify::assert_close("gradient", ours, &candles.to_dtype(DType::F64).unwrap(), 1e-6);
            }
        }
    }

    #[test]
    fn what_the_device_cannot_is_composed() {
        let spec = Conv2d { exactness: DIRECT, ..Conv2d::new(1, 1) };
        let [x, weight] = [draw((2, 5, 7, 6), 1), draw((4, 5, 3, 3), 2)];
        let geometry = geometry(&x, &weight, None, spec).unwrap();
        for order in [Order::Planes, Order::Pixels] {
            // Which cuDNN does not take.
            let [x, weight] = [&x, &weight].map(|x| order.arrange(&x.to_dtype(DType::F64).unwrap()).unwrap());
            let [x, weight] = [x, weight].map(|x| Stored::new(&STAGE, order, DIRECT, &x).unwrap());
            let direction = Direction::Forward;
            assert!(direction.run_in_f32(&STAGE, &geometry, order, [&x, &weight], None).is_err());
            let kept = weight.seen(order).unwrap();
            let saved = Saved { stage: STAGE, order, direction, geometry, x, weight: kept, channels: vec![5] };
            let y = saved.turn(direction, &saved.x, &weight, false).unwrap();
            assert_eq!(Order::of(&y), order);
            let expected = direction.composed(
                &geometry,
                &saved.x.seen(order).unwrap().to_dtype(DType::F64).unwrap(),
                &saved.weight.to_dtype(DType::F64).unwrap(),
            );
            verify::assert_close("composed", &y, &expected.unwrap(), 1e-6);
        }
    }

    #[test]
    fn bf16_rounds_factors_and_results() {
        let spec = Conv2d { exactness: Exactness::Bf16, ..Conv2d::new(1, 1) };
        let inputs = [draw((2, 5, 7, 6), 1), draw((4, 5, 3, 3), 2)];
        let bias = draw(4, 4);
        let with_bias = [inputs[0].clone(), inputs[1].clone(), bias.clone()];
        let node = |x: &[Tensor]| convolve(Order::Pixels, &[&x[0]], &x[1..], spec);
        let (_, gradients) = verify::differentiate(&node, &with_bias, &draw((2, 4, 7, 6), 3));
        let sums = draw((2, 4, 7, 6), 3).to_dtype(DType::F64).unwrap().sum((0, 2, 3)).unwrap();
        verify::assert_close("gradient of the bias", &gradients[2], &sums, 1e-6);
        let cotangent = draw((2, 4, 7, 6), 3);
        let by = |op: verify::Op| verify::differentiate(op, &inputs, &cotangent);
        let ((y, gradients), (expected, expected_gradients)) = (by(&node), by(&|x| conv2d(&x[0], &x[1], None, spec)));
        assert_eq!(verify::values(&y), verify::values(&expected));
        for (gradient, expected) in gradients.iter().zip(&expected_gradients) {
            assert_eq!(verify::values(gradient), verify::values(expected));
        }
    }
}
