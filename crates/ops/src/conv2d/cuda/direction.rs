//! The three directions of a convolution as nodes of candle's graph. Each is linear in both tensors that it takes, and what
//! goes back through one of them is made of the other two.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, Var};

use crate::check::refuse;
use crate::conv2d::{Geometry, composed, cpu};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From image and kernel to the result.
    Forward,
    /// From the result's gradient and the kernel to the image's gradient.
    InputGradient,
    /// From image and the result's gradient to the kernel's gradient.
    WeightGradient,
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

/// The same values, contiguous and starting where 16 bytes start, which cuDNN's wide loads may count on.
pub(super) fn aligned(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    let values = 16 / x.dtype().size_in_bytes().max(1);
    if x.layout().start_offset().is_multiple_of(values) { Ok(x) } else { x.force_contiguous() }
}

/// One direction of one convolution of [`aligned`] tensors: by cuDNN on a CUDA device, in f32 or, for `Exactness::Bf16`, in bf16; by our
/// kernels on the CPU, in f32.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) direction: Direction,
    pub(crate) geometry: Geometry,
}

impl Node {
    /// Another direction of the same convolution, of detached tensors; by candle's ops where this device fails at it.
    fn turn(&self, direction: Direction, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let node = Self { direction, ..*self };
        a.apply_op2_no_bwd(b, &node).or_else(|error| direction.composed(&self.geometry, a, b).map_err(|_| error))
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, a: &CpuStorage, a_at: &Layout, b: &CpuStorage, b_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let (Some((a_start, a_end)), Some((b_start, b_end))) = (a_at.contiguous_offsets(), b_at.contiguous_offsets())
        else {
            refuse!("{}: tensors that are not contiguous: {a_at:?}, {b_at:?}", self.name);
        };
        let (a, b) = (&a.as_slice::<f32>()?[a_start..a_end], &b.as_slice::<f32>()?[b_start..b_end]);
        let g = &self.geometry;
        let y = match self.direction {
            Direction::Forward => cpu::forward(g, g.images(a), b, None),
            Direction::InputGradient => cpu::input_gradient(g, a, b, None),
            Direction::WeightGradient => cpu::weight_gradient(g, g.images(a), b),
        };
        let [_, _, shape] = self.direction.shapes(g);
        Ok((CpuStorage::F32(y), Shape::from(&shape[..])))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &candle_core::CudaStorage,
        a_at: &Layout,
        b: &candle_core::CudaStorage,
        b_at: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let [_, _, shape] = self.direction.shapes(&self.geometry);
        let y = super::cudnn::convolve(self.direction, &self.geometry, (a, a_at), (b, b_at))?;
        Ok((y, Shape::from(&shape[..])))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        use Direction::{Forward, InputGradient, WeightGradient};
        // Detached, or a gradient would keep the whole graph alive.
        let gradient = &aligned(&gradient.detach())?;
        let (needs_a, needs_b) = (a.track_op(), b.track_op());
        let (a, b) = (&a.detach(), &b.detach());
        let to_a = || match self.direction {
            Forward => self.turn(InputGradient, gradient, b),
            InputGradient => self.turn(Forward, gradient, b),
            WeightGradient => self.turn(InputGradient, b, gradient),
        };
        let to_b = || match self.direction {
            Forward => self.turn(WeightGradient, a, gradient),
            InputGradient => self.turn(WeightGradient, gradient, a),
            WeightGradient => self.turn(Forward, a, gradient),
        };
        Ok((needs_a.then(to_a).transpose()?, needs_b.then(to_b).transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor, Var};

    use super::{Direction, Node, aligned, composed};
    use crate::conv2d::{Conv2d, Exactness, Geometry, geometry};
    use crate::verify::{self, draw};

    fn uneven() -> Geometry {
        let exactness = Exactness::Direct;
        let spec = Conv2d { stride: (3, 2), padding: (1, 2), dilation: (1, 2), groups: 2, exactness };
        geometry(&draw((2, 4, 11, 9), 0), &draw((6, 2, 2, 3), 0), None, spec).unwrap()
    }

    /// Which of image, kernel and result are taken, and which is given.
    fn places(direction: Direction) -> [usize; 3] {
        match direction {
            Direction::Forward => [0, 1, 2],
            Direction::InputGradient => [2, 1, 0],
            Direction::WeightGradient => [0, 2, 1],
        }
    }

    #[test]
    fn directions_and_their_gradients_are_those_of_one_trilinear_form() {
        let g = uneven();
        let all: Vec<Tensor> = Direction::Forward.shapes(&g).iter().zip(1..).map(|(s, i)| draw(&s[..], i)).collect();
        let wide: Vec<Tensor> = all.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
        let form = |x: &[Tensor]| (composed::conv2d(&x[0], &x[1], None, &g)? * &x[2])?.sum_all();
        let one = Tensor::ones((), DType::F64, &candle_core::Device::Cpu).unwrap();
        let (_, expected) = verify::differentiate(&form, &wide, &one);
        for direction in Direction::ALL {
            let [a, b, given] = places(direction);
            let node = |x: &[Tensor]| x[0].apply_op2(&x[1], Node { name: "node", direction, geometry: g });
            let (y, gradients) = verify::differentiate(&node, &[all[a].clone(), all[b].clone()], &all[given]);
            verify::assert_close("node", &y, &expected[given], 1e-6);
            verify::assert_close("gradient of the first", &gradients[0], &expected[a], 3e-6);
            verify::assert_close("gradient of the second", &gradients[1], &expected[b], 3e-6);
            let composed = direction.composed(&g, &wide[a], &wide[b]).unwrap();
            verify::assert_close("composed", &composed, &expected[given], 1e-12);
        }
    }

    #[test]
    fn what_the_device_cannot_is_composed() {
        // Our kernels know f32 alone.
        let g = uneven();
        let [image, kernel, _] = Direction::Forward.shapes(&g).map(|s| draw(&s[..], 1).to_dtype(DType::F64).unwrap());
        let node = Node { name: "node", direction: Direction::Forward, geometry: g };
        assert!(image.apply_op2_no_bwd(&kernel, &node).is_err());
        let y = node.turn(Direction::Forward, &image, &kernel).unwrap();
        verify::assert_close("composed", &y, &composed::conv2d(&image, &kernel, None, &g).unwrap(), 0.);
    }

    #[test]
    fn views_are_copied_to_where_sixteen_bytes_start() {
        let all = draw((5, 3), 1);
        for first in 0..5 {
            let view = all.narrow(0, first, 5 - first).unwrap();
            let copy = aligned(&view).unwrap();
            assert!(copy.is_contiguous() && copy.layout().start_offset().is_multiple_of(4));
            assert_eq!(verify::values(&copy), verify::values(&view));
        }
        assert_eq!(verify::values(&aligned(&all.t().unwrap()).unwrap()), verify::values(&all.t().unwrap()));
    }

    #[test]
    fn gradients_that_nobody_needs_are_not_computed() {
        let g = uneven();
        let [image, kernel, _] = Direction::Forward.shapes(&g).map(|s| draw(&s[..], 1));
        let kernel = Var::from_tensor(&kernel).unwrap();
        let node = Node { name: "node", direction: Direction::Forward, geometry: g };
        let gradients = image.apply_op2(&kernel, node).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&kernel).is_some_and(|gradient| !gradient.track_op()));
        assert!(gradients.get(&image).is_none());
    }
}
