//! Convolutions as ops of tensors, on devices that have passed the trial.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::{DType, Device, DeviceLocation, Result, Tensor};

use super::direction::{Direction, Node, aligned};
use super::trial;
use crate::conv2d::Geometry;

/// `x` through the kernel `weight` in a direction, and `bias` added; none where the composed path has to serve.
pub(crate) fn apply(
    name: &'static str,
    direction: Direction,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    g: &Geometry,
) -> Result<Option<Tensor>> {
    if !x.device().is_cuda() || x.dtype() != DType::F32 || refusal(x.device()).is_some() {
        return Ok(None);
    }
    let node = Node { name, direction, geometry: *g };
    // The composed path may do what cuDNN cannot. Where a device fails at both, the error is the composed path's.
    let Ok(y) = aligned(x)?.apply_op2(&aligned(weight)?, node) else {
        return Ok(None);
    };
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?).map(Some),
        None => Ok(Some(y)),
    }
}

/// What the trial of a CUDA device found wrong. It takes place once in a process for each.
pub(crate) fn refusal(device: &Device) -> Option<String> {
    static FAULTS: LazyLock<Mutex<HashMap<usize, Option<String>>>> = LazyLock::new(Mutex::default);
    let DeviceLocation::Cuda { gpu_id } = device.location() else {
        return None;
    };
    let convolve = |direction, g: &Geometry, a: &Tensor, b: &Tensor| {
        let node = Node { name: "convolution", direction, geometry: *g };
        a.to_device(device)?.apply_op2_no_bwd(&b.to_device(device)?, &node)?.to_device(&Device::Cpu)
    };
    let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    faults.entry(gpu_id).or_insert_with(|| trial::fault(convolve)).clone()
}
