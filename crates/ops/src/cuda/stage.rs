//! Where the kernels of `kernels.cu` run: on a CUDA device or, for tests, in an emulator on the processor.
#![allow(unsafe_code, reason = "kernels are told where tensors lie, and write results that were not zeroed first")]

#[cfg(test)]
use candle_core::CpuStorage;
use candle_core::op::BackpropOp;
use candle_core::{DType, Result, Shape, Storage, Tensor};

use crate::check::refuse;
use crate::kernel::{Made, Order};

/// Values of a tensor that kernels count in 32 bits, with room for a step beyond the last.
#[cfg(feature = "cuda")]
const MOST_VALUES: usize = 1 << 30;

#[derive(Debug, Clone)]
pub(crate) enum Stage {
    #[cfg(feature = "cuda")]
    Device(candle_core::CudaDevice),
    #[cfg(test)]
    Emulator {
        /// A kernel that does nothing.
        without: Option<&'static str>,
    },
}

/// Values for a kernel to write, all of them, f32 if not said otherwise.
pub(crate) struct Memory(Storage);

impl Stage {
    /// Where to work on a tensor: none where that is not f32 on a CUDA device, or the device has failed the trial.
    #[cfg(feature = "cuda")]
    pub(crate) fn of(x: &Tensor) -> Option<Self> {
        let candle_core::Device::Cuda(device) = x.device() else { return None };
        let fits = x.dtype() == DType::F32 && x.elem_count() <= MOST_VALUES;
        (fits && super::refusal(x.device()).is_none()).then(|| Self::Device(device.clone()))
    }

    /// The same for ops that also take an image in bf16, in the order of pixels.
    #[cfg(feature = "cuda")]
    pub(crate) fn of_image(x: &Tensor) -> Option<Self> {
        if !is_narrow(x) {
            return Self::of(x);
        }
        let candle_core::Device::Cuda(device) = x.device() else { return None };
        let fits = Order::of(x) == Order::Pixels && x.elem_count() <= MOST_VALUES;
        (fits && super::refusal_in_bf16(x.device()).is_none()).then(|| Self::Device(device.clone()))
    }

    /// Threads of a block.
    fn threads(&self) -> usize {
        match self {
            #[cfg(feature = "cuda")]
            Self::Device(_) => 256,
            #[cfg(test)]
            Self::Emulator { .. } => 16,
        }
    }

    /// Values that a block turns at a time.
    pub(super) fn tile(&self) -> usize {
        match self {
            #[cfg(feature = "cuda")]
            Self::Device(_) => 4096,
            #[cfg(test)]
            Self::Emulator { .. } => 64,
        }
    }

    /// The size of images that keep several blocks busy; smaller where each thread is one of a processor's.
    pub(super) fn trial_size(&self) -> [usize; 2] {
        match self {
            #[cfg(feature = "cuda")]
            Self::Device(_) => [37, 41],
            #[cfg(test)]
            Self::Emulator { .. } => [13, 11],
        }
    }

    /// Blocks that share so many values, a few to each thread; what is left over is up to the threads' loops.
    pub(crate) fn blocks(&self, values: usize) -> usize {
        values.div_ceil(4 * self.threads()).min(65_535)
    }

    /// Values that a block adds up.
    pub(crate) fn summands(&self) -> usize {
        match self {
            #[cfg(feature = "cuda")]
            Self::Device(_) => 8192,
            // Several blocks even of small tensors, and no multiple of the threads.
            #[cfg(test)]
            Self::Emulator { .. } => 72,
        }
    }

    /// Threads of a block that stand side by side, each with four channels, and how many such blocks the channels take.
    pub(crate) fn lanes(&self, channels: usize) -> (usize, usize) {
        let most = match self {
            #[cfg(feature = "cuda")]
            Self::Device(_) => 32,
            #[cfg(test)]
            Self::Emulator { .. } => 4,
        };
        let lanes = channels.div_ceil(4).next_power_of_two().min(most);
        (lanes, channels.div_ceil(4 * lanes))
    }

    /// Pixels of which a block adds up the channels, out of so many: as many as leave work for the whole of a device, within reason.
    pub(crate) fn pixels(&self, count: usize, (lanes, columns): (usize, usize)) -> usize {
        let (blocks, least, most) = match self {
            #[cfg(feature = "cuda")]
            Self::Device(_) => (1024, 2, 64),
            #[cfg(test)]
            Self::Emulator { .. } => (2, 2, 5),
        };
        let step = self.threads() / lanes;
        (count * columns).div_ceil(blocks).clamp(least * step, most * step)
    }

    #[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, reason = "a device may have none left"))]
    pub(crate) fn memory(&self, len: usize) -> Result<Memory> {
        Ok(Memory(match self {
            #[cfg(feature = "cuda")]
            Self::Device(device) => {
                // SAFETY: a kernel writes all of it before anyone reads.
                let values = unsafe { device.alloc::<f32>(len)? };
                Storage::Cuda(candle_core::CudaStorage::wrap_cuda_slice(values, device.clone()))
            }
            #[cfg(test)]
            Self::Emulator { .. } => Storage::Cpu(CpuStorage::F32(vec![f32::NAN; len])),
        }))
    }

    /// The same of bf16 values.
    #[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, reason = "a device may have none left"))]
    pub(crate) fn narrow_memory(&self, len: usize) -> Result<Memory> {
        Ok(Memory(match self {
            #[cfg(feature = "cuda")]
            Self::Device(device) => {
                // SAFETY: a kernel writes all of it before anyone reads.
                let values = unsafe { device.alloc::<half::bf16>(len)? };
                Storage::Cuda(candle_core::CudaStorage::wrap_cuda_slice(values, device.clone()))
            }
            #[cfg(test)]
            Self::Emulator { .. } => Storage::Cpu(CpuStorage::BF16(vec![half::bf16::NAN; len])),
        }))
    }

    /// Numbers for kernels to read. The caller may go on before they are where kernels are.
    #[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, reason = "a device may have no memory left"))]
    pub(crate) fn table(&self, numbers: &[u64]) -> Result<Memory> {
        // As pairs of f32 with their bits, since memory is of f32.
        let halves = |number: u64| [number as u32, (number >> 32) as u32].map(f32::from_bits);
        let halves: Vec<f32> = numbers.iter().flat_map(|&number| halves(number)).collect();
        Ok(Memory(match self {
            #[cfg(feature = "cuda")]
            Self::Device(device) => {
                let values = device.clone_htod(&halves[..])?;
                Storage::Cuda(candle_core::CudaStorage::wrap_cuda_slice(values, device.clone()))
            }
            #[cfg(test)]
            Self::Emulator { .. } => Storage::Cpu(CpuStorage::F32(halves)),
        }))
    }

    /// Runs a kernel in (columns, rows) of blocks, on the device's stream and without waiting for it.
    ///
    /// # Safety
    /// `parameters` is the twin of the kernel's structure; what it says of memory is true until the kernel is done or, on a device, until that
    /// memory is freed on the same stream; and nobody else writes there.
    pub(crate) unsafe fn launch<P: Copy>(
        &self,
        kernel: &'static str,
        (columns, rows): (usize, usize),
        parameters: &P,
    ) -> Result<()> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Device(device) => {
                use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
                let blocks = [columns, rows].map(|count| u32::try_from(count).map_err(candle_core::Error::wrap));
                let [columns, rows] = blocks;
                let threads = self.threads() as u32;
                let shape =
                    LaunchConfig { grid_dim: (columns?, rows?, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
                let function = super::function(device, kernel)?;
                let parameters = Packed::new(parameters);
                let stream = device.cuda_stream();
                let mut builder = stream.launch_builder(&function);
                builder.arg(&parameters);
                // SAFETY: the caller's promise; the kernel reads as many bytes as its structure has.
                unsafe { builder.launch(shape) }.map_err(candle_core::Error::wrap)?;
                Ok(())
            }
            #[cfg(test)]
            Self::Emulator { without } if *without == Some(kernel) => Ok(()),
            // SAFETY: the caller's promise.
            #[cfg(test)]
            Self::Emulator { .. } => unsafe { super::emulator::run(kernel, (columns, rows), parameters) },
        }
    }
}

impl Memory {
    /// Where it lies.
    pub(crate) fn address(&mut self) -> Result<u64> {
        match &mut self.0 {
            #[cfg(test)]
            Storage::Cpu(CpuStorage::F32(values)) => Ok(values.as_mut_ptr() as u64),
            #[cfg(test)]
            Storage::Cpu(CpuStorage::BF16(values)) => Ok(values.as_mut_ptr() as u64),
            storage => on_device(storage),
        }
    }

    /// Whether it is of bf16.
    pub(crate) fn is_narrow(&self) -> bool {
        self.0.dtype() == DType::BF16
    }

    /// What was written, as a tensor without a gradient.
    pub(crate) fn into_tensor(self, shape: impl Into<Shape>) -> Tensor {
        Tensor::from_storage(self.0, shape, BackpropOp::none(), false)
    }

    /// The same in the shape of `x`, written in the order in which that lies.
    pub(crate) fn into_tensor_like(self, x: &Tensor) -> Result<Tensor> {
        match *x.dims() {
            [n, c, h, w] => self.into_image([n, c, h, w], Order::of(x)),
            _ => Ok(self.into_tensor(x.shape())),
        }
    }

    /// The same of an image that was written in this order.
    pub(crate) fn into_image(self, shape: [usize; 4], order: Order) -> Result<Tensor> {
        order.seen(&self.into_tensor(&order.shape(shape)[..]))
    }
}

impl From<Storage> for Memory {
    fn from(storage: Storage) -> Self {
        Self(storage)
    }
}

impl From<Memory> for Storage {
    fn from(memory: Memory) -> Self {
        memory.0
    }
}

impl From<Memory> for Made {
    fn from(memory: Memory) -> Self {
        Self(memory.0)
    }
}

/// Whether it is of bf16, which few kernels read.
pub(crate) fn is_narrow(x: &Tensor) -> bool {
    x.dtype() == DType::BF16
}

/// Where the values of an f32 or bf16 tensor lie, for reading: a contiguous one, or an image in the order of pixels.
pub(crate) fn address(x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    if !layout.is_contiguous() && Order::of(x) != Order::Pixels {
        refuse!("a kernel's tensor is in no order: {layout:?}");
    }
    let start = layout.start_offset();
    let first = match &*storage {
        #[cfg(test)]
        Storage::Cpu(CpuStorage::F32(values)) => values.as_ptr() as u64,
        #[cfg(test)]
        Storage::Cpu(CpuStorage::BF16(values)) => values.as_ptr() as u64,
        storage => on_device(storage)?,
    };
    Ok(first + (start * x.dtype().size_in_bytes()) as u64)
}

/// The same for writing: whoever shares the values sees it.
pub(crate) fn address_to_write(x: &Tensor) -> Result<u64> {
    #[cfg(test)]
    if x.device().is_cpu() {
        return emulated_address(&Order::of(x).stored(x)?);
    }
    address(x)
}

/// The same of a contiguous tensor in the processor's memory.
#[cfg(test)]
fn emulated_address(x: &Tensor) -> Result<u64> {
    struct Lent(std::sync::atomic::AtomicU64);

    impl candle_core::InplaceOp1 for Lent {
        fn name(&self) -> &'static str {
            "lent"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &candle_core::Layout) -> Result<()> {
            let (start, order) = (layout.start_offset(), std::sync::atomic::Ordering::Relaxed);
            match storage {
                CpuStorage::F32(values) => self.0.store(values[start..].as_mut_ptr() as u64, order),
                CpuStorage::BF16(values) => self.0.store(values[start..].as_mut_ptr() as u64, order),
                _ => refuse!("a kernel's tensor is neither f32 nor bf16"),
            }
            Ok(())
        }
    }

    let lent = Lent(0.into());
    x.inplace_op1(&lent)?;
    Ok(lent.0.into_inner())
}

fn on_device(storage: &Storage) -> Result<u64> {
    match storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => {
            use candle_core::backend::BackendStorage;
            use candle_core::cuda_backend::cudarc::driver::DevicePtr;
            fn first<T>(values: &candle_core::cuda_backend::cudarc::driver::CudaSlice<T>) -> u64 {
                let stream = values.stream().clone();
                let (first, _) = values.device_ptr(&stream);
                first
            }
            match storage.dtype() {
                DType::BF16 => Ok(first(storage.as_cuda_slice::<half::bf16>()?)),
                _ => Ok(first(storage.as_cuda_slice::<f32>()?)),
            }
        }
        _ => refuse!("a kernel's tensor is neither f32 nor bf16 on its device"),
    }
}

/// Parameters as the driver takes them. Kernels read as many of these bytes as they have parameters.
#[cfg(feature = "cuda")]
#[repr(C)]
struct Packed([std::mem::MaybeUninit<u64>; 16]);

#[cfg(feature = "cuda")]
impl Packed {
    fn new<P: Copy>(parameters: &P) -> Self {
        const { assert!(size_of::<P>() <= size_of::<Self>() && align_of::<P>() <= align_of::<Self>()) };
        let mut packed = Self([std::mem::MaybeUninit::zeroed(); 16]);
        // SAFETY: it has room for them, and may hold what is not initialised, as padding is not.
        unsafe { packed.0.as_mut_ptr().cast::<P>().write(*parameters) };
        packed
    }
}

// SAFETY: plain bytes, which the driver copies.
#[cfg(feature = "cuda")]
unsafe impl candle_core::cuda_backend::cudarc::driver::DeviceRepr for Packed {}
