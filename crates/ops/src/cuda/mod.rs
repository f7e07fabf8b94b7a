//! CUDA devices, and kernels of our own for what is not a convolution there: normalisation, activations, pooling, Adam.
//!
//! Kernels are on trial as cuDNN is: where they do not compile, fail or are wrong, the composed paths go on serving. Their users (the files
//! `cuda.rs` beside the ops) know no device but a [`Stage`], and tests put an emulator in its place.
#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "candle lets a device go without events only as unsafe"))]

#[cfg(test)]
mod emulator;
#[cfg(feature = "cuda")]
pub(crate) mod lane;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod moves;
#[cfg(feature = "cuda")]
mod pool;
#[cfg(any(test, feature = "cuda"))]
mod stage;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod sums;
#[cfg(any(test, feature = "cuda"))]
pub(crate) mod tensors;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(any(test, feature = "cuda"))]
mod trial;

#[cfg(feature = "cuda")]
use std::cell::Cell;
#[cfg(feature = "cuda")]
use std::collections::{HashMap, HashSet};
#[cfg(feature = "cuda")]
use std::sync::{LazyLock, Mutex, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::{CudaDevice, cuda_backend::DeviceId, cuda_backend::cudarc::driver::CudaFunction};
use candle_core::{Device, Result};

#[cfg(any(test, feature = "cuda"))]
pub(crate) use stage::{Memory, Stage, address, address_to_write, is_narrow};

use crate::Exactness;
#[cfg(not(feature = "cuda"))]
use crate::check::refuse;

/// By which of cuDNN's algorithms a CUDA device computes convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithms {
    /// The first that cuDNN's heuristics name, of those that give the same bits each time.
    #[default]
    Deterministic,
    /// The fastest, measured when a convolution of a shape is first computed. Two processes may choose differently, and some algorithms
    /// add up in the order in which threads finish: results differ in their last bits.
    Fastest,
}

/// The CUDA device of this number, for work by any thread, with convolutions by such algorithms.
///
/// candle's `Device::new_cuda` gives each thread a stream of its own and orders nothing between them: a step on one thread may read what
/// the step before, on another, is still computing. Here all threads share one stream, and work is done in the order in which it is asked for.
///
/// # Errors
/// A device that is not there, and a build without the feature `cuda`.
pub fn cuda_device(number: usize, algorithms: Algorithms) -> Result<Device> {
    #[cfg(feature = "cuda")]
    {
        let device = Device::new_cuda_with_stream(number)?;
        // SAFETY: the events order streams among each other. Of this context candle has made one stream, and all work goes to it.
        unsafe { device.as_cuda_device()?.disable_event_tracking() };
        pool::keep(device.as_cuda_device()?)?;
        if algorithms == Algorithms::Fastest {
            FASTEST.lock().unwrap_or_else(PoisonError::into_inner).insert(device.as_cuda_device()?.id());
        }
        Ok(device)
    }
    #[cfg(not(feature = "cuda"))]
    refuse!("CUDA device {number}, {algorithms:?}: the program was built without the feature cuda")
}

/// The devices that take the fastest algorithms.
#[cfg(feature = "cuda")]
static FASTEST: LazyLock<Mutex<HashSet<DeviceId>>> = LazyLock::new(Mutex::default);

#[cfg(feature = "cuda")]
pub(crate) fn algorithms(device: &CudaDevice) -> Algorithms {
    let is_fastest = FASTEST.lock().unwrap_or_else(PoisonError::into_inner).contains(&device.id());
    if is_fastest { Algorithms::Fastest } else { Algorithms::Deterministic }
}

/// The most bytes of a CUDA device's memory that this process has had in tensors and workspaces at a time; none for every other device.
///
/// # Errors
/// What the driver cannot tell.
pub fn cuda_peak_memory(device: &Device) -> Result<Option<u64>> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return pool::peak(device);
    }
    let _ = device;
    Ok(None)
}

/// What a CUDA device is not trusted with, and why, so that slower ops of candle's compute it: convolutions of this exactness by cuDNN, and
/// everything else by kernels of our own. Empty where all is well, and for every other device.
///
/// The first question about a device, or the first op on it, puts both on trial there: small inputs have to come out right, and their
/// gradients. What comes out holds for the process.
pub fn cuda_refusals(device: &Device, exactness: Exactness) -> Vec<String> {
    #[cfg(feature = "cuda")]
    {
        let convolutions = crate::conv2d::cuda::refusal(device, exactness);
        let convolutions = convolutions.map(|fault| format!("convolutions go without cuDNN and are slow: {fault}"));
        let kernels =
            refusal(device).map(|fault| format!("norms and optimisers go without kernels and are slow: {fault}"));
        convolutions.into_iter().chain(kernels).collect()
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = exactness;
        device.is_cuda().then(|| "the program was built without the feature cuda".to_owned()).into_iter().collect()
    }
}

/// What trials found wrong, if anything.
#[cfg(feature = "cuda")]
pub(crate) type Faults<K> = LazyLock<Mutex<HashMap<K, Option<String>>>>;

/// What the trial of a CUDA device found wrong with our kernels. It takes place once in a process for each.
#[cfg(feature = "cuda")]
pub(crate) fn refusal(device: &Device) -> Option<String> {
    static FAULTS: Faults<usize> = LazyLock::new(Mutex::default);
    held(&FAULTS, device, trial::fault)
}

/// The same of what convolutions in bf16 need besides, which older devices lack.
#[cfg(feature = "cuda")]
pub(crate) fn refusal_in_bf16(device: &Device) -> Option<String> {
    static FAULTS: Faults<usize> = LazyLock::new(Mutex::default);
    refusal(device).or_else(|| held(&FAULTS, device, trial::fault_in_bf16))
}

/// What a trial says, held where nobody has yet.
#[cfg(feature = "cuda")]
fn held(
    faults: &Faults<usize>,
    device: &Device,
    trial: impl FnOnce(&Stage, &Device) -> Option<String>,
) -> Option<String> {
    thread_local! {
        static ON_TRIAL: Cell<bool> = const { Cell::new(false) };
    }
    // The trial asks too, on the way back, and nobody can answer before it is over.
    if ON_TRIAL.get() {
        return Some("it is on trial".to_owned());
    }
    let Device::Cuda(of) = device else { return None };
    let candle_core::DeviceLocation::Cuda { gpu_id } = device.location() else { return None };
    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
    let hold = || {
        ON_TRIAL.set(true);
        let fault = trial(&Stage::Device(of.clone()), device);
        ON_TRIAL.set(false);
        fault
    };
    faults.entry(gpu_id).or_insert_with(hold).clone()
}

/// A kernel on a device. The driver looks it up by its name once.
#[cfg(feature = "cuda")]
fn function(device: &CudaDevice, kernel: &'static str) -> Result<CudaFunction> {
    static FUNCTIONS: LazyLock<Mutex<HashMap<(DeviceId, &str), CudaFunction>>> = LazyLock::new(Mutex::default);
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = functions.get(&(device.id(), kernel)) {
        return Ok(function.clone());
    }
    let function = device.get_or_load_custom_func(kernel, "img2seg_ops", ptx()?)?.into_cuda_function();
    functions.insert((device.id(), kernel), function.clone());
    Ok(function)
}

/// The kernels in the driver's language.
#[cfg(feature = "cuda")]
fn ptx() -> Result<&'static str> {
    const SOURCE: &str = concat!(
        "#define THREADS 256\n#define TILE 4096\n",
        "#define KERNEL(name, Parameters) extern \"C\" __global__ void name(Parameters p)\n",
        include_str!("kernels.cu")
    );
    static PTX: LazyLock<std::result::Result<String, String>> = LazyLock::new(|| {
        let compiled = candle_core::cuda_backend::cudarc::nvrtc::compile_ptx(SOURCE);
        compiled.map(|ptx| ptx.to_src()).map_err(|error| format!("kernels do not compile: {error:?}"))
    });
    PTX.as_deref().map_err(|error| candle_core::Error::Msg(error.as_str().into()))
}
