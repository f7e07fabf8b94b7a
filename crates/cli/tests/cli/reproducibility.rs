//! The real program: the same bytes for any number of threads, with and without a cache, and however often it is killed.
#![cfg(unix)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::lab::{Lab, files_below};

const RECIPES: [&str; 4] = ["smoke-unet", "smoke-cgan", "smoke-adversarial", "smoke-cvae"];

/// Eight pairs for training: four steps an epoch.
fn lab() -> Lab {
    let lab = Lab::new();
    (3..8).for_each(|index| lab.save_pair(&format!("pairs/train/{index}.png"), 64, index));
    lab
}

/// What has to be equal: losses, scores, samples, recipe, classes, and the checkpoints `last` and `best`.
fn left(lab: &Lab, run: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let kept = [
        "losses.txt",
        "metrics.jsonl",
        "digests.jsonl",
        "classes.toml",
        "samples",
        "checkpoints/last",
        "checkpoints/best",
    ];
    let mut files = files_below(&lab.path(run));
    files.retain(|(path, _)| kept.iter().any(|kept| path.starts_with(kept)));
    assert!(files.len() >= 12, "{:?}", files.iter().map(|(path, _)| path).collect::<Vec<_>>());
    files
}

fn assert_same(one: &[(PathBuf, Vec<u8>)], other: &[(PathBuf, Vec<u8>)], what: &str) {
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(one), names(other), "{what}");
    for ((path, bytes), (_, others)) in one.iter().zip(other) {
        assert!(bytes == others, "{what}: {} differs", path.display());
    }
}

#[test]
fn threads_cache_and_load_change_no_byte() {
    for recipe in RECIPES {
        let lab = lab();
        lab.succeed(&format!("train {recipe} --data pairs --run once"));
        let once = left(&lab, "once");
        for (index, arguments) in [
            "--threads 1",
            "--threads 2 --set data.cache_mib=0",
            "--threads 3",
            "--threads 8 --set data.cache_mib=0",
            // Two at a time get in each other's way.
            "--threads 8",
        ]
        .into_iter()
        .enumerate()
        {
            let run = format!("run-{index}");
            let rival = (index == 4).then(|| lab.command(&format!("train {recipe} --data pairs --run rival")));
            let rival = rival.map(|mut rival| rival.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
            lab.succeed(&format!("train {recipe} --data pairs --run {run} {arguments}"));
            if let Some(mut rival) = rival {
                assert!(rival.wait().unwrap().success());
                assert_same(&once, &left(&lab, "rival"), recipe);
            }
            assert_same(&once, &left(&lab, &run), &format!("{recipe} {arguments}"));
        }
    }
}

/// Kills and resumes a run until it has come to its end, and compares it with one that was left alone.
///
/// It saves after each step, so that kills fall into saving as well as into steps, scoring, and the files of the beginning and the end.
fn kill(recipe: &str, kills: usize, seed: u64) -> (usize, usize) {
    let lab = lab();
    let arguments = format!(
        "train {recipe} --data pairs --set epochs=6 --set checkpoint.every_steps=1 --set evaluation.samples_every_epochs=3"
    );
    let started = Instant::now();
    lab.succeed(&format!("{arguments} --run whole"));
    let whole = left(&lab, "whole");
    let length = started.elapsed().as_secs_f64();
    let mut random = seed;
    let (mut done, mut while_saving) = (0, 0);
    for round in 0.. {
        let run = format!("run-{round}");
        let mut killed = 0;
        loop {
            // A directory without a recipe is none yet: it is begun again.
            let begun = lab.path(&run).join("config.toml").is_file();
            let arguments = if begun { format!("train {recipe} --resume") } else { arguments.clone() };
            let mut command: Command = lab.command(&format!("{arguments} --run {run}"));
            let mut program = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (random >> 33) as f64 / (1u64 << 31) as f64;
            if done < kills {
                thread::sleep(Duration::from_secs_f64(length * 0.7 * share));
                if program.try_wait().unwrap().is_none() {
                    program.kill().unwrap();
                    program.wait().unwrap();
                    done += 1;
                    killed += 1;
                    let unfinished = |folder: &str| {
                        let entries = fs::read_dir(lab.path(&run).join(folder)).into_iter().flatten();
                        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(".writing-"))
                    };
                    while_saving += usize::from(["", "checkpoints", "samples"].into_iter().any(unfinished));
                    continue;
                }
            }
            let output = program.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{recipe}, seed {seed}, after {killed} kills: {said}");
            assert!(!said.contains("warning: "), "{recipe}, seed {seed}, after {killed} kills: {said}");
            break;
        }
        assert_same(&whole, &left(&lab, &run), &format!("{recipe}, seed {seed}, killed {killed} times"));
        let unfinished = files_below(&lab.path(&run));
        let unfinished: Vec<_> =
            unfinished.iter().filter(|(path, _)| path.to_string_lossy().contains(".writing-")).collect();
        assert!(unfinished.iter().all(|(path, _)| path.starts_with("evaluation")), "{recipe}: left over");
        if done >= kills {
            return (round + 1, while_saving);
        }
    }
    unreachable!("rounds have no end")
}

#[test]
fn killed_at_random_a_run_comes_to_the_same_end() {
    for (recipe, seed) in RECIPES.into_iter().zip(1..) {
        kill(recipe, 4, seed);
    }
}

/// `cargo xtask ci --full` runs it; the seed is another each time.
#[test]
#[ignore = "takes minutes"]
fn killed_fifty_times_a_run_comes_to_the_same_end() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for recipe in RECIPES {
        let (runs, while_saving) = kill(recipe, 50, seed);
        println!(
            "{recipe}: 50 kills, {while_saving} of them while a file was being written, in {runs} runs; seed {seed}"
        );
    }
}
