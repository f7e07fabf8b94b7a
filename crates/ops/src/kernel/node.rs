//! Kernels and candle: f32 slices of CPU tensors for reading, and results with a backward pass as nodes of candle's graph.

use std::ops::{Deref, Range};
use std::sync::Mutex;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, StorageRef, Tensor,
};

use crate::check::refuse;

/// Whether our kernels compute on this tensor; the composed paths serve every other device and dtype.
pub(crate) fn has_kernel(x: &Tensor) -> bool {
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

/// What a backward pass is given.
pub(crate) struct Pass<'a> {
    /// The node's own value.
    pub(crate) result: &'a Tensor,
    /// The gradient of the node's value, contiguous.
    pub(crate) gradient: &'a Tensor,
    /// Which inputs take a gradient.
    pub(crate) needed: [bool; 3],
}

/// Gradients of up to three inputs, none for those that are not needed. They have to come from detached tensors, or each
/// would keep the whole graph alive.
pub(crate) type Gradients = [Option<Tensor>; 3];

/// A result that kernels have computed from up to three inputs, in candle's graph if one of them is.
pub(crate) fn node(
    name: &'static str,
    inputs: &[&Tensor],
    result: Vec<f32>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Pass) -> Result<Gradients> + Send + Sync + 'static,
) -> Result<Tensor> {
    let shape = shape.into();
    if !inputs.iter().any(|x| x.track_op()) {
        return Tensor::from_vec(result, shape, &Device::Cpu);
    }
    let result = Mutex::new(Some((CpuStorage::F32(result), shape)));
    let node = Node { name, result, backward: Box::new(backward) };
    match inputs {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => refuse!("{name}: candle's nodes have one to three inputs, not {}", inputs.len()),
    }
}

struct Node<F: ?Sized> {
    name: &'static str,
    result: Mutex<Option<(CpuStorage, Shape)>>,
    backward: Box<F>,
}

impl<F: Fn(&Pass) -> Result<Gradients>> Node<F> {
    /// candle asks once, when the node is made.
    fn take(&self) -> Result<(CpuStorage, Shape)> {
        match self.result.lock().map(|mut result| result.take()) {
            Ok(Some(result)) => Ok(result),
            _ => refuse!("{}: its result is taken", self.name),
        }
    }

    fn pass(&self, inputs: &[&Tensor], result: &Tensor, gradient: &Tensor) -> Result<Gradients> {
        let mut needed = [false; 3];
        for (needed, input) in needed.iter_mut().zip(inputs) {
            *needed = input.track_op();
        }
        let gradient = gradient.detach().contiguous()?;
        (self.backward)(&Pass { result: &result.detach(), gradient: &gradient, needed })
    }
}

impl<F: Fn(&Pass) -> Result<Gradients>> CustomOp1 for Node<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, a: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a, ..] = self.pass(&[a], result, gradient)?;
        Ok(a)
    }
}

impl<F: Fn(&Pass) -> Result<Gradients>> CustomOp2 for Node<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b, _] = self.pass(&[a, b], result, gradient)?;
        Ok((a, b))
    }
}

impl<F: Fn(&Pass) -> Result<Gradients>> CustomOp3 for Node<F> {
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
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.pass(&[a, b, c], result, gradient)?;
        Ok((a, b, c))
    }
}
