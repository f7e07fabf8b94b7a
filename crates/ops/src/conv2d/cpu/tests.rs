//! Every algorithm at every level of the processor against sums as the definition says them, in f64.

use proptest::prelude::*;

use super::{Ending, forward, goes_by_images, input_gradient, parameter_gradients, patches, predict, winograd};
use crate::Activation;
use crate::conv2d::{Conv2d, Exactness, Geometry, geometry};
use crate::kernel::Level;
use crate::verify::{draw, values};

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    draw(len, seed).to_vec1().unwrap()
}

/// Calls `each` with the indices into y, x and the kernel of every product of the convolution.
fn products(g: &Geometry, mut each: impl FnMut(usize, usize, usize)) {
    let (ins, outs) = (g.in_channels / g.groups, g.out_channels / g.groups);
    for n in 0..g.batch {
        for o in 0..g.out_channels {
            for i in 0..ins {
                let channel = n * g.in_channels + o / outs * ins + i;
                for (y, x) in (0..g.output.0).flat_map(|y| (0..g.output.1).map(move |x| (y, x))) {
                    for (ky, kx) in (0..g.kernel.0).flat_map(|y| (0..g.kernel.1).map(move |x| (y, x))) {
                        let row = (y * g.stride.0 + ky * g.dilation.0).wrapping_sub(g.padding.0);
                        let column = (x * g.stride.1 + kx * g.dilation.1).wrapping_sub(g.padding.1);
                        if row < g.input.0 && column < g.input.1 {
                            each(
                                ((n * g.out_channels + o) * g.output.0 + y) * g.output.1 + x,
                                (channel * g.input.0 + row) * g.input.1 + column,
                                ((o * ins + i) * g.kernel.0 + ky) * g.kernel.1 + kx,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// `noise` is the sum of the squares of all products: what the squares of sums of random signs come to. Where sums happen to
/// cancel, errors are measured by it.
#[track_caller]
fn assert_near(what: &str, actual: &[f32], expected: &[f64], noise: f64, tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let error: f64 = actual.iter().zip(expected).map(|(&a, e)| (f64::from(a) - e).powi(2)).sum();
    let size = expected.iter().map(|e| e * e).sum::<f64>().max(noise);
    let error = if size > 0. { (error / size).sqrt() } else { error.sqrt() };
    assert!(error <= tolerance, "{what}: relative error {error:e} exceeds {tolerance:e}");
}

type Shape = (usize, usize, usize, usize);

/// All three directions of one convolution, on every path.
fn check(x: Shape, weight: Shape, spec: Conv2d) {
    check_in_pools(x, weight, spec, &[]);
}

/// [`check`], and the same bits in pools of so many threads.
fn check_in_pools(x: Shape, weight: Shape, spec: Conv2d, threads: &[usize]) {
    let g = geometry(&draw(x, 0), &draw(weight, 0), None, spec).unwrap();
    let (ins, outs) =
        (g.batch * g.in_channels * g.input.0 * g.input.1, g.batch * g.out_channels * g.output.0 * g.output.1);
    let (x, y) = (numbers(ins, 1), numbers(outs, 2));
    let kernel = numbers(values(&draw(weight, 0)).len(), 3);
    let [bias, bias_back] = [numbers(g.out_channels, 4), numbers(g.in_channels, 5)];
    let spread = |bias: &[f32], images: usize, pixels: usize| -> Vec<f64> {
        let channels = bias.len();
        (0..images * channels * pixels).map(|at| f64::from(bias[at / pixels % channels])).collect()
    };
    let mut forth = spread(&bias, g.batch, g.output.0 * g.output.1);
    let mut back = spread(&bias_back, g.batch, g.input.0 * g.input.1);
    let mut gradient = vec![0.; kernel.len()];
    let mut noise = [0.; 3];
    products(&g, |at_y, at_x, at_kernel| {
        let (x, y, kernel) = (f64::from(x[at_x]), f64::from(y[at_y]), f64::from(kernel[at_kernel]));
        forth[at_y] += x * kernel;
        back[at_x] += y * kernel;
        gradient[at_kernel] += x * y;
        for (noise, product) in noise.iter_mut().zip([x * kernel, y * kernel, x * y]) {
            *noise += product * product;
        }
    });
    let (mut sums, mut noise_of_sums) = (vec![0.; g.out_channels], 0.);
    for (at, &y) in y.iter().enumerate() {
        sums[at / (g.output.0 * g.output.1) % g.out_channels] += f64::from(y);
        noise_of_sums += f64::from(y * y);
    }
    for exactness in [Exactness::Fast, Exactness::Direct] {
        let mut vector_units: Vec<[Vec<f32>; 5]> = Vec::new();
        for level in Level::all() {
            let g = Geometry { exactness, level, ..g };
            let (output, gradients) = if exactness == Exactness::Fast { (1e-5, 2e-5) } else { (1e-6, 1e-6) };
            let compute = || {
                let (weight, bias_gradient) = parameter_gradients(&g, g.images(&x), &y, [true; 2]);
                [
                    forward(&g, g.images(&x), &kernel, Some(&bias)),
                    input_gradient(&g, &y, &kernel, Some(&bias_back)),
                    weight.unwrap().values,
                    bias_gradient.unwrap(),
                    predict(&g, g.images(&x), &kernel, Ending::bias(Some(&bias))),
                ]
            };
            let results = compute();
            for &threads in threads {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(pool.install(compute) == results, "{threads} threads differ: {g:?}");
            }
            assert_near(&format!("forward of {g:?}"), &results[0], &forth, noise[0], output);
            assert_near(&format!("input gradient of {g:?}"), &results[1], &back, noise[1], gradients);
            assert_near(&format!("weight gradient of {g:?}"), &results[2], &gradient, noise[2], gradients);
            assert_near(&format!("bias gradient of {g:?}"), &results[3], &sums, noise_of_sums, 1e-6);
            assert_near(&format!("prediction of {g:?}"), &results[4], &forth, noise[0], output);
            if level != Level::Portable {
                vector_units.push(results);
            }
        }
        assert!(
            vector_units.windows(2).all(|pair| pair[0] == pair[1]),
            "levels with vector units differ in bits: {g:?}"
        );
    }
}

#[test]
fn layers_of_networks() {
    let check = |x: Shape, weight: Shape, spec: Conv2d| check_in_pools(x, weight, spec, &[1, 2, 3, 8]);
    // Few tiles and many kernels; many tiles and few kernels; several segments to a row; parts of a weight gradient.
    check((1, 130, 9, 11), (140, 130, 3, 3), Conv2d::new(1, 1));
    check((1, 150, 24, 23), (130, 150, 3, 3), Conv2d::new(1, 1));
    check((2, 18, 40, 70), (20, 18, 3, 3), Conv2d::new(1, 1));
    check((1, 3, 5, 300), (9, 3, 3, 3), Conv2d::new(1, 1));
    // Large tiles of predictions: channels that fill no panel, and results that fill no tile.
    check((2, 33, 23, 35), (41, 33, 3, 3), Conv2d::new(1, 1));
    check((1, 16, 20, 6), (16, 16, 3, 2), Conv2d { padding: (0, 2), ..Conv2d::default() });
    check((1, 70, 17, 15), (70, 70, 4, 4), Conv2d::new(2, 1));
    check((2, 6, 34, 30), (24, 6, 4, 4), Conv2d::new(2, 1));
    check((2, 33, 12, 14), (17, 33, 2, 2), Conv2d::new(2, 0));
    check((2, 20, 30, 31), (19, 20, 1, 1), Conv2d::default());
    check((2, 20, 31, 30), (40, 20, 1, 1), Conv2d::new(2, 0));
    check((1, 9, 17, 20), (12, 9, 1, 2), Conv2d::new(2, 0));
    check((2, 130, 8, 8), (140, 130, 4, 4), Conv2d::default());
    check((2, 9, 61, 49), (20, 9, 4, 4), Conv2d::new(1, 2));
    // Gradients of images that are spread from few tiles: odd sizes, a row that no kernel sees, and so many tiles that points take turns.
    check((2, 150, 19, 16), (130, 150, 4, 4), Conv2d::new(2, 1));
    check((2, 130, 13, 10), (135, 130, 4, 4), Conv2d::new(2, 0));
    check((1, 130, 12, 15), (129, 130, 4, 4), Conv2d::new(1, 0));
    check((1, 130, 7, 9), (129, 130, 3, 3), Conv2d::default());
    check((2, 130, 15, 17), (129, 130, 3, 3), Conv2d::new(2, 1));
    check((1, 130, 18, 14), (129, 130, 4, 3), Conv2d { padding: (2, 0), ..Conv2d::new(2, 0) });
    check((4, 12, 56, 57), (400, 12, 4, 4), Conv2d::new(2, 1));
    // A sum over many pixels that few others average out.
    check((1, 1, 36, 60), (10, 1, 1, 1), Conv2d { padding: (2, 1), ..Conv2d::default() });
    // One tap and few channels: a tile and a bit, rows and columns of sums that are left over, and the most channels that are few.
    check((2, 5, 37, 29), (19, 5, 1, 1), Conv2d::default());
    check((3, 16, 16, 16), (11, 16, 1, 1), Conv2d::default());
    check((1, 64, 33, 40), (64, 64, 1, 1), Conv2d::default());
    check((1, 1, 70, 70), (1, 1, 1, 1), Conv2d::default());
    // Few taps: vectors of one, two and four to a row and a rest, channels and taps that are left over, bands of several images, as many taps as
    // are few, and padding wider than the image.
    check((3, 3, 37, 70), (16, 3, 3, 3), Conv2d::new(1, 1));
    check((2, 3, 21, 33), (7, 3, 3, 3), Conv2d::default());
    check((2, 2, 20, 16), (5, 2, 4, 4), Conv2d { padding: (0, 1), ..Conv2d::default() });
    check((1, 32, 16, 16), (32, 32, 1, 1), Conv2d { padding: (1, 0), ..Conv2d::default() });
    check((1, 1, 70, 150), (32, 1, 5, 5), Conv2d::new(1, 2));
    check((1, 3, 18, 2), (3, 3, 1, 2), Conv2d { padding: (0, 9), ..Conv2d::default() });
    // Patches side by side: fewer than are computed at once, channels that fill no block, and few patches of many channels.
    check((2, 3, 6, 16), (5, 3, 2, 2), Conv2d::new(2, 0));
    check((3, 21, 22, 48), (9, 21, 2, 2), Conv2d::new(2, 0));
    check((4, 70, 16, 16), (150, 70, 2, 2), Conv2d::new(2, 0));
    // Large kernels and few pixels.
    check((2, 90, 6, 7), (270, 90, 5, 5), Conv2d::new(1, 2));
    check((3, 201, 9, 7), (133, 201, 5, 5), Conv2d { dilation: (1, 1), ..Conv2d::new(3, 2) });
}

/// Two sums of one size, as in [`patches`] and in tiles of one result.
fn assert_same_by_patches_and_tiles(x: Shape, outs: usize) {
    let weight = draw((outs, x.1, 2, 2), 1);
    let g = geometry(&draw(x, 0), &weight, None, Conv2d::new(2, 0)).unwrap();
    assert!(patches::serves(&g), "{g:?}");
    let weight = numbers(4 * outs * x.1, 2);
    let (x, y) = (numbers(x.0 * x.1 * x.2 * x.3, 3), numbers(x.0 * outs * x.2 * x.3 / 4, 4));
    let (scale, shift) = (numbers(outs.max(g.in_channels), 5), numbers(outs.max(g.in_channels), 6));
    let endings = [
        Ending::bias(None),
        Ending { scale: Some(&scale), shift: Some(&shift), activation: Activation::LeakyRelu(0.2) },
        Ending { scale: None, shift: Some(&shift), activation: Activation::Relu },
    ];
    for (level, ending) in Level::all().into_iter().flat_map(|level| endings.map(|ending| (level, ending))) {
        let g = Geometry { level, ..g };
        let by_tiles = winograd::forward(&g, g.images(&x), &weight, ending).unwrap();
        assert!(patches::forward(&g, &x, &weight, ending) == by_tiles, "forward of {g:?}");
        let [by_tiles, _] = winograd::input_gradient(&g, &y, &weight, ending, g.in_channels).unwrap();
        let [by_patches, _] = patches::input_gradient(&g, &y, &weight, ending, g.in_channels).unwrap();
        assert!(by_patches == by_tiles, "input gradient of {g:?}");
    }
}

#[test]
fn patches_have_the_bits_of_tiles() {
    // Those of a U-Net; sums in parts; rows of patches that end within those computed at once.
    assert_same_by_patches_and_tiles((2, 16, 32, 64), 32);
    assert_same_by_patches_and_tiles((1, 128, 16, 16), 256);
    assert_same_by_patches_and_tiles((1, 300, 10, 16), 130);
    assert_same_by_patches_and_tiles((2, 7, 18, 80), 33);
}

#[test]
fn large_tiles_are_for_predictions_of_large_images_of_some_channels() {
    let predicted = |x: (usize, usize, usize, usize), outs: usize, spec: Conv2d| {
        let weight = draw((outs, x.1, 3, 3), 1);
        let g = geometry(&draw(x, 0), &weight, None, spec).unwrap();
        let (x, weight) = (numbers(values(&draw(x, 0)).len(), 2), numbers(values(&weight).len(), 3));
        let by = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| winograd::forward_in_large_tiles(&g, g.images(&x), &weight, Ending::bias(None)))
        };
        let y = by(1);
        for threads in [2, 3, 8] {
            assert!(by(threads) == y, "{threads} threads differ from one");
        }
        // What is learned from is in smaller tiles, and has other bits.
        assert!(y.as_ref().is_none_or(|y| *y != forward(&g, g.images(&x), &weight, None)));
        y.is_some()
    };
    let fast = Conv2d::new(1, 1);
    assert!(predicted((1, 16, 128, 128), 16, fast) && predicted((2, 128, 64, 64), 64, fast));
    // A size that smaller tiles fit better, few channels, many kernels, a stride, and sums alone.
    assert!(!predicted((1, 16, 32, 32), 16, fast) && !predicted((1, 15, 64, 64), 16, fast));
    assert!(!predicted((1, 128, 64, 64), 65, fast) && !predicted((1, 16, 64, 64), 16, Conv2d::new(2, 1)));
    assert!(!predicted((1, 16, 64, 64), 16, Conv2d { exactness: Exactness::Direct, ..fast }));
}

#[test]
fn threads_keep_to_their_images_where_these_are_large_and_soon_done() {
    let of = |x: Shape, outs, kernel, spec| {
        goes_by_images(&geometry(&draw(x, 0), &draw((outs, x.1, kernel, kernel), 1), None, spec).unwrap())
    };
    let same = Conv2d::new(1, 1);
    assert!(of((4, 16, 128, 128), 16, 3, same) && of((4, 32, 128, 128), 16, 3, same));
    // A transposed one, seen from its result, and few results of a large image.
    assert!(of((4, 16, 128, 128), 32, 2, Conv2d::new(2, 0)) && of((4, 16, 128, 128), 3, 1, Conv2d::new(1, 0)));
    assert!(!of((2, 16, 128, 128), 16, 3, same) && !of((4, 32, 64, 64), 32, 3, same));
    assert!(!of((4, 32, 128, 128), 32, 3, same));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// What Winograd serves: square strides up to 2, kernels up to 4.
    #[test]
    fn any_shape_that_may_be_transformed(
        (n, ins, outs) in (1usize..3, 1usize..20, 1usize..36),
        (h, w, kernel, kernel_w) in (1usize..71, 1usize..71, 1usize..5, 1usize..5),
        (stride, padding, padding_w) in (1usize..3, 0usize..4, 0usize..4),
    ) {
        prop_assume!(h + 2 * padding >= kernel && w + 2 * padding_w >= kernel_w);
        let spec = Conv2d { padding: (padding, padding_w), ..Conv2d::new(stride, 0) };
        check((n, ins, h, w), (outs, ins, kernel, kernel_w), spec);
    }

    #[test]
    fn any_patches_side_by_side(
        (n, ins, outs) in (1usize..3, 1usize..40, 1usize..40),
        (h, eights) in (1usize..12, 1usize..5),
    ) {
        check((n, ins, 2 * h, 16 * eights), (outs, ins, 2, 2), Conv2d::new(2, 0));
        assert_same_by_patches_and_tiles((n, ins, 2 * h, 16 * eights), outs);
    }

    /// Anything at all.
    #[test]
    fn any_shape(
        (n, groups, h, w) in (1usize..3, 1usize..4, 1usize..40, 1usize..40),
        (ins, outs, kernel, kernel_w) in (1usize..9, 1usize..9, 1usize..6, 1usize..6),
        (sy, sx, py, px, dy, dx) in (1usize..4, 1usize..4, 0usize..4, 0usize..4, 1usize..3, 1usize..3),
    ) {
        prop_assume!(h + 2 * py > dy * (kernel - 1) && w + 2 * px > dx * (kernel_w - 1));
        let spec =
            Conv2d { stride: (sy, sx), padding: (py, px), dilation: (dy, dx), groups, exactness: Exactness::Fast };
        check((n, ins * groups, h, w), (outs * groups, ins, kernel, kernel_w), spec);
    }
}
