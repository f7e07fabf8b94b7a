//! A trial of convolutions that were never run before: small ones in all directions, against the composed path in f64 on
//! the CPU.

use candle_core::{DType, Device, Result, Tensor};

use super::direction::Direction;
use crate::conv2d::{Conv2d, Exactness, Geometry, geometry};

/// How far a direction may be off, as a relative L2 error: f32 sums of up to 2048 products, factors rounded to the 11 bits of
/// TF32, where that is allowed, or factors and results to the 8 bits of bf16. What is computed wrongly is off by about 1.
fn tolerance(exactness: Exactness) -> f64 {
    match exactness {
        Exactness::Direct => 1e-5,
        Exactness::Fast => 5e-3,
        Exactness::Bf16 => 1e-2,
    }
}

/// Settings, and the shapes of image and kernel.
const CASES: [(Conv2d, [usize; 4], [usize; 4]); 7] = [
    (settings((1, 1), (1, 1)), [2, 5, 9, 8], [7, 5, 3, 3]),
    (settings((1, 1), (1, 1)), [2, 32, 32, 32], [64, 32, 3, 3]),
    (settings((2, 2), (1, 1)), [2, 16, 13, 16], [8, 16, 4, 4]),
    // By phases.
    (settings((2, 2), (1, 1)), [2, 3, 10, 12], [16, 3, 4, 4]),
    // The last row is seen by no tap; its gradient is 0.
    (settings((2, 2), (0, 0)), [2, 8, 11, 12], [16, 8, 2, 2]),
    (settings((1, 1), (0, 0)), [2, 16, 9, 7], [19, 16, 1, 1]),
    (Conv2d { dilation: (1, 2), groups: 2, ..settings((3, 2), (0, 2)) }, [2, 4, 12, 9], [6, 2, 2, 3]),
];

const fn settings(stride: (usize, usize), padding: (usize, usize)) -> Conv2d {
    Conv2d { stride, padding, dilation: (1, 1), groups: 1, exactness: Exactness::Fast }
}

/// What is wrong with `convolve` at this exactness, if anything. It may refuse dilations and groups, for which others then stand in.
pub(super) fn fault(
    exactness: Exactness,
    convolve: impl Fn(Direction, &Geometry, &Tensor, &Tensor) -> Result<Tensor>,
) -> Option<String> {
    let fault = |(spec, image, kernel)| passes(&convolve, Conv2d { exactness, ..spec }, image, kernel).err();
    CASES.into_iter().find_map(fault)
}

fn passes(
    convolve: impl Fn(Direction, &Geometry, &Tensor, &Tensor) -> Result<Tensor>,
    spec: Conv2d,
    image: [usize; 4],
    kernel: [usize; 4],
) -> std::result::Result<(), String> {
    let is_plain = spec.dilation == (1, 1) && spec.groups == 1;
    let name = |direction| format!("{direction:?} of {image:?} by {kernel:?} with {spec:?}");
    for direction in Direction::ALL {
        let say = |error: candle_core::Error| format!("{}: {error}", name(direction));
        let g = geometry(&drawn(&image, 0).map_err(say)?, &drawn(&kernel, 0).map_err(say)?, None, spec).map_err(say)?;
        let [a, b, _] = direction.shapes(&g);
        let (a, b) = (drawn(&a, 1).map_err(say)?, drawn(&b, 2).map_err(say)?);
        let actual = match convolve(direction, &g, &a, &b) {
            Ok(actual) => actual,
            Err(error) if is_plain => return Err(say(error)),
            Err(_) => continue,
        };
        let error = relative_error(direction, &g, &a, &b, &actual).map_err(say)?;
        // Not `error > tolerance`, which NaN passes.
        if !error.is_finite() || error > tolerance(spec.exactness) {
            return Err(format!(
                "{}: relative error {error:.1e} exceeds {:.0e}",
                name(direction),
                tolerance(spec.exactness)
            ));
        }
    }
    Ok(())
}

fn relative_error(direction: Direction, g: &Geometry, a: &Tensor, b: &Tensor, actual: &Tensor) -> Result<f64> {
    let expected = direction.composed(g, &a.to_dtype(DType::F64)?, &b.to_dtype(DType::F64)?)?;
    let error = (actual.to_dtype(DType::F64)? - &expected)?;
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt);
    Ok(norm(&error)? / norm(&expected)?)
}

/// Values in -1..1 with all 24 bits in use, the same each time.
pub(crate) fn drawn(shape: &[usize], seed: u64) -> Result<Tensor> {
    let count = shape.iter().product::<usize>() as u64;
    let value = |at: u64| {
        let z = (at + (seed << 32) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    Tensor::from_vec((0..count).map(value).collect::<Vec<f32>>(), shape, &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor};

    use super::{fault, tolerance};
    use crate::Exactness::{self, Bf16, Direct, Fast};
    use crate::conv2d::Geometry;
    use crate::conv2d::bf16::rounded;
    use crate::conv2d::cuda::direction::Direction;
    use crate::conv2d::cuda::form::Form;
    use crate::cuda::Stage;
    use crate::kernel::Order;

    fn right(direction: Direction, g: &Geometry, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let order = if g.exactness == Direct { Order::Planes } else { Order::Pixels };
        Form::new(&Stage::Emulator { without: None }, order, g).compute(direction, [a, b])
    }

    #[test]
    fn our_kernels_pass() {
        for exactness in [Direct, Fast, Bf16] {
            assert_eq!(fault(exactness, right), None);
        }
        let in_bf16 = |direction, g: &Geometry, a: &Tensor, b: &Tensor| {
            rounded(&right(direction, g, &rounded(a)?, &rounded(b)?)?)
        };
        assert_eq!(fault(Bf16, in_bf16), None);
        assert!(fault(Direct, in_bf16).is_some_and(|fault| fault.contains("exceeds 1e-5")));
    }

    #[test]
    fn a_fault_in_any_direction_is_found() {
        for wrong in Direction::ALL {
            let convolve = |change: &dyn Fn(Tensor) -> Result<Tensor>| {
                fault(Direct, |direction, g, a, b| {
                    let y = right(direction, g, a, b)?;
                    if direction == wrong { change(y) } else { Ok(y) }
                })
            };
            let scaled = convolve(&|y| y * 1.01).expect("a hundredth too large");
            assert!(scaled.starts_with(&format!("{wrong:?} of [2, 5, 9, 8] by [7, 5, 3, 3]")), "{scaled}");
            assert!(scaled.contains("relative error 1.0e-2 exceeds 1e-5"), "{scaled}");
            assert!(convolve(&|y| y.flip(&[2])?.flip(&[3])).is_some(), "mirrored");
            assert!(convolve(&|y| y * f64::NAN).is_some(), "NaN");
            assert!(convolve(&|y| y.flatten_all()).is_some(), "another shape");
            assert!(convolve(&|_| candle_core::bail!("no such device")).is_some_and(|fault| fault.contains("no such")));
        }
    }

    #[test]
    fn rounding_is_no_fault_where_it_is_allowed() {
        let half_of = |allowed: Exactness, exactness: Exactness| {
            fault(exactness, |direction, g, a, b| right(direction, g, a, b)? * (1. + tolerance(allowed) / 2.))
        };
        for (exactness, lesser) in [(Fast, Direct), (Bf16, Direct)] {
            assert_eq!(half_of(exactness, exactness), None);
            assert!(half_of(exactness, lesser).is_some());
        }
    }

    #[test]
    fn dilations_and_groups_may_be_refused_but_not_wrong() {
        let is_plain = |g: &Geometry| g.groups == 1;
        let refusing = |direction, g: &Geometry, a: &Tensor, b: &Tensor| {
            if is_plain(g) { right(direction, g, a, b) } else { candle_core::bail!("not supported") }
        };
        assert_eq!(fault(Fast, refusing), None);
        let wrong = |direction, g: &Geometry, a: &Tensor, b: &Tensor| {
            let y = right(direction, g, a, b)?;
            if is_plain(g) { Ok(y) } else { y * 2. }
        };
        assert!(fault(Fast, wrong).is_some());
    }
}
