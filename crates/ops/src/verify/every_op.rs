//! What holds for every op: any shape, any number of threads, any vector unit, without kernels, without elements, and with NaN.

use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;

use super::{
    Bounds, EXACT, FAST, assert_any_pool, assert_within, composed, cotangent, differentiate, draw, refusal, values,
};
use crate::Activation::{LeakyRelu, None as Nothing, Relu};
use crate::kernel::{Source, at_lesser_levels};
use crate::*;

pub(super) type Size = (usize, usize, usize, usize);

/// An op with inputs for images of a size.
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) inputs: fn(Size) -> Vec<Tensor>,
    pub(super) run: fn(&[Tensor]) -> Result<Tensor>,
    bounds: Bounds,
    /// How far f32 may be off without kernels.
    composed: Bounds,
}

/// An op that rounds as it should, kernels or none.
const fn op(name: &'static str, inputs: fn(Size) -> Vec<Tensor>, op: fn(&[Tensor]) -> Result<Tensor>) -> Op {
    Op { name, inputs, run: op, bounds: EXACT, composed: FAST }
}

fn image(size: Size) -> Vec<Tensor> {
    vec![draw(size, 1)]
}

fn positive(size: Size) -> Vec<Tensor> {
    vec![(draw(size, 1) + 1.).unwrap()]
}

fn two(size: Size) -> Vec<Tensor> {
    vec![draw(size, 1), draw(size, 2)]
}

/// An image with a number for each channel, twice; enough pixels for statistics that say something.
fn normed((n, c, h, w): Size) -> Vec<Tensor> {
    vec![draw((n, c, h.max(5), w.max(4)), 1), draw(c, 2), draw(c, 3)]
}

/// An image of a size at least and a kernel, `out` channels of `k` x `k`: so many numbers that they do not all cancel.
fn convolved<const OUT: usize, const K: usize>((n, c, h, w): Size) -> Vec<Tensor> {
    let c = c.max(3);
    vec![draw((n, c, h.max(K), w.max(K)), 1), draw((OUT, c, K, K), 2), draw(OUT, 3)]
}

fn transposed<const OUT: usize, const K: usize>((n, c, h, w): Size) -> Vec<Tensor> {
    let c = c.max(3);
    vec![draw((n, c, h.max(2), w.max(2)), 1), draw((c, OUT, K, K), 2), draw(OUT, 3)]
}

/// A class or void of each pixel, the same for the same shape.
fn labels(logits: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = logits.dims4()?;
    let class = |i: usize| if i.is_multiple_of(7) && n * h * w > 1 { 255 } else { (i * 5 / 3 % c) as u32 };
    Tensor::from_iter((0..n * h * w).map(|i| class(i + 1)), &Device::Cpu)?.reshape((n, h, w))
}

/// Numbers of this shape and of the dtype of `x`.
fn constant(x: &Tensor, shape: impl Into<candle_core::Shape>, seed: u64) -> Result<Tensor> {
    draw(shape, seed).to_dtype(x.dtype())
}

fn keep(x: &Tensor) -> Result<Tensor> {
    Tensor::from_iter((0..x.elem_count()).map(|i| (i % 3).min(1) as f32), &Device::Cpu)?
        .reshape(x.shape())?
        .to_dtype(x.dtype())
}

fn direct(stride: usize, padding: usize) -> Conv2d {
    Conv2d { exactness: Exactness::Direct, ..Conv2d::new(stride, padding) }
}

fn convolve<const STRIDE: usize, const PADDING: usize>(x: &[Tensor]) -> Result<Tensor> {
    conv2d(&x[0], &x[1], Some(&x[2]), direct(STRIDE, PADDING))
}

fn transpose<const STRIDE: usize, const PADDING: usize>(x: &[Tensor]) -> Result<Tensor> {
    let spec = ConvTranspose2d { exactness: Exactness::Direct, ..ConvTranspose2d::new(STRIDE, PADDING) };
    conv_transpose2d(&x[0], &x[1], Some(&x[2]), spec)
}

pub(super) fn all() -> Vec<Op> {
    let wide = |shape: Size| -> Vec<Tensor> { vec![(draw(shape, 1) * 3.).unwrap()] };
    let windows = |(n, c, h, w): Size| image((n, c, h.max(3), w.max(3)));
    let of_classes = |(n, c, h, w): Size| vec![(draw((n, c + 1, h, w), 1) * 3.).unwrap()];
    vec![
        op("relu", image, |x| relu(&x[0])),
        op("leaky_relu", image, |x| leaky_relu(&x[0], 0.2)),
        op("leaky_relu", image, |x| leaky_relu(&x[0], 1.5)),
        op("tanh", wide, |x| tanh(&x[0])),
        op("sigmoid", wide, |x| sigmoid(&x[0])),
        op("soft_clamp", wide, |x| soft_clamp(&x[0], 2.)),
        op("add", two, |x| add(&x[0], &x[1], Nothing)),
        op("add", two, |x| add(&x[0], &x[1], Relu)),
        op("add", two, |x| add(&x[0], &x[1], LeakyRelu(0.2))),
        op("dropout", image, |x| dropout(&x[0], &keep(&x[0])?, 0.3)),
        op("reshape", image, |x| reshape(&x[0], x[0].elem_count())),
        op("cat", two, |x| cat(&[&x[0], &x[1]])),
        op("max_pool2d", windows, |x| max_pool2d(&x[0], 2)),
        op("max_pool2d", windows, |x| max_pool2d(&x[0], 3)),
        op("global_avg_pool", image, |x| global_avg_pool(&x[0])),
        op("spread", |(n, c, ..)| vec![draw((n, c), 1)], |x| spread(&x[0], 9, 5)),
        op("resize", image, |x| resize(&x[0], x[0].dim(2)? * 3 / 2 + 1, x[0].dim(3)? / 2 + 1, Resize::Nearest)),
        op("resize", image, |x| resize(&x[0], x[0].dim(2)? * 2, x[0].dim(3)? * 2, Resize::Bilinear)),
        op("resize", image, |x| resize(&x[0], x[0].dim(2)? / 2 + 1, x[0].dim(3)? + 3, Resize::Bilinear)),
        op("batch_norm_train", normed, |x| Ok(batch_norm_train(&x[0], &x[1], &x[2], 1e-3, Nothing)?.0)),
        op("batch_norm_eval", normed, |x| {
            let [mean, var] = [11, 12].map(|seed| constant(&x[0], x[1].dims(), seed));
            batch_norm_eval(&x[0], &x[1], &x[2], &mean?, &(var?.abs()? + 0.5)?, 1e-3, Nothing)
        }),
        op("instance_norm", normed, |x| instance_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-3, Nothing)),
        op("group_norm", normed, |x| group_norm(&x[0], x[0].dim(1)?, &x[1], &x[2], 1e-3, Nothing)),
        op("group_norm", normed, |x| group_norm(&x[0], 1, &x[1], &x[2], 1e-3, Nothing)),
        op("spectral_norm", positive, |x| {
            let (rows, columns) = (x[0].dim(0)?, x[0].elem_count() / x[0].dim(0)?.max(1));
            // No singular vectors, so that the gradient is not small, and all numbers above 0, so that sigma is not.
            spectral_norm(&x[0], &constant(&x[0], rows, 2)?.abs()?, &(constant(&x[0], columns, 3)?.abs()? + 1.)?)
        }),
        op("mse", two, |x| mse(&x[0], &x[1])),
        op("l1", two, |x| l1(&x[0], &x[1])),
        op("charbonnier", two, |x| charbonnier(&x[0], &x[1], 0.1)),
        op("bce_with_logits", wide, |x| bce_with_logits(&x[0], 0.9)),
        op("least_squares", wide, |x| least_squares(&x[0], 1.)),
        op("hinge", wide, |x| hinge(&x[0], -1.)),
        op("mean", positive, |x| mean(&x[0])),
        op("gaussian_kl", two, |x| gaussian_kl(&x[0], &x[1])),
        op("reparameterize", two, |x| reparameterize(&x[0], &x[1], &constant(&x[0], x[0].dims(), 3)?)),
        op("softmax", of_classes, |x| softmax(&x[0])),
        op("cross_entropy", of_classes, |x| cross_entropy(&x[0], &labels(&x[0])?, None)),
        op("cross_entropy", of_classes, |x| {
            cross_entropy(&x[0], &labels(&x[0])?, Some(&(constant(&x[0], x[0].dim(1)?, 4)?.abs()? + 0.1)?))
        }),
        op("focal", of_classes, |x| focal(&x[0], &labels(&x[0])?, 2., None)),
        op("dice", of_classes, |x| dice(&x[0], &labels(&x[0])?, None)),
        // Of errors that are nearly equal f64 may sort another first, which changes their slopes by one part in the number of pixels.
        Op {
            bounds: Bounds { gradient: 2e-4, ..EXACT },
            composed: Bounds { gradient: 2e-4, ..FAST },
            ..op("lovasz_softmax", of_classes, |x| lovasz_softmax(&x[0], &labels(&x[0])?))
        },
        op("conv2d", convolved::<5, 3>, convolve::<1, 1>),
        op("conv2d", convolved::<33, 3>, convolve::<1, 1>),
        op("conv2d", convolved::<7, 4>, convolve::<2, 1>),
        op("conv2d", convolved::<3, 1>, convolve::<1, 0>),
        op("conv2d", convolved::<40, 1>, convolve::<1, 0>),
        op("conv2d", convolved::<40, 1>, convolve::<2, 0>),
        op("conv2d", convolved::<6, 2>, convolve::<2, 0>),
        op("conv_transpose2d", transposed::<5, 2>, transpose::<2, 0>),
        op("conv_transpose2d", transposed::<4, 4>, transpose::<2, 1>),
        op("conv_transpose2d", transposed::<9, 3>, transpose::<1, 1>),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Kernels in f32 as the composed path in f64, and that path in f32, which serves devices without kernels.
    #[test]
    fn any_shape_agrees_with_f64((n, c, h, w) in (1usize..4, 1usize..9, 1usize..71, 1usize..71)) {
        for Op { name, inputs, run: op, bounds, composed: bounds_composed } in all() {
            let inputs = inputs((n, c, h, w));
            println!("{name} of {:?}", inputs.iter().map(Tensor::dims).collect::<Vec<_>>()); // shown where it fails
            assert_within(bounds, &op, &inputs);
            composed(|| assert_within(bounds_composed, &op, &inputs));
        }
    }
}

/// Of more than one piece of work each.
#[test]
fn threads_and_vector_units_change_no_bit() {
    for Op { name, inputs, run: op, .. } in all() {
        println!("{name}");
        let inputs = inputs((2, 11, 67, 51));
        assert_any_pool(&op, &inputs);
        // Convolutions choose their level where they are called, and have tests of their own.
        let bits = || {
            let (y, mut all) = differentiate(&op, &inputs, &cotangent(&op, &inputs));
            all.push(y);
            all.iter().flat_map(|x| values(x).into_iter().map(f64::to_bits)).collect::<Vec<_>>()
        };
        let best = bits();
        at_lesser_levels(|| assert!(bits() == best, "{name}: bits depend on the vector unit"));
    }
}

#[test]
fn steps_have_the_same_bits_in_any_pool_and_vector_unit() {
    let shapes: [&[usize]; 3] = [&[40_001], &[3, 5], &[130, 129]];
    let run = || {
        let start = |seed| shapes.map(|shape| Var::from_tensor(&draw(shape, seed)).unwrap());
        let [parameters, first, velocities, averages, turned] = [1, 2, 3, 4, 5].map(start);
        let second = shapes.map(|shape| Var::from_tensor(&draw(shape, 6).abs().unwrap()).unwrap());
        let gradients = shapes.map(|shape| draw(shape, 7));
        let settings = AdamStep {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-3,
            weight_decay: 0.1,
            gradient_factor: 0.7,
        };
        let of = |at: usize| AdamParameter {
            parameter: &parameters[at],
            gradient: &gradients[at],
            first_moment: &first[at],
            second_moment: &second[at],
            decays: at > 0,
        };
        adam_steps(&[0, 1, 2].map(of), 3, &settings).unwrap();
        let settings =
            SgdStep { learning_rate: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.1, gradient_factor: 0.7 };
        let of = |at: usize| SgdParameter {
            parameter: &turned[at],
            gradient: &gradients[at],
            velocity: &velocities[at],
            decays: at > 0,
        };
        sgd_steps(&[0, 1, 2].map(of), &settings).unwrap();
        move_towards(&[0, 1, 2].map(|at| (&averages[at], &gradients[at])), 0.3).unwrap();
        let [u, v] = [(130, 8), (129, 9)].map(|(len, seed)| Var::from_tensor(&draw(len, seed)).unwrap());
        power_iteration(&gradients[2], &u, &v, 1e-12).unwrap();
        let all = [parameters, first, second, velocities, averages, turned].concat();
        let mut bits: Vec<u64> = all.iter().chain([&u, &v]).flat_map(|x| values(x)).map(f64::to_bits).collect();
        bits.extend(squared_norms(&gradients.each_ref()).unwrap().into_iter().map(f64::to_bits));
        bits
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let alone = pool(1).install(run);
    for threads in [2, 3, 8] {
        assert!(pool(threads).install(run) == alone, "{threads} threads differ from one");
    }
    at_lesser_levels(|| assert!(run() == alone, "bits depend on the vector unit"));
}

/// Where one input alone is a variable, the way back makes its gradient and no other.
#[test]
fn gradients_that_nobody_needs_are_not_made() {
    let mut seen = 0;
    for Op { name, inputs, run: op, .. } in all() {
        let inputs = inputs((2, 3, 6, 5));
        for at in 0..inputs.len() {
            let mut some = inputs.clone();
            some[at] = Var::from_tensor(&inputs[at]).unwrap().into_inner();
            let y = op(&some).unwrap();
            // The last node of several, where an activation follows.
            let Source::Record(record) = Source::of(&y) else { panic!("{name}, input {at}: its result has no record") };
            let made = record.pass(&cotangent(&op, &inputs), false, &mut None, None).unwrap();
            let made: Vec<bool> = made.iter().map(Option::is_some).collect();
            let needed: Vec<bool> = (0..made.len()).map(|i| record.needs(i)).collect();
            assert_eq!(made, needed, "{name}, input {at}");
            seen += usize::from(needed.iter().filter(|&&needed| needed).count() == 1);
        }
    }
    assert!(seen > 50, "only {seen} ways back with one variable");
}

#[test]
fn nothing_is_refused_by_name() {
    let empty = |x: &Tensor| Tensor::zeros([&[0], &x.dims()[1..]].concat(), DType::F32, &Device::Cpu).unwrap();
    for Op { name, inputs, run: op, .. } in all() {
        let inputs = inputs((2, 3, 6, 5));
        for at in 0..inputs.len() {
            let mut some = inputs.clone();
            some[at] = empty(&inputs[at]);
            let text = refusal(op(&some));
            assert!(text.starts_with(&format!("{name}: ")), "{name}, input {at}: {text}");
        }
        let text = refusal(op(&inputs.iter().map(empty).collect::<Vec<_>>()));
        assert!(text.starts_with(&format!("{name}: ")) && text.contains("is empty"), "{name}: {text}");
    }
    let [nothing, other, third] = [(); 3].map(|()| Var::from_tensor(&empty(&draw((2, 3), 1))).unwrap());
    let refused = |result: Result<()>| refusal(result.map(|()| draw(1, 1)));
    let adam = AdamParameter {
        parameter: &nothing,
        gradient: &nothing,
        first_moment: &other,
        second_moment: &third,
        decays: true,
    };
    let settings =
        AdamStep { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-3, weight_decay: 0., gradient_factor: 1. };
    assert_eq!(refused(adam_steps(&[adam], 1, &settings)), "adam_step: parameter is empty: its shape is [0, 3]");
    let settings =
        SgdStep { learning_rate: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.1, gradient_factor: 0.7 };
    let sgd = SgdParameter { parameter: &nothing, gradient: &nothing, velocity: &other, decays: true };
    assert_eq!(refused(sgd_steps(&[sgd], &settings)), "sgd_step: parameter is empty: its shape is [0, 3]");
    assert_eq!(refused(move_towards(&[(&nothing, &other)], 0.5)), "move_towards: value is empty: its shape is [0, 3]");
}

/// Where a number reaches: what changes with it.
fn reach(of: &dyn Fn(f32) -> Vec<f64>) -> Vec<bool> {
    let [base, others @ ..] = [0.31, -0.73, 5.5, -6.5, 0.11].map(of);
    (0..base.len()).map(|at| others.iter().any(|other| other[at].to_bits() != base[at].to_bits())).collect()
}

/// What is wrong unless NaN is wherever the number that it stands for reaches, and among the first `exact` numbers nowhere else; what it does
/// not reach keeps its bits.
fn astray(exact: usize, of: &dyn Fn(f32) -> Vec<f64>) -> Option<String> {
    let (base, nan) = (of(0.31), of(f32::NAN));
    reach(of).into_iter().enumerate().find_map(|(at, reached)| {
        let is_nan = nan[at].is_nan();
        let came = at < exact && nan[at].to_bits() != base[at].to_bits();
        match (reached, is_nan, came) {
            (true, false, _) => Some(format!("NaN is lost at {at}")),
            (false, _, true) => Some(format!("NaN came to {at}, where nothing flows")),
            _ => None,
        }
    })
}

#[test]
fn nan_goes_where_numbers_go_and_no_further() {
    let mut wrong = Vec::new();
    // As in PyTorch a factor 0 makes NaN of what is dropped.
    for Op { name, inputs, run: op, .. } in all().into_iter().filter(|op| op.name != "dropout") {
        let inputs = inputs((2, 3, 17, 18));
        let with = |x: &Tensor, at: usize, value: f32| {
            let mut all: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
            all[at] = value;
            Tensor::from_vec(all, x.shape(), &Device::Cpu).unwrap()
        };
        let places = |x: &Tensor| [0, x.elem_count() / 2, x.elem_count() - 1];
        // Zeros around an image are numbers too, of which a NaN in the kernel or the result's gradient makes NaN.
        let has_padding = name.starts_with("conv");
        for input in 0..inputs.len() {
            for at in places(&inputs[input]) {
                let exact = if has_padding && input == 1 { 0 } else { usize::MAX };
                let astray = astray(exact, &|value| {
                    let mut inputs = inputs.clone();
                    inputs[input] = with(&inputs[input], at, value);
                    values(&op(&inputs).unwrap())
                });
                wrong.extend(astray.map(|astray| format!("{name}, input {input} at {at}: {astray}")));
            }
        }
        let cotangent = cotangent(&op, &inputs);
        for at in places(&cotangent) {
            // The gradient of a single number is a factor of all others.
            let exact = match (cotangent.rank(), has_padding) {
                (0, _) => 0,
                (_, true) => inputs[0].elem_count(),
                _ => usize::MAX,
            };
            let astray = astray(exact, &|value| {
                let (_, gradients) = differentiate(&op, &inputs, &with(&cotangent, at, value));
                gradients.iter().flat_map(values).collect()
            });
            wrong.extend(astray.map(|astray| format!("{name}, gradient at {at}: {astray}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
