//! How ops are verified: against PyTorch's file, finite differences, themselves in f64, and any number of threads.

mod errors;
mod every_op;
mod pytorch;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, Var};
use safetensors::SafeTensors;

use crate::kernel::{COMPOSED, Source, has_kernel, node};
use crate::{backward, weighted_sum};

/// An op as a function of all tensors it differentiates.
pub(crate) type Op<'a> = &'a (dyn Fn(&[Tensor]) -> Result<Tensor> + Sync);

/// One layer of `tests/oracle/layers.safetensors`, a loss of `losses.safetensors` and the like: PyTorch's output and gradients.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) spec: serde_json::Value,
    file: std::sync::Arc<std::collections::HashMap<String, Tensor>>,
}

impl Case {
    /// All cases of a layer's op.
    pub(crate) fn all(op: &str) -> Vec<Self> {
        Self::of("layers.safetensors", op)
    }

    /// All cases of a loss.
    pub(crate) fn of_losses(op: &str) -> Vec<Self> {
        Self::of("losses.safetensors", op)
    }

    fn of(file: &str, op: &str) -> Vec<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle").join(file);
        let bytes = std::fs::read(&path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let cases = &header.metadata().as_ref().unwrap()["cases"];
        let file = std::sync::Arc::new(candle_core::safetensors::load(&path, &Device::Cpu).unwrap());
        let cases: Vec<serde_json::Value> = serde_json::from_str(cases).unwrap();
        let cases: Vec<_> = cases
            .into_iter()
            .filter(|spec| spec["op"] == op)
            .map(|spec| Self { name: spec["name"].as_str().unwrap().into(), spec, file: file.clone() })
            .collect();
        assert!(!cases.is_empty(), "no case of {op}");
        cases
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor> {
        self.file.get(&format!("{}.{name}", self.name)).cloned()
    }

    /// The labels of a loss, which its file holds as numbers.
    pub(crate) fn labels(&self) -> Tensor {
        self.tensor("labels").expect("labels").to_dtype(DType::U32).unwrap()
    }

    pub(crate) fn size(&self, key: &str) -> usize {
        usize::try_from(self.spec[key].as_u64().unwrap()).unwrap()
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        self.spec[key].as_f64().unwrap()
    }

    /// Checks output and gradients of `op` of the tensors `inputs`, those that the case has, in f32 and in f64.
    pub(crate) fn check(&self, inputs: &[&str], op: Op) {
        self.check_within(EXACT, inputs, op);
    }

    /// As [`Case::check`]; gradients may be off by what PyTorch's are, too.
    pub(crate) fn check_within(&self, bounds: Bounds, inputs: &[&str], op: Op) {
        let names: Vec<&str> = inputs.iter().copied().filter(|name| self.tensor(name).is_some()).collect();
        for dtype in [DType::F32, DType::F64] {
            let get = |name: &str| self.tensor(name).unwrap().to_dtype(dtype).unwrap();
            let inputs: Vec<Tensor> = names.iter().map(|name| get(name)).collect();
            let (y, gradients) = differentiate(op, &inputs, &get("gy"));
            assert_close(&format!("{} {dtype:?} output", self.name), &y, &get("y"), bounds.output);
            for (name, gradient) in names.iter().zip(&gradients) {
                assert_close(
                    &format!("{} {dtype:?} d/d{name}", self.name),
                    gradient,
                    &get(&format!("g{name}")),
                    bounds.gradient + 5e-6,
                );
            }
        }
    }
}

/// How far f32 may be from f64, as a relative L2 error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) output: f64,
    pub(crate) gradient: f64,
}

pub(crate) const EXACT: Bounds = Bounds { output: 1e-6, gradient: 3e-6 };
pub(crate) const FAST: Bounds = Bounds { output: 1e-5, gradient: 2e-5 };

/// The op's value at `inputs` and its gradients against `cotangent`, by candle's way back and by ours.
pub(crate) fn differentiate(op: Op, inputs: &[Tensor], cotangent: &Tensor) -> (Tensor, Vec<Tensor>) {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| Var::from_tensor(x).unwrap().into_inner()).collect();
    let y = op(&inputs).unwrap();
    let gradients = (&y * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients: Vec<Tensor> =
        inputs.iter().map(|x| gradients.get(x).expect("each input has a gradient").clone()).collect();
    let ours = backward(dot(&y, cotangent)).unwrap();
    for (x, theirs) in inputs.iter().zip(&gradients) {
        let ours = ours.get(x).expect("each input has a gradient");
        assert_eq!(ours.dims(), theirs.dims());
        // candle adds to zeros, which makes 0 of -0.
        let equal = |(a, b): (&f64, &f64)| (a + 0.).to_bits() == (b + 0.).to_bits() || a.is_nan() && b.is_nan();
        assert!(values(ours).iter().zip(&values(theirs)).all(equal), "the ways back differ: {ours} {theirs}");
    }
    (y.detach(), gradients)
}

/// The sum of products of `y` and a constant, as a node of ours where we have kernels.
fn dot(y: &Tensor, constant: &Tensor) -> Tensor {
    if !has_kernel(y) {
        return (y * constant).unwrap().sum_all().unwrap();
    }
    let sum = values(y).iter().zip(values(constant)).map(|(y, c)| y * c).sum::<f64>();
    let constant = constant.clone();
    node("dot", &[y], vec![sum as f32], (), move |pass| {
        Ok([Some((&constant * f64::from(pass.gradient.to_scalar::<f32>()?))?), None, None])
    })
    .unwrap()
}

/// `|actual - expected| / |expected|`, both read as f64; absolute where nothing is expected.
pub(crate) fn relative_l2(actual: &Tensor, expected: &Tensor) -> f64 {
    error_by(actual, expected, norm(expected))
}

fn error_by(actual: &Tensor, expected: &Tensor, size: f64) -> f64 {
    assert_eq!(actual.dims(), expected.dims());
    let squares = values(actual).iter().zip(values(expected)).map(|(a, e)| (a - e) * (a - e)).sum::<f64>();
    if size > 0. { squares.sqrt() / size } else { squares.sqrt() }
}

fn norm(x: &Tensor) -> f64 {
    values(x).iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[track_caller]
pub(crate) fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = relative_l2(actual, expected);
    assert!(error <= tolerance, "{what}: relative error {error:e} exceeds {tolerance:e}");
}

/// All values in row order.
pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// f32 values in -1..1 that depend on the seed alone (the generator is `SplitMix64`).
pub(crate) fn draw(shape: impl Into<candle_core::Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    let values: Vec<f32> = (0..shape.elem_count()).map(|_| next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Everything that holds for each op at each place: gradients as finite differences say (of the f64 path), values and
/// gradients of the f32 path as the f64 path's, sums over uses, strided inputs, and the same bits in every thread pool.
pub(crate) fn assert_op(op: Op, inputs: &[Tensor]) {
    assert_op_within(EXACT, op, inputs);
}

pub(crate) fn assert_op_within(bounds: Bounds, op: Op, inputs: &[Tensor]) {
    let wide: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    assert_finite_differences(op, &wide);
    assert_within(bounds, op, inputs);
    assert_accumulates(op, inputs);
    assert_strided(op, inputs);
    assert_any_pool(op, inputs);
}

/// What `work` does where no kernel serves: by candle's ops, on the calling thread.
pub(crate) fn composed(work: impl FnOnce()) {
    COMPOSED.set(true);
    work();
    COMPOSED.set(false);
}

fn cotangent(op: Op, inputs: &[Tensor]) -> Tensor {
    let y = op(inputs).unwrap();
    draw(y.shape(), 77).to_dtype(y.dtype()).unwrap()
}

/// Compares gradients along a random direction of each input, and along the axes of its first few elements.
pub(crate) fn assert_finite_differences(op: Op, inputs: &[Tensor]) {
    let cotangent = cotangent(op, inputs);
    let (_, gradients) = differentiate(op, inputs, &cotangent);
    let value = |inputs: &[Tensor]| values(&(op(inputs).unwrap() * &cotangent).unwrap()).iter().sum::<f64>();
    for (i, gradient) in gradients.iter().enumerate() {
        let count = gradient.elem_count();
        let axis = |at: usize| {
            let mut direction = vec![0f64; count];
            direction[at] = 1.;
            Tensor::from_vec(direction, gradient.shape(), &Device::Cpu).unwrap()
        };
        let random = draw(gradient.shape(), 99).to_dtype(DType::F64).unwrap();
        let directions = std::iter::once(random).chain((0..4.min(count)).map(|k| axis(k * count / 4.min(count))));
        for direction in directions {
            let step = 1e-6;
            let moved = |sign: f64| {
                let mut inputs = inputs.to_vec();
                inputs[i] = (&inputs[i] + (&direction * (sign * step)).unwrap()).unwrap();
                value(&inputs)
            };
            let expected = (moved(1.) - moved(-1.)) / (2. * step);
            let actual: f64 = values(&(gradient * &direction).unwrap()).iter().sum();
            let scale = expected.abs().max(1e-2);
            assert!((actual - expected).abs() <= 1e-5 * scale, "input {i}: gradient {actual}, differences {expected}");
        }
    }
}

/// Compares f32 with f64 at the same inputs.
pub(crate) fn assert_like_f64(op: Op, inputs: &[Tensor]) {
    assert_within(EXACT, op, inputs);
}

/// Kernels in f32 as the composed path in f64, also of inputs used twice and of strided ones.
#[cfg(target_os = "linux")]
pub(crate) fn assert_like_composed(
    kernels: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
    composed: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
    inputs: &[Tensor],
) {
    let op = |x: &[Tensor]| if x[0].dtype() == DType::F32 { kernels(x) } else { composed(x) };
    assert_like_f64(&op, inputs);
    assert_accumulates(&op, inputs);
    assert_strided(&op, inputs);
}

pub(crate) fn assert_within(bounds: Bounds, op: Op, inputs: &[Tensor]) {
    let wide: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
    let cotangent = cotangent(op, inputs);
    let (y, gradients) = differentiate(op, inputs, &cotangent);
    let (expected, expected_gradients) = differentiate(op, &wide, &cotangent.to_dtype(DType::F64).unwrap());
    assert_close("output", &y, &expected, bounds.output);
    for (i, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        // A channel's number is a sum over pixels, of which next to nothing may be left: the error is that of what is summed.
        let is_channels = expected.rank() == 1 && y.rank() == 4;
        let size = if is_channels { norm(expected).max(norm(&cotangent)) } else { norm(expected) };
        let (error, bound) = (error_by(gradient, expected, size), bounds.gradient);
        assert!(error <= bound, "gradient of input {i}: relative error {error:e} exceeds {bound:e}");
    }
}

/// What a convolution in bf16 gives is of that dtype's values, near what `direct` gives and not the same, and the composed path's in f64
/// but where rounding takes another turn.
pub(crate) fn assert_bf16(op: Op, direct: Op, inputs: &[Tensor]) {
    assert_within(Bounds { output: 5e-4, gradient: 5e-4 }, op, inputs);
    let cotangent = cotangent(op, inputs);
    let (y, gradients) = differentiate(op, inputs, &cotangent);
    let (expected, expected_gradients) = differentiate(direct, inputs, &cotangent);
    let all = std::iter::once((&y, &expected)).chain(gradients.iter().zip(&expected_gradients));
    for (actual, expected) in all {
        let error = relative_l2(actual, expected);
        assert!((5e-4..6e-3).contains(&error), "relative error {error:e}");
    }
    // A bias has no cast before it: its gradient is a sum in f32 of what was rounded.
    for rounded in std::iter::once(&y).chain(gradients.iter().filter(|gradient| gradient.rank() == 4)) {
        let cast = rounded.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(values(rounded), values(&cast));
    }
}

/// An input used by two ops gets the sum of what both say.
pub(crate) fn assert_accumulates(op: Op, inputs: &[Tensor]) {
    let cotangent = cotangent(op, inputs);
    let (_, once) = differentiate(op, inputs, &cotangent);
    let thrice = |inputs: &[Tensor]| op(inputs)? + (op(inputs)? * 2.)?;
    let (_, sums) = differentiate(&thrice, inputs, &cotangent);
    for (once, sum) in once.iter().zip(&sums) {
        assert_close("sum over uses", sum, &(once * 3.).unwrap(), 1e-6);
    }
    let variables: Vec<Tensor> = inputs.iter().map(|x| Var::from_tensor(x).unwrap().into_inner()).collect();
    let [first, second] = [(); 2].map(|()| dot(&op(&variables).unwrap(), &cotangent));
    let sums = backward(weighted_sum(&[(&first, 1.), (&second, 2.)]).unwrap()).unwrap();
    // A composed path ends in an op of candle's.
    let composed = matches!(Source::of(&op(&variables).unwrap()), Source::Candle);
    assert_eq!(sums.through_candle(), composed);
    for (once, x) in once.iter().zip(&variables) {
        assert_close("sum over uses, our way back", sums.get(x).unwrap(), &(once * 3.).unwrap(), 1e-6);
    }
}

/// Inputs and gradients in any memory order give the same values.
pub(crate) fn assert_strided(op: Op, inputs: &[Tensor]) {
    let cotangent = cotangent(op, inputs);
    let (y, gradients) = differentiate(op, inputs, &cotangent);
    // Dimensions in reverse order, behind an offset.
    let strided = |inputs: &[Tensor]| {
        let inputs: Result<Vec<Tensor>> = inputs
            .iter()
            .map(|x| {
                let reversed: Vec<usize> = (0..x.rank()).rev().collect();
                let x = x.permute(&reversed[..])?.contiguous()?.unsqueeze(0)?;
                Tensor::cat(&[&x, &x], 0)?.narrow(0, 1, 1)?.squeeze(0)?.permute(&reversed[..])
            })
            .collect();
        let y = op(&inputs?)?;
        // The second use sends a gradient that is strided too.
        let reversed: Vec<usize> = (0..y.rank()).rev().collect();
        (y.permute(&reversed[..])? * 1.)?.permute(&reversed[..])
    };
    let (y_strided, gradients_strided) = differentiate(&strided, inputs, &cotangent);
    assert_eq!(values(&y), values(&y_strided), "output of strided inputs");
    for (gradient, gradient_strided) in gradients.iter().zip(&gradients_strided) {
        assert_eq!(values(gradient), values(gradient_strided), "gradient of strided inputs");
    }
}

/// Outputs and gradients have the same bits in pools of 1, 2, 3 and 8 threads.
pub(crate) fn assert_any_pool(op: Op, inputs: &[Tensor]) {
    let bits = || -> Vec<Vec<u64>> {
        let (y, mut all) = differentiate(op, inputs, &cotangent(op, inputs));
        all.push(y);
        all.iter().map(|x| values(x).into_iter().map(f64::to_bits).collect()).collect()
    };
    let run = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(bits);
    let alone = run(1);
    for threads in [2, 3, 8] {
        assert!(alone == run(threads), "{threads} threads differ from one");
    }
}

/// The text of the error that `result` is.
#[track_caller]
pub(crate) fn refusal<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}
