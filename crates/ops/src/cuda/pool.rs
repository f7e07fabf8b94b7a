//! The driver's pool of device memory, which tensors are allocated from in the order of the stream.
#![allow(unsafe_code, reason = "the driver is asked")]

use std::ffi::c_void;

use candle_core::cuda_backend::cudarc::driver::sys::{
    CUmemPool_attribute_enum::{self as Attribute, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, CU_MEMPOOL_ATTR_USED_MEM_HIGH},
    CUmemoryPool,
};
use candle_core::cuda_backend::cudarc::driver::{DriverError, result};
use candle_core::{CudaDevice, Result};

/// Lets the process keep what it has freed. By default the driver takes it back whenever the host waits for the device, and a loop that
/// reads its losses back would ask for all of its memory anew in every step.
pub(super) fn keep(device: &CudaDevice) -> Result<()> {
    let Some(pool) = pool(device).map_err(candle_core::Error::wrap)? else { return Ok(()) };
    let mut all = u64::MAX;
    // SAFETY: the pool is the device's, and the attribute is a u64.
    unsafe { result::mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut all).cast()) }
        .map_err(candle_core::Error::wrap)
}

/// The most bytes that were in use at a time; none where the device has no pool.
pub(super) fn peak(device: &CudaDevice) -> Result<Option<u64>> {
    let Some(pool) = pool(device).map_err(candle_core::Error::wrap)? else { return Ok(None) };
    read(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH).map(Some).map_err(candle_core::Error::wrap)
}

fn read(pool: CUmemoryPool, attribute: Attribute) -> std::result::Result<u64, DriverError> {
    let mut value = 0u64;
    let to: *mut c_void = (&raw mut value).cast();
    // SAFETY: the pool is the device's, and the attribute is a u64.
    unsafe { result::mem_pool::get_attribute(pool, attribute, to)? };
    Ok(value)
}

fn pool(device: &CudaDevice) -> std::result::Result<Option<CUmemoryPool>, DriverError> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    context.bind_to_thread()?;
    // SAFETY: the device is the context's.
    unsafe { result::device::get_mem_pool(context.cu_device()) }.map(Some)
}
