//! Convolutions as ops of tensors, on devices that have passed the trial.

use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::{DType, Device, DeviceLocation, Result, Tensor};

use super::direction::{Direction, Node, aligned};
use super::trial;
use crate::Exactness;
use crate::conv2d::Geometry;
use crate::cuda::Faults;

/// `x` through the kernel `weight` in a direction, and `bias` added; none where the composed path has to serve.
pub(crate) fn apply(
    name: &'static str,
    direction: Direction,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    g: &Geometry,
) -> Result<Option<Tensor>> {
    if !x.device().is_cuda() || x.dtype() != DType::F32 || refusal(x.device(), g.exactness).is_some() {
        return Ok(None);
    }
    // The composed path may do what cuDNN cannot. Where a device fails at both, the error is the composed path's.
    let Ok(y) = run(Node { name, direction, geometry: *g }, x, weight) else {
        return Ok(None);
    };
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?).map(Some),
        None => Ok(Some(y)),
    }
}

/// From f32 to f32, in the dtype that the convolution's exactness asks for. Casts and their gradients are candle's.
fn run(node: Node, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let dtype = if node.geometry.exactness == Exactness::Bf16 { DType::BF16 } else { DType::F32 };
    let [a, b] = [aligned(&a.to_dtype(dtype)?)?, aligned(&b.to_dtype(dtype)?)?];
    a.apply_op2(&b, node)?.to_dtype(DType::F32)
}

/// What the trial of a CUDA device at this exactness found wrong. It takes place once in a process for each.
pub(crate) fn refusal(device: &Device, exactness: Exactness) -> Option<String> {
    static FAULTS: Faults<(usize, Exactness)> = LazyLock::new(Mutex::default);
    let DeviceLocation::Cuda { gpu_id } = device.location() else {
        return None;
    };
    let convolve = |direction, g: &Geometry, a: &Tensor, b: &Tensor| {
        let node = Node { name: "convolution", direction, geometry: *g };
        run(node, &a.to_device(device)?, &b.to_device(device)?)?.to_device(&Device::Cpu)
    };
    let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    faults.entry((gpu_id, exactness)).or_insert_with(|| trial::fault(exactness, convolve)).clone()
}
