//! Nodes of ours in candle's graph, which goes back through them as through its own.

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor};

use super::{InputGradients, MOST_INPUTS, Record, in_f32, records};
use crate::check::refuse;

/// What candle's graph holds of us.
pub(super) struct Node {
    pub(super) name: &'static str,
    pub(super) result: Mutex<Option<(Storage, Shape)>>,
    pub(super) record: Arc<Record>,
    /// Where the gradient of a fourth input waits for its [`Link`].
    pub(super) last: Arc<Mutex<Option<Tensor>>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(id) = self.record.id.get() {
            records().remove(id);
        }
    }
}

impl Node {
    /// candle's gradient is that of what is stored.
    fn pass(&self, gradient: &Tensor) -> Result<InputGradients<MOST_INPUTS>> {
        let gradients = self.record.pass(&self.record.result_order.seen(gradient)?, false, &mut None, None)?;
        Ok(gradients.map(|of| of.map(|of| of.tensor)))
    }

    /// candle asks once, when the node is made.
    fn take(&self) -> Result<(Storage, Shape)> {
        match self.result.lock().map(|mut result| result.take()) {
            Ok(Some(result)) => Ok(result),
            _ => refuse!("{}: its result is taken", self.name),
        }
    }

    fn take_from_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(values), shape) => Ok((values, shape)),
            _ => refuse!("{}: its inputs are on the CPU, its result is not", self.name),
        }
    }

    #[cfg(feature = "cuda")]
    fn take_from_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(values), shape) => Ok((values, shape)),
            _ => refuse!("{}: its inputs are on a CUDA device, its result is not", self.name),
        }
    }
}

/// A gradient in the dtype of what it is of, which candle's sums have.
fn like(x: &Tensor, gradient: Option<Tensor>) -> Result<Option<Tensor>> {
    let cast = |gradient: Tensor| match x.dtype() {
        DType::F32 => in_f32(&gradient),
        DType::BF16 => gradient.to_dtype(DType::BF16),
        _ => Ok(gradient),
    };
    gradient.map(cast).transpose()
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_from_cpu()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take_from_cuda()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a, ..] = self.pass(gradient)?;
        like(x, a)
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_from_cpu()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take_from_cuda()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b, ..] = self.pass(gradient)?;
        Ok((like(x, a)?, like(y, b)?))
    }
}

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.take_from_cpu()
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.take_from_cuda()
    }

    fn bwd(
        &self,
        first: &Tensor,
        second: &Tensor,
        third: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c, d] = self.pass(gradient)?;
        let (a, b) = (like(first, a)?, like(second, b)?);
        // candle goes on to a link only with a gradient of its own.
        let c = if d.is_some() && c.is_none() { Some(third.zeros_like()?) } else { c };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = d;
        Ok((a, b, c))
    }
}

/// candle's nodes have three inputs at most: of four, the last two come by way of a link. It has the shape of the first of them, whose
/// gradient is its own, and no values, since the node has read theirs before.
pub(super) struct Link {
    /// That of the second, which the node leaves here.
    pub(super) gradient: Arc<Mutex<Option<Tensor>>>,
}

impl CustomOp2 for Link {
    fn name(&self) -> &'static str {
        "link"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(Vec::new()), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let device = x.device().clone();
        // The driver gives no memory of no size.
        let values = device.alloc_zeros::<f32>(1)?;
        Ok((CudaStorage::wrap_cuda_slice(values, device), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let last = self.gradient.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((Some(gradient.clone()), last))
    }
}
