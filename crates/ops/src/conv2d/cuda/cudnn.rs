//! cuDNN, as far as convolutions need it: a handle for each device, with the plans of the convolutions seen so far and one workspace.
#![allow(unsafe_code, reason = "cuDNN is told where tensors lie, and writes results that were not zeroed first")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::ManuallyDrop;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::sys::cudnnHandle_t;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Tensor};
use half::bf16;

use super::backend::{Address, execute, handle};
use super::direction::Direction;
use super::plan::{BIAS, Plan, SMALL_WORKSPACE, Wanted, names, plans};
use crate::Exactness;
use crate::check::refuse;
use crate::conv2d::{Geometry, positions};
use crate::cuda::{Algorithms, address, algorithms};
use crate::kernel::Order;

/// One direction of a convolution, on the device's stream and without waiting for it. The tensors are stored in this order, both in f32 or
/// both in bf16; sums are in f32. Where cuDNN can, it adds the bias, contiguous f32, too; whether it did comes with the result.
pub(super) fn convolve(
    direction: Direction,
    g: &Geometry,
    order: Order,
    a: (&CudaStorage, &Layout),
    b: (&CudaStorage, &Layout),
    bias: Option<&Tensor>,
) -> Result<(CudaStorage, bool)> {
    let dtype = a.0.dtype();
    let wanted = Wanted { direction, geometry: *g, order, narrow: dtype == DType::BF16, biased: false };
    check(g)?;
    match dtype {
        // Of a convolution and a bias in TF32 there are as many engines as of the one alone, which is not so elsewhere.
        DType::F32
            if direction == Direction::Forward && g.exactness == Exactness::Fast && bias.is_some_and(starts_well) =>
        {
            match convolve_in::<f32>(&Wanted { biased: true, ..wanted }, a, b, bias) {
                Ok(y) => Ok((y, true)),
                Err(_) => Ok((convolve_in::<f32>(&wanted, a, b, None)?, false)),
            }
        }
        DType::F32 => Ok((convolve_in::<f32>(&wanted, a, b, None)?, false)),
        DType::BF16 => Ok((convolve_in::<bf16>(&wanted, a, b, None)?, false)),
        other => refuse!("cuDNN is given no {other:?}"),
    }
}

/// Whether it starts where 16 bytes do, as cuDNN is told of all tensors.
fn starts_well(x: &Tensor) -> bool {
    address(x).is_ok_and(|first| first.is_multiple_of(16))
}

/// # Errors
/// What cuDNN cannot describe or count.
fn check(g: &Geometry) -> Result<()> {
    let output = (
        positions(g.input.0, g.kernel.0, g.stride.0, g.padding.0, g.dilation.0),
        positions(g.input.1, g.kernel.1, g.stride.1, g.padding.1, g.dilation.1),
    );
    // The adjoint with much output padding: the kernel would find another position in the image.
    if output != (Some(g.output.0), Some(g.output.1)) {
        refuse!("{g:?} leaves positions of the kernel out");
    }
    for shape in Direction::Forward.shapes(g) {
        let values = shape.iter().try_fold(1i32, |values, &size| values.checked_mul(i32::try_from(size).ok()?));
        if values.is_none() {
            refuse!("{shape:?} is over 2^31 values");
        }
    }
    Ok(())
}

fn convolve_in<T: CudaDType + DeviceRepr>(
    wanted: &Wanted,
    (a, a_at): (&CudaStorage, &Layout),
    (b, b_at): (&CudaStorage, &Layout),
    bias: Option<&Tensor>,
) -> Result<CudaStorage> {
    let device = &a.device;
    let stream = device.cuda_stream();
    let [a_shape, b_shape, shape] = wanted.direction.shapes(&wanted.geometry).map(|shape| wanted.order.shape(shape));
    let (a, b) = (view::<T>(a, a_at, a_shape)?, view::<T>(b, b_at, b_shape)?);
    // SAFETY: cuDNN writes all of it before anyone reads; on an error it is freed unread.
    let mut y = unsafe { device.alloc::<T>(shape.iter().product())? };
    let mut addresses =
        vec![Address(a.device_ptr(&stream).0), Address(b.device_ptr(&stream).0), Address(y.device_ptr_mut(&stream).0)];
    if let Some(bias) = bias {
        addresses.push(Address(address(bias)?));
    }
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let library = match libraries.entry(device.id()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Library::new(device)?),
    };
    // SAFETY: `a` and `b` have the shapes of the direction, checked by `view`, `y` was made with its own, and a bias has as many values
    // as there are channels. All are on the library's stream, in whose order they are freed.
    unsafe { library.convolve(wanted, &addresses)? };
    drop(libraries);
    Ok(CudaStorage::wrap_cuda_slice(y, device.clone()))
}

/// The values of a contiguous tensor of this shape.
fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout, shape: [usize; 4]) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if layout.dims() == shape => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        _ => refuse!("cuDNN takes no tensor that is not contiguous or not of shape {shape:?}: {layout:?}"),
    }
}

/// Whichever thread comes first chooses for all; two may not be in one handle at a time.
static LIBRARIES: LazyLock<Mutex<HashMap<DeviceId, Library>>> = LazyLock::new(Mutex::default);

/// cuDNN on a device. Nothing of it is ever destroyed: when a process ends the device may be gone already.
struct Library {
    handle: cudnnHandle_t,
    device: CudaDevice,
    algorithms: Algorithms,
    /// And why there is none for what cuDNN has refused.
    plans: ManuallyDrop<HashMap<Wanted, std::result::Result<Plan, String>>>,
    /// As large as any convolution with a small one has asked for. The next use of the stream may overwrite it.
    workspace: ManuallyDrop<Option<CudaSlice<u8>>>,
}

// SAFETY: cuDNN ties a handle to a context, which every thread of the device is in, not to a thread.
unsafe impl Send for Library {}

impl Library {
    fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        Ok(Self {
            handle: handle(stream.cu_stream().cast())?,
            device: device.clone(),
            algorithms: algorithms(device),
            plans: ManuallyDrop::default(),
            workspace: ManuallyDrop::default(),
        })
    }

    /// # Safety
    /// At `addresses` lie the direction's two tensors, its result and, if one is wanted, the bias, until the stream is done with them.
    unsafe fn convolve(&mut self, wanted: &Wanted, addresses: &[Address]) -> Result<()> {
        if !self.plans.contains_key(wanted) {
            // SAFETY: the caller's promise.
            let plan = unsafe { self.choose(wanted, addresses) }.map_err(|error| error.to_string());
            self.plans.insert(*wanted, plan);
        }
        let (plan, workspace) = match self.plans.get(wanted) {
            Some(Ok(plan)) => (plan, plan.workspace),
            Some(Err(reason)) => refuse!("cuDNN: {reason}"),
            None => refuse!("cuDNN: no plan of {wanted:?}"),
        };
        let descriptor = plan.descriptor.clone();
        let at = self.workspace(workspace)?;
        // SAFETY: the caller's promise, and the workspace is the plan's.
        let launched = unsafe { execute(self.handle, &descriptor, &all_names(wanted), addresses, at) };
        if workspace > SMALL_WORKSPACE {
            *self.workspace = None; // once the stream is done with it
        }
        if let Err(error) = launched {
            self.plans.insert(*wanted, Err(error.to_string()));
            refuse!("cuDNN: {error}");
        }
        Ok(())
    }

    /// # Safety
    /// As of [`convolve`](Self::convolve).
    unsafe fn choose(&mut self, wanted: &Wanted, addresses: &[Address]) -> Result<Plan> {
        let mut plans = plans(self.handle, wanted, self.algorithms)?;
        if plans.is_empty() {
            refuse!("no engine for {wanted:?}");
        }
        if self.algorithms == Algorithms::Deterministic {
            return Ok(plans.swap_remove(0));
        }
        let mut best: Option<(Duration, Plan)> = None;
        for plan in plans {
            // SAFETY: the caller's promise. What is written is written again.
            let Ok(time) = (unsafe { self.time(&plan, wanted, addresses) }) else { continue };
            if best.as_ref().is_none_or(|(least, _)| time < *least) {
                best = Some((time, plan));
            }
        }
        match best {
            Some((_, plan)) => Ok(plan),
            None => refuse!("no engine computes {wanted:?}"),
        }
    }

    /// What one run takes, the least of some.
    ///
    /// # Safety
    /// As of [`convolve`](Self::convolve).
    unsafe fn time(&mut self, plan: &Plan, wanted: &Wanted, addresses: &[Address]) -> Result<Duration> {
        const RUNS: usize = 4;
        let names = all_names(wanted);
        let workspace = self.workspace(plan.workspace)?;
        let stream = self.device.cuda_stream();
        let mut least = Duration::MAX;
        // The first one also loads what is run.
        for _ in 0..=RUNS {
            stream.synchronize().map_err(Error::wrap)?;
            let start = Instant::now();
            // SAFETY: the caller's promise, and the workspace is the plan's.
            unsafe { execute(self.handle, &plan.descriptor, &names, addresses, workspace)? };
            stream.synchronize().map_err(Error::wrap)?;
            least = least.min(start.elapsed());
        }
        Ok(least)
    }

    /// At least so many bytes.
    fn workspace(&mut self, bytes: usize) -> Result<Address> {
        if bytes == 0 {
            return Ok(Address(0));
        }
        if self.workspace.as_ref().map_or(0, CudaSlice::len) < bytes {
            *self.workspace = None; // before there are two
            // SAFETY: cuDNN reads nothing of it that it has not written.
            *self.workspace = Some(unsafe { self.device.alloc::<u8>(bytes)? });
        }
        match &mut *self.workspace {
            Some(workspace) => Ok(Address(workspace.device_ptr_mut(&self.device.cuda_stream()).0)),
            None => refuse!("cuDNN: no workspace"),
        }
    }
}

/// The names of the tensors whose addresses a direction is given.
fn all_names(wanted: &Wanted) -> Vec<i64> {
    let mut names = names(wanted.direction).to_vec();
    if wanted.biased {
        names.push(BIAS);
    }
    names
}
