//! The three directions of a convolution: each is linear in the two tensors that it takes, and what goes back through one of
//! them is made of the other two.

#[cfg(test)]
use candle_core::DType;
use candle_core::{Result, Storage, Tensor, Var};

use super::form::Stored;
use crate::check::refuse;
use crate::conv2d::{Geometry, composed};
use crate::kernel::Order;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From image and kernel to the result.
    Forward,
    /// From the result's gradient and the kernel to the image's gradient.
    InputGradient,
    /// From image and the result's gradient to the kernel's gradient.
    WeightGradient,
}

/// What a tensor is to a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Image,
    Kernel,
    Result,
}

impl Direction {
    pub(super) const ALL: [Self; 3] = [Self::Forward, Self::InputGradient, Self::WeightGradient];

    /// The shapes of the two tensors that it takes, and of what it gives.
    pub(super) fn shapes(self, g: &Geometry) -> [[usize; 4]; 3] {
        let image = [g.batch, g.in_channels, g.input.0, g.input.1];
        let kernel = [g.out_channels, g.in_channels / g.groups, g.kernel.0, g.kernel.1];
        let result = [g.batch, g.out_channels, g.output.0, g.output.1];
        match self {
            Self::Forward => [image, kernel, result],
            Self::InputGradient => [result, kernel, image],
            Self::WeightGradient => [image, result, kernel],
        }
    }

    /// What the two tensors are that it takes, and what it gives.
    pub(super) fn roles(self) -> [Role; 3] {
        match self {
            Self::Forward => [Role::Image, Role::Kernel, Role::Result],
            Self::InputGradient => [Role::Result, Role::Kernel, Role::Image],
            Self::WeightGradient => [Role::Image, Role::Result, Role::Kernel],
        }
    }

    /// Of tensors stored in one order, what is stored in the same, in their dtype: by cuDNN on a CUDA device; by our kernels on the CPU, where tests are.
    /// With it comes whether a bias, contiguous, was added on the way.
    pub(super) fn run(
        self,
        g: &Geometry,
        order: Order,
        a_tensor: &Stored,
        b_tensor: &Stored,
        bias: Option<&Tensor>,
    ) -> Result<(Storage, bool)> {
        #[cfg(not(feature = "cuda"))]
        let _ = bias;
        let ((a, a_at), (b, b_at)) = (a_tensor.tensor().storage_and_layout(), b_tensor.tensor().storage_and_layout());
        match (&*a, &*b) {
            #[cfg(feature = "cuda")]
            (Storage::Cuda(a), Storage::Cuda(b)) => {
                let (y, biased) = super::cudnn::convolve(self, g, order, (a, a_at), (b, b_at), bias)?;
                Ok((Storage::Cuda(y), biased))
            }
            #[cfg(test)]
            (Storage::Cpu(_), Storage::Cpu(_)) => {
                Ok((self.run_on_cpu(g, order, (a_tensor.tensor(), b_tensor.tensor()))?, false))
            }
            _ => refuse!("convolutions are by cuDNN on a CUDA device alone: {a_at:?}, {b_at:?}"),
        }
    }

    #[cfg(test)]
    fn run_on_cpu(self, g: &Geometry, order: Order, (a, b): (&Tensor, &Tensor)) -> Result<Storage> {
        use crate::conv2d::cpu;
        use crate::kernel::values;
        let dtype = a.dtype();
        if ![DType::F32, DType::BF16].contains(&dtype) {
            refuse!("cuDNN is given no {dtype:?}"); // as there
        }
        let plain = |x: &Tensor| order.seen(x)?.to_dtype(DType::F32)?.contiguous();
        let (a, b) = (plain(a)?, plain(b)?);
        let (a, b) = (values(&a)?, values(&b)?);
        let y = match self {
            Self::Forward => cpu::forward(g, g.images(&a), &b, None),
            Self::InputGradient => cpu::input_gradient(g, &a, &b, None),
            Self::WeightGradient => {
                let (weight, _) = cpu::parameter_gradients(g, g.images(&a), &b, [true, false]);
                weight.map(|of| of.values).unwrap_or_default()
            }
        };
        let [_, _, shape] = self.shapes(g);
        let y = Tensor::from_vec(y, &shape[..], &candle_core::Device::Cpu)?;
        let y = order.stored(&y)?.to_dtype(dtype)?.force_contiguous()?;
        let (storage, layout) = y.storage_and_layout();
        storage.try_clone(layout)
    }

    /// By candle's ops: slower, in more memory, on every device and in every dtype.
    pub(super) fn composed(self, g: &Geometry, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let [_, _, shape] = self.shapes(g);
        match self {
            Self::Forward => composed::conv2d(a, b, None, g),
            Self::InputGradient => {
                let image = Var::zeros(&shape[..], a.dtype(), a.device())?;
                gradient(&image, &composed::conv2d(&image, b, None, g)?, a)
            }
            Self::WeightGradient => {
                let kernel = Var::zeros(&shape[..], a.dtype(), a.device())?;
                gradient(&kernel, &composed::conv2d(a, &kernel, None, g)?, b)
            }
        }
    }
}

fn gradient(variable: &Var, y: &Tensor, cotangent: &Tensor) -> Result<Tensor> {
    match (y * cotangent)?.sum_all()?.backward()?.remove(variable) {
        Some(gradient) => Ok(gradient.detach()),
        None => refuse!("a convolution has no gradient by what it takes"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use super::{Direction, composed};
    use crate::Exactness;
    use crate::conv2d::cuda::form::Form;
    use crate::conv2d::{Conv2d, Geometry, geometry};
    use crate::cuda::Stage;
    use crate::kernel::Order;
    use crate::verify::{self, draw};

    const STAGE: Stage = Stage::Emulator { without: None };

    fn uneven() -> Geometry {
        let exactness = Exactness::Direct;
        let spec = Conv2d { stride: (3, 2), padding: (1, 2), dilation: (1, 2), groups: 2, exactness };
        geometry(&draw((2, 4, 11, 9), 0), &draw((6, 2, 2, 3), 0), None, spec).unwrap()
    }

    #[test]
    fn directions_are_the_gradients_of_one_trilinear_form() {
        let g = uneven();
        let all: Vec<Tensor> = Direction::Forward.shapes(&g).iter().zip(1..).map(|(s, i)| draw(&s[..], i)).collect();
        let wide: Vec<Tensor> = all.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
        let form = |x: &[Tensor]| (composed::conv2d(&x[0], &x[1], None, &g)? * &x[2])?.sum_all();
        let one = Tensor::ones((), DType::F64, &candle_core::Device::Cpu).unwrap();
        let (_, expected) = verify::differentiate(&form, &wide, &one);
        for direction in Direction::ALL {
            let [a, b, given] = direction.roles().map(|role| role as usize);
            for order in [Order::Planes, Order::Pixels] {
                let y = Form::new(&STAGE, order, &g).compute(direction, [&all[a], &all[b]]).unwrap();
                assert_eq!(Order::of(&y), order);
                verify::assert_close("by kernels", &y, &expected[given], 1e-6);
            }
            let composed = direction.composed(&g, &wide[a], &wide[b]).unwrap();
            verify::assert_close("composed", &composed, &expected[given], 1e-12);
        }
    }
}
