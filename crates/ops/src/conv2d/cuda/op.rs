//! Convolutions as ops of tensors, on devices that have passed the trial.

use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::{Device, DeviceLocation, Tensor};

use super::direction::Direction;
use super::form::Form;
use super::node::Convolution;
use super::trial;
use crate::Activation;
use crate::Exactness;
use crate::conv2d::Geometry;
use crate::cuda::{Faults, Stage};
use crate::kernel::Order;
use crate::norm::{BatchStatistics, NormEval, NormTrain};

/// `images`, one or a stack of two, through the kernel `weight` in a direction, and `bias` added; none where the composed path has to serve.
pub(crate) fn apply(
    name: &'static str,
    direction: Direction,
    images: &[&Tensor],
    weight: &Tensor,
    bias: Option<&Tensor>,
    g: &Geometry,
) -> Option<Tensor> {
    let stage = stage_of(images, weight, g)?;
    let convolution = Convolution { name, direction, images, weight, bias, geometry: *g };
    // What cuDNN cannot in one order it may in the other, and the composed path may do what it cannot in either. Where a device fails at
    // all, the error is the composed path's.
    convolution.apply(&stage, best_order(g.exactness)).or_else(|_| convolution.apply(&stage, Order::Planes)).ok()
}

/// [`apply`], normalised by running statistics and activated, where no gradient may be asked for.
pub(crate) fn apply_norm_eval(
    direction: Direction,
    images: &[&Tensor],
    (weight, bias): (&Tensor, Option<&Tensor>),
    g: &Geometry,
    norm: &NormEval,
    activation: Activation,
) -> Option<Tensor> {
    let stage = stage_of(images, weight, g)?;
    let convolution = Convolution { name: "conv_norm_eval", direction, images, weight, bias, geometry: *g };
    convolution.apply_norm_eval(&stage, best_order(g.exactness), norm, activation).ok()
}

/// [`apply`] and the activation, for ops to come: in bf16 where convolutions are.
pub(crate) fn apply_activated(
    direction: Direction,
    images: &[&Tensor],
    (weight, bias): (&Tensor, Option<&Tensor>),
    g: &Geometry,
    activation: Activation,
) -> Option<Tensor> {
    let stage = stage_of(images, weight, g)?;
    let convolution = Convolution { name: "conv_activated", direction, images, weight, bias, geometry: *g };
    convolution.apply_activated(&stage, best_order(g.exactness), activation).ok()
}

/// [`apply`], normalised by the result's own statistics and activated, in bf16 where convolutions are; none where nothing is gained by doing
/// both at once.
pub(crate) fn apply_norm_train(
    direction: Direction,
    images: &[&Tensor],
    (weight, bias): (&Tensor, Option<&Tensor>),
    g: &Geometry,
    norm: &NormTrain,
    activation: Activation,
) -> Option<(Tensor, BatchStatistics)> {
    let stage = stage_of(images, weight, g).filter(|_| g.exactness == Exactness::Bf16)?;
    let convolution = Convolution { name: "conv_without_bias", direction, images, weight, bias, geometry: *g };
    convolution.apply_norm_train(&stage, best_order(g.exactness), norm, activation).ok()
}

/// Where to convolve: none where the composed path has to serve.
fn stage_of(images: &[&Tensor], weight: &Tensor, g: &Geometry) -> Option<Stage> {
    let stage = Stage::of(weight)?;
    let trusted =
        refusal(weight.device(), g.exactness).is_none() && images.iter().all(|x| Stage::of_image(x).is_some());
    trusted.then_some(stage)
}

/// Tensor cores read pixels, and all else in cuDNN is made for planes.
fn best_order(exactness: Exactness) -> Order {
    match exactness {
        Exactness::Direct => Order::Planes,
        Exactness::Fast | Exactness::Bf16 => Order::Pixels,
    }
}

/// What the trial of a CUDA device at this exactness found wrong. It takes place once in a process for each.
pub(crate) fn refusal(device: &Device, exactness: Exactness) -> Option<String> {
    static FAULTS: Faults<(usize, Exactness)> = LazyLock::new(Mutex::default);
    let (Device::Cuda(of), DeviceLocation::Cuda { gpu_id }) = (device, device.location()) else {
        return None;
    };
    // Kernels stand around every convolution.
    let kernels = if exactness == Exactness::Bf16 { crate::cuda::refusal_in_bf16 } else { crate::cuda::refusal };
    if let Some(fault) = kernels(device) {
        return Some(fault);
    }
    let (stage, order) = (Stage::Device(of.clone()), best_order(exactness));
    let convolve = |direction: Direction, g: &Geometry, a: &Tensor, b: &Tensor| {
        let there = [&a.to_device(device)?, &b.to_device(device)?];
        Form::new(&stage, order, g).compute(direction, there)?.to_device(&Device::Cpu)
    };
    let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    faults.entry((gpu_id, exactness)).or_insert_with(|| trial::fault(exactness, convolve)).clone()
}
