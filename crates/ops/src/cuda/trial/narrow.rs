//! The part of the trial that is of images in bf16.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{EPSILON, Op, ROUNDING, eval_after_differs, moved, off, off_by};
use crate::activation::{self, Activation};
use crate::batch_norm_train;
use crate::check::refuse;
use crate::conv2d::cuda::drawn;
use crate::cuda::{Memory, Stage, moves, sums};
use crate::kernel::Order;
use crate::norm::batch_norm;
use crate::pool::max_pool2d as pool;

/// What is wrong with the kernels that convolutions in bf16 need besides, and with what candle has for that dtype, if anything.
pub(in crate::cuda) fn fault_in_bf16(stage: &Stage, device: &Device) -> Option<String> {
    let words = |name: &'static str| move |error: candle_core::Error| Some(format!("{name}: {error}"));
    let fault = casts_differ(stage, device).unwrap_or_else(words("casts"));
    fault.or_else(|| images_differ(stage, device).unwrap_or_else(words("ops of bf16")))
}

/// To bf16, which has to be what candle makes of it, bit by bit, and back with a bias.
fn casts_differ(stage: &Stage, device: &Device) -> Result<Option<String>> {
    let (image, bias) = (drawn(&[3, 8, 5, 7], 3)?, drawn(&[5], 2)?);
    let there = Order::Pixels.arrange(&image.to_device(device)?)?;
    let Some((narrow, sums)) = sums::narrow_with_sums(stage, &there)? else { refuse!("no fours of channels") };
    let narrow = narrow.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let expected = Order::Pixels.stored(&image.to_dtype(DType::BF16)?.to_dtype(DType::F64)?)?;
    let expected_sums = image.to_dtype(DType::F64)?.sum((0, 2, 3))?;
    for (actual, expected) in [(narrow, expected), (sums, expected_sums)] {
        if let Some(fault) = off(&actual, &expected)? {
            return Ok(Some(format!("a cast to bf16 with sums: {fault}")));
        }
    }
    let image = drawn(&[2, 5, 3, 1], 1)?;
    for order in [Order::Planes, Order::Pixels] {
        let narrow = moves::narrow(stage, &order.stored(&image)?.to_device(device)?)?;
        let actual = order.seen(&narrow)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let expected = image.to_dtype(DType::BF16)?.to_dtype(DType::F32)?;
        let bits = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        if bits(&actual)? != bits(&expected)? {
            return Ok(Some("a cast to bf16 rounds otherwise".to_owned()));
        }
        let storage = narrow.storage_and_layout().0.try_clone(narrow.layout())?;
        let bias = bias.to_device(device)?;
        let wide = moves::widen(stage, order, Memory::from(storage).address()?, Some(&bias), (2, 5, 3))?;
        let wide = wide.into_image([2, 5, 3, 1], order)?.to_device(&Device::Cpu)?;
        let bias = bias.to_device(&Device::Cpu)?.reshape((1, 5, 1, 1))?;
        let expected = expected.broadcast_add(&bias)?;
        if let Some(fault) = off(&wide, &expected.to_dtype(DType::F64)?)? {
            return Ok(Some(format!("a cast from bf16 with a bias: {fault}")));
        }
        if let Some(fault) = eval_after_differs(stage, device, order, &narrow)? {
            return Ok(Some(fault));
        }
        let other = if order == Order::Pixels { Order::Planes } else { Order::Pixels };
        let Some(turned) = moves::arrange_narrow(stage, other, &order.arrange(&image.to_device(device)?)?)? else {
            refuse!("an image is in both orders");
        };
        let turned = other.seen(&turned)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        if bits(&turned)? != bits(&image.to_dtype(DType::BF16)?.to_dtype(DType::F32)?)? {
            return Ok(Some("a cast to bf16 in the other order is wrong".to_owned()));
        }
    }
    Ok(None)
}

/// Ops of images in bf16, and the way back, where gradients of images are rounded too.
fn images_differ(stage: &Stage, device: &Device) -> Result<Option<String>> {
    const ACTIVATION: Activation = Activation::LeakyRelu(0.2);
    let train = |stage: Option<&Stage>, x: &[Tensor]| match stage {
        Some(stage) => batch_norm::cuda::train(stage, &x[0], &x[1], &x[2], EPSILON, ACTIVATION).map(|(y, _)| y),
        None => batch_norm_train(&x[0], &x[1], &x[2], EPSILON, ACTIVATION).map(|(y, _)| y),
    };
    let activate = |stage: Option<&Stage>, x: &[Tensor]| match stage {
        Some(stage) => activation::cuda::apply(stage, ACTIVATION, &x[0]),
        None => ACTIVATION.apply(&x[0]),
    };
    let pool = |stage: Option<&Stage>, x: &[Tensor]| match stage {
        Some(stage) => pool::cuda::max_pool2d(stage, &x[0], 2),
        None => crate::max_pool2d(&x[0], 2),
    };
    let move_about = |stage: Option<&Stage>, x: &[Tensor]| moved(Order::Pixels, stage, &x[0].detach(), &x[1].detach());
    let ops: [(&str, usize, usize, &Op); 4] = [
        ("batch_norm_train", 3, 3, &train),
        ("activation", 1, 1, &activate),
        ("max_pool2d", 1, 1, &pool),
        ("moves", 2, 0, &move_about),
    ];
    for shape in [[2, 5, 3, 2], [3, 8, 4, 3]] {
        for (name, inputs, with_gradient, op) in ops {
            let fault = bf16_differs(stage, device, op, &shape, inputs, with_gradient)?;
            if let Some(fault) = fault {
                return Ok(Some(format!("{name} of bf16 {shape:?}: {fault}")));
            }
        }
    }
    Ok(None)
}

/// Compares an op of an image in bf16 and of vectors of a number for each channel, in f32.
fn bf16_differs(
    stage: &Stage,
    device: &Device,
    op: &Op,
    shape: &[usize; 4],
    inputs: usize,
    with_gradient: usize,
) -> Result<Option<String>> {
    let x = drawn(shape, 1)?.to_dtype(DType::BF16)?;
    let vectors = (1..inputs).map(|at| drawn(&shape[1..2], at as u64 + 1)).collect::<Result<Vec<_>>>()?;
    let of = |stage: Option<&Stage>, dtype: DType, device: &Device| -> Result<Vec<Tensor>> {
        let place = |x: &Tensor, dtype: DType| {
            let x = x.to_dtype(dtype)?.to_device(device)?;
            Var::from_tensor(&x).map(Var::into_inner)
        };
        // As it is stored in the order of pixels.
        let of_x = if stage.is_some() { DType::BF16 } else { dtype };
        let stored = place(&Order::Pixels.stored(&x)?, of_x)?;
        let mut all = vec![Order::Pixels.seen(&stored)?];
        for vector in &vectors {
            all.push(place(vector, dtype)?);
        }
        let y = op(stage, &all)?.to_dtype(dtype)?;
        let mut results = vec![y.detach()];
        if with_gradient > 0 {
            let gradients = (&y * drawn(y.dims(), 9)?.to_dtype(dtype)?.to_device(device)?)?.sum_all()?.backward()?;
            all[0] = stored;
            for x in &all[..with_gradient] {
                let Some(gradient) = gradients.get(x) else { refuse!("an input has no gradient") };
                results.push(gradient.clone());
            }
        }
        Ok(results)
    };
    let (actual, expected) = (of(Some(stage), DType::F32, device)?, of(None, DType::F64, &Device::Cpu)?);
    let names = ["result", "gradient of x", "gradient of weight", "gradient of bias"];
    for (what, (actual, expected)) in names.into_iter().zip(actual.iter().zip(&expected)) {
        if let Some(fault) = off_by(actual, expected, ROUNDING)? {
            return Ok(Some(format!("{what}: {fault}")));
        }
    }
    Ok(None)
}
