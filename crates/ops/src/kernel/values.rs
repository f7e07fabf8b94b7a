//! The values of candle's tensors on the CPU, as slices for kernels to read and write.

use std::cell::Cell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, StorageRef, Tensor};

use crate::check::refuse;

#[cfg(test)]
thread_local! {
    /// Whether this thread computes as a device without kernels would.
    pub(crate) static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether our kernels compute on this tensor; the composed paths serve every other device and dtype.
pub(crate) fn has_kernel(x: &Tensor) -> bool {
    #[cfg(test)]
    if COMPOSED.get() {
        return false;
    }
    matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32
}

/// The values of a contiguous f32 tensor on the CPU, locked for reading.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

pub(crate) fn values(x: &Tensor) -> Result<Values<'_>> {
    let (storage, layout) = x.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        refuse!("values of a tensor that is not contiguous: {layout:?}");
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Values { storage, range: start..end }),
        _ => refuse!("values of a tensor that is not f32 on the CPU"),
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => unreachable!("`values` has looked"),
        }
    }
}

/// Lends the values of a contiguous f32 tensor on the CPU for writing in place: whoever shares its storage sees it.
pub(crate) fn lend<R>(x: &Tensor, work: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<R> {
    let (work, result) = (Cell::new(Some(work)), Cell::new(None));
    x.inplace_op1(&Loan(&|values| {
        result.set(work.take().map(|work| work(values)).transpose()?);
        Ok(())
    }))?;
    match result.take() {
        Some(result) => Ok(result),
        None => refuse!("lend: nothing was lent"),
    }
}

struct Loan<'a>(&'a dyn Fn(&mut [f32]) -> Result<()>);

impl InplaceOp1 for Loan<'_> {
    fn name(&self) -> &'static str {
        "lend"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            refuse!("writing to a tensor that is not contiguous: {layout:?}");
        };
        match storage {
            CpuStorage::F32(values) => (self.0)(&mut values[start..end]),
            _ => refuse!("writing to a tensor that is not f32"),
        }
    }
}
