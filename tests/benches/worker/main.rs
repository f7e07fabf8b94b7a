//! Our side of `cargo xtask bench`: `worker DEVICE EXACTNESS CASE...` builds one case and takes its steps as often as it is told.
//!
//! Its first line is `ready N`, where N is what both sides must agree on (trained numbers, or images), or `error TEXT`. Each line `run K`
//! is answered by the milliseconds of K steps, and `memory` by the most MiB that the case has had of a GPU's memory. It ends when its input does. `tests/pytorch/bench.py` is the other side.

mod layer;
mod loading;
mod networks;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use img2seg_ops::{Algorithms, BySize, Exactness};
use mimalloc::MiMalloc;

/// The program's allocator, so that what is timed is what its users get.
#[global_allocator]
static ALLOCATOR: BySize<MiMalloc> = BySize::new(MiMalloc);

/// What is timed.
struct Case {
    /// Trained numbers, or images a step: equal on both sides if they do the same.
    size: usize,
    step: Box<dyn FnMut() -> Result<()>>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without a case, as `cargo test` and `cargo bench` run it, every kind is tried that needs no data.
    let alone = arguments.first().is_none_or(|first| first == "--bench");
    let done = if alone { try_cases() } else { serve(&arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// Builds the case, and answers until the input ends. Steps are asked for by the main thread, which is one of the pool, as the program's is.
fn serve(arguments: &[String]) -> Result<()> {
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [device, exactness, words @ ..] = &words[..] else { bail!("DEVICE EXACTNESS CASE...: missing") };
    let device = match *device {
        "cpu" => Device::Cpu,
        "cuda" => img2seg_ops::cuda_device(0, Algorithms::Deterministic)?,
        "cuda-fastest" => img2seg_ops::cuda_device(0, Algorithms::Fastest)?,
        other => bail!("{other}: not one of cpu, cuda, cuda-fastest"),
    };
    let exactness = exactness_of(exactness)?;
    for refusal in img2seg_ops::cuda_refusals(&device, exactness) {
        eprintln!("{refusal}");
    }
    let mut case = build(words, exactness, &device)?;
    answer(&format!("ready {}", case.size))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line == "memory" {
            let bytes = img2seg_ops::cuda_peak_memory(&device)?.context("memory: not of this device")?;
            answer(&format!("{:.3}", bytes as f64 / f64::from(1 << 20)))?;
            continue;
        }
        let steps = line.strip_prefix("run ").with_context(|| format!("{line}: not `run K`"))?;
        let steps = number(steps)?;
        let start = Instant::now();
        for _ in 0..steps {
            (case.step)()?;
        }
        device.synchronize()?;
        answer(&format!("{:.6}", start.elapsed().as_secs_f64() * 1e3))?;
    }
    Ok(())
}

/// One step of small cases.
fn try_cases() -> Result<()> {
    for case in [
        "train unet 2 64 1",
        "infer unet 2 64 1",
        "train cgan 2 64 1",
        "infer cgan 2 64 1",
        "layer conv 3 1 1 2 3 8 1",
        "layer conv-transpose 2 2 0 3 2 4 1",
    ] {
        let words: Vec<&str> = case.split(' ').collect();
        (build(&words, Exactness::Fast, &Device::Cpu).context(case)?.step)().context(case)?;
    }
    Ok(())
}

fn exactness_of(word: &str) -> Result<Exactness> {
    Ok(match word {
        "fast" => Exactness::Fast,
        "direct" => Exactness::Direct,
        "bf16" => Exactness::Bf16,
        other => bail!("{other}: not one of fast, direct, bf16"),
    })
}

fn build(words: &[&str], exactness: Exactness, device: &Device) -> Result<Case> {
    match words {
        [kind @ ("train" | "infer"), network, numbers @ ..] => {
            let [base, size, batch] = all_numbers(numbers)?;
            networks::build(*kind == "train", network, [base, size, batch], exactness, device)
        }
        ["layer", kind, numbers @ ..] => layer::build(kind, all_numbers(numbers)?, exactness, device),
        ["load", format, numbers @ .., folder] => loading::build(format, folder.as_ref(), all_numbers(numbers)?),
        _ => bail!("{}: no such case", words.join(" ")),
    }
}

fn all_numbers<const N: usize>(words: &[&str]) -> Result<[usize; N]> {
    ensure!(words.len() == N, "{}: not {N} numbers", words.join(" "));
    let numbers: Vec<usize> = words.iter().map(|word| number(word)).collect::<Result<_>>()?;
    Ok(std::array::from_fn(|i| numbers[i]))
}

fn number(word: &str) -> Result<usize> {
    word.parse().with_context(|| format!("{word}: not a number"))
}

fn answer(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
