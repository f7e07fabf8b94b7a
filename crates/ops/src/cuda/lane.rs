//! A way to a device's memory beside its stream: from pinned memory, by a stream of its own.
#![allow(unsafe_code, reason = "memory goes from one stream to another")]

use std::collections::VecDeque;
use std::slice;
use std::sync::Arc;

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, PinnedHostSlice};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, Error, Result, Storage, Tensor, WithDType};

use crate::kernel::deal_each;

/// Buffers of one size: those of a batch on its way and of the next, with room for photos and label maps of one size.
const BUFFERS_OF_A_SIZE: usize = 4;

/// Buffers that are kept: those of another size than batches now have go first.
const BUFFERS: usize = 12;

/// Bytes that a thread copies at a time.
const PIECE: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Lane {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    /// The one that was used last is at the back.
    buffers: VecDeque<PinnedHostSlice<u8>>,
}

/// What the device's stream has to wait for.
#[derive(Debug)]
pub(crate) struct Arrival {
    stream: Arc<CudaStream>,
    event: CudaEvent,
}

impl Arrival {
    /// Lets the device's stream wait.
    pub(crate) fn expect(&self) -> Result<()> {
        self.stream.wait(&self.event).map_err(Error::wrap)
    }
}

impl Lane {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream().context().new_stream().map_err(Error::wrap)?;
        Ok(Self { device: device.clone(), stream, buffers: VecDeque::new() })
    }

    /// None for a tensor that is not contiguous on the CPU, or of a dtype that batches do not have.
    pub(crate) fn send(&mut self, x: &Tensor) -> Result<Option<(Tensor, Arrival)>> {
        let (storage, layout) = x.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else { return Ok(None) };
        if start == end {
            return Ok(None);
        }
        let (storage, arrival) = match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => self.send_values(&values[start..end])?,
            Storage::Cpu(CpuStorage::U8(values)) => self.send_values(&values[start..end])?,
            Storage::Cpu(CpuStorage::U32(values)) => self.send_values(&values[start..end])?,
            _ => return Ok(None),
        };
        Ok(Some((Tensor::from_storage(Storage::Cuda(storage), x.shape(), BackpropOp::none(), false), arrival)))
    }

    fn send_values<T: WithDType + CudaDType + DeviceRepr>(&mut self, values: &[T]) -> Result<(CudaStorage, Arrival)> {
        let to = self.device.cuda_stream();
        // SAFETY: numbers without padding, as bytes.
        let bytes = unsafe { slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        let mut buffer = self.buffer(bytes.len())?;
        // Once what it was last sent as has arrived.
        let pinned = buffer.as_mut_slice().map_err(Error::wrap)?;
        deal_each(pinned.chunks_mut(PIECE).zip(bytes.chunks(PIECE)), |(to, from)| to.copy_from_slice(from));
        // SAFETY: all of it is written by the copy before anyone reads.
        let mut memory = unsafe { self.stream.alloc::<u8>(bytes.len()) }.map_err(Error::wrap)?;
        let sent = self.stream.memcpy_htod(&buffer, &mut memory);
        self.buffers.push_back(buffer);
        sent.map_err(Error::wrap)?;
        let event = self.stream.record_event(None).map_err(Error::wrap)?;
        // SAFETY: the memory holds so many values of T. From here on it is the device's stream's alone, which frees it after what has used
        // it, and which waits for the copy before that: now where the arrival is dropped unseen, else when it is expected.
        let values = unsafe { to.upgrade_device_ptr::<T>(memory.leak(), values.len()) };
        Ok((CudaStorage::wrap_cuda_slice(values, self.device.clone()), Arrival { stream: to, event }))
    }

    /// A buffer of so many bytes, taken out of the queue.
    fn buffer(&mut self, bytes: usize) -> Result<PinnedHostSlice<u8>> {
        let mut of_this_size = self.buffers.iter().enumerate().filter(|(_, buffer)| buffer.len() == bytes);
        if let Some((first, _)) = of_this_size.next()
            && of_this_size.count() + 1 >= BUFFERS_OF_A_SIZE
            && let Some(buffer) = self.buffers.remove(first)
        {
            return Ok(buffer);
        }
        if self.buffers.len() >= BUFFERS {
            self.buffers.pop_front();
        }
        // SAFETY: it is written before it is read.
        unsafe { self.stream.context().alloc_pinned::<u8>(bytes) }.map_err(Error::wrap)
    }
}

impl Drop for Arrival {
    /// A tensor that nobody expected is freed by the device's stream too, after its copy.
    fn drop(&mut self) {
        let _ = self.stream.wait(&self.event);
    }
}
