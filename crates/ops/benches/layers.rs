//! Times single layers: `cargo bench -p img2seg-ops --bench layers -- [--cpu] [--arithmetic=avx2] [FILTER]`, median and minimum in ms of
//! forward and each gradient.
//!
//! `tests/pytorch/layer_times.py` times PyTorch's. Gradients are timed as `backward` of the layer alone. `RAYON_NUM_THREADS` sets the
//! threads. The allocator is the program's; `MIMALLOC_PURGE_DELAY=-1` keeps it from returning memory, as the program does.

use std::sync::LazyLock;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use img2seg_ops::{
    Activation, AdamStep, BySize, Conv2d, ConvTranspose2d, Resize, adam_step, add, backward, batch_norm_eval,
    batch_norm_train, bce_with_logits, cat, charbonnier, conv_transpose2d, conv2d, cross_entropy, dice, dropout, focal,
    global_avg_pool, group_norm, hinge, instance_norm, l1, leaky_relu, least_squares, limit_arithmetic, lovasz_softmax,
    max_pool2d, mse, relu, resize, sigmoid, softmax, tanh,
};
use mimalloc::MiMalloc;

/// By the system's, which begins where lines of the cache do not, a pass over memory takes up to twice as long.
#[global_allocator]
static ALLOCATOR: BySize<MiMalloc> = BySize::new(MiMalloc);

const ROUNDS: usize = 15;

/// Seconds of wall time, or with `--cpu` of processor time of all threads: what to compare on a busy machine.
fn now() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    static OF_PROCESSOR: LazyLock<bool> = LazyLock::new(|| std::env::args().any(|argument| argument == "--cpu"));
    if *OF_PROCESSOR { processor_time() } else { START.elapsed().as_secs_f64() }
}

#[cfg(unix)]
fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(not(unix))]
fn processor_time() -> f64 {
    panic!("--cpu: processor time is read on Unix only");
}

/// Median and minimum of the work in ms, without its preparation.
fn time<T>(prepare: impl Fn() -> Result<T>, work: impl Fn(T) -> Result<Tensor>) -> Result<(f64, f64)> {
    work(prepare()?)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let prepared = prepare()?;
        let start = now();
        let result = work(prepared)?;
        times.push((now() - start) * 1e3);
        drop(result);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[ROUNDS / 2], times[0]))
}

/// Values in -1..1.
fn draw(shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let values =
        (0..shape.elem_count() as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.);
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu)
}

/// Times the op forward, and backward for each of its inputs alone.
fn report(name: &str, inputs: &[Tensor], op: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    if std::env::args().skip(1).any(|filter| !filter.starts_with('-') && !name.contains(&filter)) {
        return Ok(());
    }
    let (median, minimum) = time(|| Ok(()), |()| op(inputs))?;
    print!("{name:<34} {median:8.2} {minimum:8.2}");
    for at in 0..inputs.len() {
        let mut inputs = inputs.to_vec();
        inputs[at] = Var::from_tensor(&inputs[at])?.into_inner();
        let gradient = |y| Ok(backward(y)?.get(&inputs[at]).expect("the input is a variable").clone());
        let (median, minimum) = time(|| op(&inputs), gradient)?;
        print!(" {median:8.2} {minimum:8.2}");
    }
    println!();
    Ok(())
}

fn main() -> Result<()> {
    for argument in std::env::args() {
        if let Some(name) = argument.strip_prefix("--arithmetic=") {
            limit_arithmetic(name)?;
        }
    }
    println!("{:<34} {:>17} {:>17} {:>17} {:>17}", "ms, median and minimum", "forward", "d/dx", "d/dweight", "d/dbias");
    for (n, i, o, size) in [
        (4, 3, 16, 128),
        (4, 16, 16, 128),
        (4, 32, 16, 128),
        (4, 32, 32, 128),
        (4, 64, 64, 128),
        (4, 32, 32, 64),
        (4, 64, 64, 64),
        (4, 128, 128, 32),
        (4, 256, 256, 16),
        (4, 256, 256, 8),
        (1, 512, 512, 16),
    ] {
        let inputs = [draw((n, i, size, size))?, draw((o, i, 3, 3))?, draw(o)?];
        report(&format!("conv 3x3 {n} {i}->{o} @{size}"), &inputs, &|x| {
            conv2d(&x[0], &x[1], Some(&x[2]), Conv2d::new(1, 1))
        })?;
    }
    for (n, i, o, size) in [(4, 6, 64, 128), (4, 64, 128, 64), (4, 128, 256, 32), (4, 256, 512, 16)] {
        let inputs = [draw((n, i, size, size))?, draw((o, i, 4, 4))?];
        report(&format!("conv 4x4 s2 {n} {i}->{o} @{size}"), &inputs, &|x| {
            conv2d(&x[0], &x[1], None, Conv2d::new(2, 1))
        })?;
    }
    let inputs = [draw((4, 512, 8, 8))?, draw((1024, 512, 4, 4))?];
    report("conv 4x4 s1 4 512->1024 @8", &inputs, &|x| conv2d(&x[0], &x[1], None, Conv2d::default()))?;
    let inputs = [draw((4, 16, 128, 128))?, draw((19, 16, 1, 1))?, draw(19)?];
    report("conv 1x1 4 16->19 @128", &inputs, &|x| conv2d(&x[0], &x[1], Some(&x[2]), Conv2d::default()))?;
    let inputs = [draw((4, 64, 64, 64))?, draw((128, 64, 1, 1))?];
    report("conv 1x1 s2 4 64->128 @64", &inputs, &|x| conv2d(&x[0], &x[1], None, Conv2d::new(2, 0)))?;
    for (n, i, o, kernel, size) in
        [(4, 32, 16, 2, 64), (4, 64, 32, 2, 64), (4, 256, 128, 2, 8), (4, 128, 64, 4, 32), (4, 512, 256, 4, 8)]
    {
        let inputs = [draw((n, i, size, size))?, draw((i, o, kernel, kernel))?];
        let spec = ConvTranspose2d::new(2, (kernel - 2) / 2);
        report(&format!("conv_transpose {kernel}x{kernel} s2 {n} {i}->{o} @{size}"), &inputs, &|x| {
            conv_transpose2d(&x[0], &x[1], None, spec)
        })?;
    }
    for (c, size) in [(16, 128), (64, 128), (128, 64), (256, 16)] {
        let inputs = [draw((4, c, size, size))?, draw(c)?, draw(c)?];
        report(&format!("batch_norm relu train 4 {c} @{size}"), &inputs, &|x| {
            Ok(batch_norm_train(&x[0], &x[1], &x[2], 1e-5, Activation::Relu)?.0)
        })?;
        let (mean, variance) = (draw(c)?, (draw(c)? + 2.)?);
        report(&format!("batch_norm relu eval 4 {c} @{size}"), &inputs, &|x| {
            batch_norm_eval(&x[0], &x[1], &x[2], &mean, &variance, 1e-5, Activation::Relu)
        })?;
    }
    let x = [draw((4, 32, 128, 128))?];
    report("max_pool 4 32 @128", &x, &|x| max_pool2d(&x[0], 2))?;
    report("relu 4 32 @128", &x, &|x| relu(&x[0]))?;
    report("leaky_relu 4 32 @128", &x, &|x| leaky_relu(&x[0], 0.2))?;
    report("tanh 4 32 @128", &x, &|x| tanh(&x[0]))?;
    report("sigmoid 4 32 @128", &x, &|x| sigmoid(&x[0]))?;
    let keep = draw((4, 32, 128, 128))?.ge(0f32)?.to_dtype(DType::F32)?;
    report("dropout 4 32 @128", &x, &|x| dropout(&x[0], &keep, 0.5))?;
    report("global_avg_pool 4 32 @128", &x, &|x| global_avg_pool(&x[0]))?;
    report("resize nearest 4 32 @128 to 256", &x, &|x| resize(&x[0], 256, 256, Resize::Nearest))?;
    report("resize bilinear 4 32 @128 to 256", &x, &|x| resize(&x[0], 256, 256, Resize::Bilinear))?;
    let two = [x[0].clone(), (&x[0] * 0.5)?];
    report("add relu 4 32 @128", &two, &|x| add(&x[0], &x[1], Activation::Relu))?;
    report("cat 4 32 + 32 @128", &two, &|x| cat(&[&x[0], &x[1]]))?;
    let normed = [x[0].clone(), draw(32)?, draw(32)?];
    report("instance_norm 4 32 @128", &normed, &|x| {
        instance_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-5, Activation::None)
    })?;
    report("group_norm 8 groups 4 32 @128", &normed, &|x| group_norm(&x[0], 8, &x[1], &x[2], 1e-5, Activation::None))?;
    let labels: Vec<u32> = (0..4 * 128 * 128).map(|i| i % 19).collect();
    let labels = Tensor::from_vec(labels, (4, 128, 128), &Device::Cpu)?;
    report("cross_entropy 4 19 @128", &[draw((4, 19, 128, 128))?], &|x| cross_entropy(&x[0], &labels, None))?;
    let labels: Vec<u32> = (0..4 * 128 * 128).map(|i| i / 1000 % 11).collect();
    let (labels, logits) = (Tensor::from_vec(labels, (4, 128, 128), &Device::Cpu)?, [draw((4, 11, 128, 128))?]);
    report("softmax 4 11 @128", &logits, &|x| softmax(&x[0]))?;
    report("focal 4 11 @128", &logits, &|x| focal(&x[0], &labels, 2., None))?;
    report("dice 4 11 @128", &logits, &|x| dice(&x[0], &labels, None))?;
    report("lovasz_softmax 4 11 @128", &logits, &|x| lovasz_softmax(&x[0], &labels))?;
    report("bce_with_logits 4 1 @32", &[draw((4, 1, 32, 32))?], &|x| bce_with_logits(&x[0], 1.))?;
    let target = draw((4, 3, 128, 128))?;
    let photos = [draw((4, 3, 128, 128))?];
    report("mse 4 3 @128", &photos, &|x| mse(&x[0], &target))?;
    report("l1 4 3 @128", &photos, &|x| l1(&x[0], &target))?;
    report("charbonnier 4 3 @128", &photos, &|x| charbonnier(&x[0], &target, 1e-3))?;
    report("least_squares 4 3 @128", &photos, &|x| least_squares(&x[0], 1.))?;
    report("hinge 4 3 @128", &photos, &|x| hinge(&x[0], 1.))?;
    steps()
}

fn steps() -> Result<()> {
    let zeros = Tensor::zeros(4 << 20, DType::F32, &Device::Cpu)?;
    let [parameter, first, second] = [Var::from_tensor(&zeros)?, Var::from_tensor(&zeros)?, Var::from_tensor(&zeros)?];
    let gradient = draw(4 << 20)?;
    let settings = AdamStep {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.,
        gradient_factor: 1.,
    };
    report("adam_step 4 Mi parameters", &[], &|_| {
        adam_step(&parameter, &gradient, &first, &second, 1, &settings)?;
        Ok(parameter.as_detached_tensor())
    })
}
