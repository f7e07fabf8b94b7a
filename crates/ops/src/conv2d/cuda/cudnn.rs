//! cuDNN, as far as convolutions need it: a handle for each thread and device, with the descriptors of the convolutions seen
//! so far and one workspace.
//!
//! The algorithms are fixed, and those that PyTorch takes when it is told to be deterministic: no choice depends on a
//! measurement, and none adds up in the order in which threads finish, as `BWD_DATA_ALGO_0`, `BWD_FILTER_ALGO_0` and
//! `BWD_FILTER_ALGO_3` do.
#![allow(unsafe_code, reason = "cuDNN is told where tensors lie, and writes results that were not zeroed first")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1 as DATA_ALGORITHM,
    cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 as FILTER_ALGORITHM,
    cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM as FORWARD_ALGORITHM,
    cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
    cudnnMathType_t::{CUDNN_DEFAULT_MATH, CUDNN_FMA_MATH, CUDNN_TENSOR_OP_MATH},
    cudnnTensorFormat_t::{CUDNN_TENSOR_NCHW, CUDNN_TENSOR_NHWC},
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result};
use half::bf16;

use super::direction::Direction;
use crate::Exactness;
use crate::check::refuse;
use crate::conv2d::{Geometry, positions};
use crate::kernel::Order;

/// One direction of a convolution, on the device's stream and without waiting for it. The tensors are stored in this order, both in f32 or
/// both in bf16; sums are in f32.
pub(super) fn convolve(
    direction: Direction,
    g: &Geometry,
    order: Order,
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    match a.0.dtype() {
        DType::F32 => convolve_in::<f32>(direction, g, order, a, b),
        DType::BF16 => convolve_in::<bf16>(direction, g, order, a, b),
        other => refuse!("cuDNN is given no {other:?}"),
    }
}

/// What tensors for cuDNN are made of.
trait Element: CudnnDataType + CudaDType + DeviceRepr {
    const ONE: Self;
    const ZERO: Self;

    fn plans(library: &mut Library) -> &mut Plans<Self>;
}

impl Element for f32 {
    const ONE: Self = 1.;
    const ZERO: Self = 0.;

    fn plans(library: &mut Library) -> &mut Plans<Self> {
        &mut library.plans
    }
}

impl Element for bf16 {
    const ONE: Self = Self::ONE;
    const ZERO: Self = Self::ZERO;

    fn plans(library: &mut Library) -> &mut Plans<Self> {
        &mut library.plans_of_bf16
    }
}

fn convolve_in<T: Element>(
    direction: Direction,
    g: &Geometry,
    order: Order,
    (a, a_at): (&CudaStorage, &Layout),
    (b, b_at): (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let device = &a.device;
    let [a_shape, b_shape, shape] = direction.shapes(g).map(|shape| order.shape(shape));
    let (a, b) = (view(a, a_at, a_shape)?, view(b, b_at, b_shape)?);
    // SAFETY: cuDNN writes all of it before anyone reads; on an error it is freed unread.
    let mut y = unsafe { device.alloc::<T>(shape.iter().product())? };
    LIBRARIES.with_borrow_mut(|libraries| {
        let library = match libraries.entry(device.id()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Library::new(device)?),
        };
        library.convolve(direction, g, order, &a, &b, &mut y)
    })?;
    Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
}

/// The values of a contiguous tensor of this shape.
fn view<'a, T: Element>(storage: &'a CudaStorage, layout: &Layout, shape: [usize; 4]) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if layout.dims() == shape => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        _ => refuse!("cuDNN takes no tensor that is not contiguous or not of shape {shape:?}: {layout:?}"),
    }
}

thread_local! {
    /// Two threads may not be in one handle at a time.
    static LIBRARIES: RefCell<HashMap<DeviceId, Library>> = RefCell::default();
}

/// A thread's cuDNN on a device. Handle and descriptors are never destroyed: cudarc panics where the device refuses that,
/// after a fault or when the process ends, and a panic in a thread's last moments is an abort. There is one handle a thread.
struct Library {
    cudnn: ManuallyDrop<Arc<Cudnn>>,
    plans: ManuallyDrop<Plans<f32>>,
    plans_of_bf16: ManuallyDrop<Plans<bf16>>,
    /// As large as any convolution has asked for. The next use of the stream may overwrite it.
    workspace: Option<CudaSlice<u8>>,
}

impl Library {
    fn new(device: &CudaDevice) -> Result<Self> {
        let cudnn = ManuallyDrop::new(Cudnn::new(device.cuda_stream())?);
        Ok(Self { cudnn, plans: ManuallyDrop::default(), plans_of_bf16: ManuallyDrop::default(), workspace: None })
    }

    fn convolve<T: Element>(
        &mut self,
        direction: Direction,
        g: &Geometry,
        order: Order,
        a: &CudaView<T>,
        b: &CudaView<T>,
        y: &mut CudaSlice<T>,
    ) -> Result<()> {
        let cudnn = Arc::clone(&self.cudnn);
        let key = key(g, order);
        let plan = T::plans(self).entry(key);
        let made = match plan.or_insert_with(|| Plan::new(&cudnn, g, order).map_err(|error| error.to_string())) {
            Ok(made) => made,
            Err(reason) => refuse!("cuDNN: {reason}"),
        };
        let needed = made.workspaces[direction as usize];
        if self.workspace.as_ref().map_or(0, CudaSlice::len) < needed {
            self.workspace = None; // before there are two
            // SAFETY: cuDNN reads nothing of it that it has not written.
            self.workspace = Some(unsafe { y.stream().alloc::<u8>(needed)? });
        }
        // All of it would do as well, but nothing is to depend on what was convolved before.
        let mut space = self.workspace.take();
        let workspace = space.as_mut().filter(|_| needed > 0).map(|bytes| bytes.slice_mut(..needed));
        let Some(Ok(made)) = T::plans(self).get(&key) else { refuse!("cuDNN: no plan of {g:?}") };
        // SAFETY: `a` and `b` have the shapes of the direction, checked by `view`, and `y` was made with it; the descriptors
        // say the same of the same geometry, contiguous T. All are on the handle's stream, in whose order they are freed.
        let launched = unsafe { made.launch(direction, workspace, a, b, y) };
        self.workspace = space;
        if let Err(error) = launched {
            T::plans(self).insert(key, Err(error.to_string()));
            refuse!("cuDNN: {error}");
        }
        Ok(())
    }
}

/// Plans, and why there is none for what cuDNN has refused.
type Plans<T> = HashMap<Key, std::result::Result<Plan<T>, String>>;

/// What a plan depends on, besides what tensors are made of.
type Key = ([(usize, usize); 6], [usize; 4], bool, Order);

fn key(g: &Geometry, order: Order) -> Key {
    (
        [g.kernel, g.stride, g.padding, g.dilation, g.input, g.output],
        [g.batch, g.in_channels, g.out_channels, g.groups],
        g.exactness == Exactness::Direct,
        order,
    )
}

/// A convolution described to cuDNN.
struct Plan<T> {
    image: TensorDescriptor<T>,
    kernel: FilterDescriptor<T>,
    result: TensorDescriptor<T>,
    settings: ConvDescriptor<f32>,
    /// Bytes for each direction.
    workspaces: [usize; 3],
}

impl<T: Element> Plan<T> {
    /// # Errors
    /// What cuDNN does not support in one of the directions.
    fn new(cudnn: &Arc<Cudnn>, g: &Geometry, order: Order) -> Result<Self> {
        let output = (
            positions(g.input.0, g.kernel.0, g.stride.0, g.padding.0, g.dilation.0),
            positions(g.input.1, g.kernel.1, g.stride.1, g.padding.1, g.dilation.1),
        );
        // The adjoint with much output padding: the kernel would find another position in the image.
        if output != (Some(g.output.0), Some(g.output.1)) {
            refuse!("{g:?} leaves positions of the kernel out");
        }
        let [image, kernel, result] = Direction::Forward.shapes(g).map(sizes);
        let [stride, padding, dilation] = [g.stride, g.padding, g.dilation].map(|(y, x)| sizes([y, x]));
        let [groups] = sizes([g.groups])?;
        let mut settings = cudnn.create_conv2d::<f32>(padding?, stride?, dilation?, CUDNN_CROSS_CORRELATION)?;
        settings.set_group_count(groups)?;
        settings.set_math_type(match g.exactness {
            Exactness::Direct => CUDNN_FMA_MATH,
            // It allows TF32 where there are tensor cores.
            Exactness::Fast => CUDNN_DEFAULT_MATH,
            Exactness::Bf16 => CUDNN_TENSOR_OP_MATH,
        })?;
        let format = match order {
            Order::Planes => CUDNN_TENSOR_NCHW,
            Order::Pixels => CUDNN_TENSOR_NHWC,
        };
        let mut plan = Self {
            image: cudnn.create_4d_tensor(format, image?)?,
            kernel: cudnn.create_4d_filter(format, kernel?)?,
            result: cudnn.create_4d_tensor(format, result?)?,
            settings,
            workspaces: [0; 3],
        };
        plan.workspaces = [
            plan.forward().get_workspace_size(FORWARD_ALGORITHM)?,
            plan.input_gradient().get_workspace_size(DATA_ALGORITHM)?,
            plan.weight_gradient().get_workspace_size(FILTER_ALGORITHM)?,
        ];
        Ok(plan)
    }

    fn forward(&self) -> ConvForward<'_, T, f32, T> {
        ConvForward { conv: &self.settings, x: &self.image, w: &self.kernel, y: &self.result }
    }

    fn input_gradient(&self) -> ConvBackwardData<'_, T, f32, T> {
        ConvBackwardData { conv: &self.settings, dx: &self.image, w: &self.kernel, dy: &self.result }
    }

    fn weight_gradient(&self) -> ConvBackwardFilter<'_, T, f32, T> {
        ConvBackwardFilter { conv: &self.settings, x: &self.image, dw: &self.kernel, dy: &self.result }
    }

    /// # Safety
    /// `a`, `b` and `y` have as many values as the direction's shapes say, and `workspace` has the direction's bytes.
    unsafe fn launch(
        &self,
        direction: Direction,
        mut workspace: Option<CudaViewMut<u8>>,
        a: &CudaView<T>,
        b: &CudaView<T>,
        y: &mut CudaSlice<T>,
    ) -> std::result::Result<(), CudnnError> {
        let workspace = workspace.as_mut();
        // y = 1 (a, b) + 0 y
        let scales = (T::ONE, T::ZERO);
        // SAFETY: the caller's promise.
        unsafe {
            match direction {
                Direction::Forward => self.forward().launch(FORWARD_ALGORITHM, workspace, scales, a, b, y),
                Direction::InputGradient => self.input_gradient().launch(DATA_ALGORITHM, workspace, scales, y, b, a),
                Direction::WeightGradient => {
                    self.weight_gradient().launch(FILTER_ALGORITHM, workspace, scales, a, y, b)
                }
            }
        }
    }
}

/// Sizes as cuDNN takes them, and a product that 32 bits can index.
fn sizes<const N: usize>(sizes: [usize; N]) -> Result<[i32; N]> {
    let mut narrow = [0; N];
    let mut product = 1i32;
    for (narrow, size) in narrow.iter_mut().zip(sizes) {
        *narrow = i32::try_from(size).map_err(Error::wrap)?;
        product = match product.checked_mul((*narrow).max(1)) {
            Some(product) => product,
            None => refuse!("{sizes:?} is over 2^31 values"),
        };
    }
    Ok(narrow)
}
