//! What a convolution's tensors are made before cuDNN is handed them, and what is made of its results.

use candle_core::{DType, Error, Result, Tensor};

use super::direction::{Direction, Role};
use super::phases::Phases;
use crate::Exactness;
use crate::conv2d::Geometry;
use crate::cuda::sums::{channel_sums, narrow_with_sums};
use crate::cuda::{Memory, Stage, is_narrow, moves};
use crate::kernel::{Order, in_f32};

/// A convolution as cuDNN is given it: in an order, and over few channels by its phases.
pub(super) struct Form {
    stage: Stage,
    order: Order,
    geometry: Geometry,
    /// The convolution over phases, and the phases of images and of kernels.
    phases: Option<(Geometry, [Phases; 2])>,
}

impl Form {
    pub(super) fn new(stage: &Stage, order: Order, geometry: &Geometry) -> Self {
        Self { stage: stage.clone(), order, geometry: *geometry, phases: Phases::of(geometry, order) }
    }

    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// How what is of this role lies when it comes from [`run`](Self::run).
    pub(super) fn order_of(&self, role: Role) -> Order {
        if self.phases_of(role).is_some() { Order::Planes } else { self.order }
    }

    fn phases_of(&self, role: Role) -> Option<&Phases> {
        let (_, [images, kernels]) = self.phases.as_ref()?;
        match role {
            Role::Image => Some(images),
            Role::Kernel => Some(kernels),
            Role::Result => None,
        }
    }

    /// The convolution that cuDNN computes.
    fn inner(&self) -> &Geometry {
        self.phases.as_ref().map_or(&self.geometry, |(over_phases, _)| over_phases)
    }

    /// A direction of plain tensors, in f32.
    #[cfg(any(test, feature = "cuda"))]
    pub(super) fn compute(&self, direction: Direction, tensors: [&Tensor; 2]) -> Result<Tensor> {
        let ([_, _, role], [_, _, shape]) = (direction.roles(), direction.shapes(&self.geometry));
        let [a, b] = self.store(direction, tensors)?;
        self.run(direction, [&a, &b], None, false)?.into_image(shape, self.order_of(role))
    }

    /// The two tensors that a direction takes.
    fn store(&self, direction: Direction, [a, b]: [&Tensor; 2]) -> Result<[Stored; 2]> {
        let [of_a, of_b, _] = direction.roles();
        Ok([self.store_as(of_a, a)?, self.store_as(of_b, b)?])
    }

    pub(super) fn store_as(&self, role: Role, x: &Tensor) -> Result<Stored> {
        let exactness = self.geometry.exactness;
        match self.phases_of(role) {
            Some(phases) => Ok(Stored(phases.fold(&self.stage, x, exactness == Exactness::Bf16)?)),
            None => Stored::new(&self.stage, self.order, exactness, x),
        }
    }

    /// A gradient, with the sums of its channels `(c)` where they are asked for.
    pub(super) fn store_with_sums(&self, role: Role, x: &Tensor, sums: bool) -> Result<(Stored, Option<Tensor>)> {
        if self.phases_of(role).is_none() {
            return Stored::with_sums(&self.stage, self.order, self.geometry.exactness, x, sums);
        }
        let sums = sums.then(|| channel_sums(&self.stage, self.order_of(role), x)).transpose()?;
        Ok((self.store_as(role, x)?, sums))
    }

    /// What a direction gives, with a bias `(c)`, contiguous, if there is one: in f32, or in the order of pixels in bf16 if it `may_be_narrow`.
    pub(super) fn run(
        &self,
        direction: Direction,
        [a, b]: [&Stored; 2],
        bias: Option<&Tensor>,
        may_be_narrow: bool,
    ) -> Result<Memory> {
        let [_, _, role] = direction.roles();
        let on_the_way = bias.filter(|_| self.phases_of(role).is_none());
        let (y, biased) = direction.run(self.inner(), self.order, a, b, on_the_way)?;
        self.finish(direction, Memory::from(y), bias.filter(|_| !biased), may_be_narrow)
    }

    fn finish(
        &self,
        direction: Direction,
        mut y: Memory,
        bias: Option<&Tensor>,
        may_be_narrow: bool,
    ) -> Result<Memory> {
        let [_, _, role] = direction.roles();
        if let Some(phases) = self.phases_of(role) {
            return phases.unfold(&self.stage, y, bias);
        }
        let [_, _, [n, c, h, w]] = direction.shapes(&self.geometry);
        if y.is_narrow() && !(may_be_narrow && self.order == Order::Pixels) {
            return moves::widen(&self.stage, self.order, y.address()?, bias, (n, c, h * w));
        }
        if let Some(bias) = bias {
            moves::add_bias(&self.stage, self.order, (y.address()?, y.is_narrow()), bias, (n, c, h * w))?;
        }
        Ok(y)
    }

    /// [`run`](Self::run) without a bias, on the way back; by candle's ops where this device fails at it.
    pub(super) fn turn(&self, direction: Direction, [a, b]: [&Stored; 2], may_be_narrow: bool) -> Result<Tensor> {
        let by_candle = |error: Error| {
            let y = direction.composed(self.inner(), &a.seen(self.order)?, &b.seen(self.order)?).map_err(|_| error)?;
            let y = self.order.stored(&y)?.force_contiguous()?;
            let (storage, layout) = y.storage_and_layout();
            self.finish(direction, Memory::from(storage.try_clone(layout)?), None, may_be_narrow)
        };
        let [_, _, role] = direction.roles();
        let [_, _, shape] = direction.shapes(&self.geometry);
        let y = self.run(direction, [a, b], None, may_be_narrow).or_else(by_candle)?;
        y.into_image(shape, self.order_of(role))
    }
}

/// A tensor as cuDNN takes it: contiguous in an order, in the dtype that an exactness asks for, without a gradient, and starting where
/// 16 bytes start, which wide loads may count on.
#[derive(Clone)]
pub(super) struct Stored(Tensor);

impl Stored {
    pub(super) fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Of an image, or of a kernel `(out, in, kh, kw)`, which is arranged as if it were one.
    fn new(stage: &Stage, order: Order, exactness: Exactness, x: &Tensor) -> Result<Self> {
        let narrows = exactness == Exactness::Bf16;
        if narrows
            && !is_narrow(x)
            && let Some(narrow) = moves::arrange_narrow(stage, order, x)?
        {
            return Ok(Self(narrow));
        }
        let x = if narrows { x.clone() } else { in_f32(x)? };
        let x = order.stored(&moves::arrange(stage, order, &x)?)?;
        let x = if narrows && !is_narrow(&x) { moves::narrow(stage, &x)? } else { x };
        let values = 16 / x.dtype().size_in_bytes();
        Ok(Self(if x.layout().start_offset().is_multiple_of(values) { x } else { x.force_contiguous()? }))
    }

    /// Of the gradient of a result, with the sums of its channels `(c)` where they are asked for.
    fn with_sums(
        stage: &Stage,
        order: Order,
        exactness: Exactness,
        gradient: &Tensor,
        sums: bool,
    ) -> Result<(Self, Option<Tensor>)> {
        if sums
            && !is_narrow(gradient)
            && exactness == Exactness::Bf16
            && order == Order::Pixels
            && let Some((narrow, sums)) = narrow_with_sums(stage, &moves::arrange(stage, order, gradient)?)?
        {
            return Ok((Self(narrow), Some(sums)));
        }
        let sums = sums.then(|| channel_sums(stage, order, gradient)).transpose()?;
        Ok((Self::new(stage, order, exactness, gradient)?, sums))
    }

    /// What it was made of, as far as its dtype still tells, in f32.
    fn seen(&self, order: Order) -> Result<Tensor> {
        order.seen(&self.0.to_dtype(DType::F32)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::{Form, Stored};
    use crate::Exactness;
    use crate::conv2d::cuda::direction::Direction;
    use crate::conv2d::{Conv2d, geometry};
    use crate::cuda::Stage;
    use crate::kernel::Order;
    use crate::verify::{self, draw};

    const STAGE: Stage = Stage::Emulator { without: None };

    #[test]
    fn what_the_device_cannot_is_composed() {
        for (stride, kernel) in [(1, 3), (2, 4)] {
            let spec = Conv2d { exactness: Exactness::Direct, ..Conv2d::new(stride, 1) };
            let [x, weight] = [draw((2, 5, 8, 6), 1), draw((4, 5, kernel, kernel), 2)];
            let g = geometry(&x, &weight, None, spec).unwrap();
            let result = draw(&Direction::Forward.shapes(&g)[2][..], 3);
            for order in [Order::Planes, Order::Pixels] {
                let form = Form::new(&STAGE, order, &g);
                assert_eq!(form.phases.is_some(), (kernel, order) == (4, Order::Pixels));
                for direction in Direction::ALL {
                    let of = direction.roles().map(|role| [&x, &weight, &result][role as usize]);
                    // Which cuDNN does not take.
                    let stored = form.store(direction, [of[0], of[1]]).unwrap();
                    let [a, b] = stored.map(|x| Stored(x.0.to_dtype(DType::F64).unwrap()));
                    assert!(form.run(direction, [&a, &b], None, false).is_err());
                    let y = form.turn(direction, [&a, &b], false).unwrap();
                    assert_eq!(Order::of(&y), form.order_of(direction.roles()[2]));
                    let [a, b] = [of[0], of[1]].map(|x| x.to_dtype(DType::F64).unwrap());
                    verify::assert_close("composed", &y, &direction.composed(&g, &a, &b).unwrap(), 1e-6);
                }
            }
        }
    }

    #[test]
    fn views_are_copied_to_where_sixteen_bytes_start() {
        let all = draw((5, 1, 1, 3), 1);
        for first in 0..5 {
            let view = all.narrow(0, first, 5 - first).unwrap();
            let stored = Stored::new(&STAGE, Order::Planes, Exactness::Direct, &view).unwrap();
            assert!(stored.0.is_contiguous() && stored.0.layout().start_offset().is_multiple_of(4));
            assert_eq!(verify::values(&stored.seen(Order::Planes).unwrap()), verify::values(&view));
        }
    }
}
