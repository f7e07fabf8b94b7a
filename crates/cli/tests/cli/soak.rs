//! A long run: memory, open files and speed stay as they are.
#![cfg(target_os = "linux")]

use std::fs;
use std::time::Instant;

use crate::lab::Lab;
use crate::running::Running;

const EPOCHS: usize = 500;
const STEPS_PER_EPOCH: usize = 40;

/// What a process holds.
#[derive(Debug)]
struct Holding {
    resident_mib: f64,
    files: usize,
    threads: usize,
}

impl Holding {
    fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let number = |key: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            resident_mib: number("VmRSS:") / 1024.0,
            files: fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
            threads: number("Threads:") as usize,
        }
    }
}

/// `cargo xtask ci --full` runs it.
#[test]
#[ignore = "takes minutes"]
fn twenty_thousand_steps_hold_no_more_than_a_thousand() {
    let lab = Lab::new();
    (3..2 * STEPS_PER_EPOCH as u32).for_each(|index| lab.save_pair(&format!("pairs/train/{index}.png"), 64, index));
    let arguments = format!(
        "train smoke-unet --data pairs --run run --set epochs={EPOCHS} --set evaluation.samples_every_epochs=100 --set checkpoint.every_steps=0"
    );
    let mut running = Running::start(lab.command(&arguments));
    let mut held = Vec::new();
    let mut last = Instant::now();
    println!("   step  resident MiB  files  threads  steps/s");
    for epoch in (EPOCHS / 20..=EPOCHS - EPOCHS / 20).step_by(EPOCHS / 20) {
        running.wait_for(&format!("epoch {epoch:>3}/{EPOCHS}"));
        let holding = Holding::of(running.id());
        let rate = (STEPS_PER_EPOCH * EPOCHS / 20) as f64 / last.elapsed().as_secs_f64();
        last = Instant::now();
        println!(
            "{:>7}  {:>12.1}  {:>5}  {:>7}  {rate:>7.1}",
            epoch * STEPS_PER_EPOCH,
            holding.resident_mib,
            holding.files,
            holding.threads
        );
        held.push((holding, rate));
    }
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(lab.path("run/losses.txt")).unwrap().lines().count(), 1 + STEPS_PER_EPOCH * EPOCHS);

    let (first, end) = (&held[0].0, &held[held.len() - 1].0);
    assert!(end.resident_mib < 1.1 * first.resident_mib + 4.0, "memory grows: {first:?}, {end:?}");
    assert!(end.files <= first.files + 1 && end.threads <= first.threads + 1, "{first:?}, {end:?}");
    // Half at least: the machine may have other work.
    let rate = |range: std::ops::Range<usize>| {
        let mut rates: Vec<f64> = held[range].iter().map(|(_, rate)| *rate).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (early, late) = (rate(1..held.len() / 2), rate(held.len() / 2..held.len()));
    assert!(late > early / 2.0, "from {early} to {late} steps a second");
}
