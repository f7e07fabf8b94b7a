//! A run that is stopped by a signal is saved, says how to go on, and goes on.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::lab::{Lab, files_below, said};

const ARGUMENTS: &str =
    "train smoke-unet --data pairs --run run --set epochs=500 --set evaluation.samples_every_epochs=0";

/// Trains until an epoch was reported, sends the signal, and returns the exit code and what was said after it.
fn interrupted(lab: &Lab, arguments: &str, signal: &str) -> (Option<i32>, String) {
    let mut program = lab.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines().map(Result::unwrap);
    let epoch = lines.by_ref().find(|line| line.starts_with("epoch "));
    assert!(epoch.is_some(), "the program ended before its first epoch");
    let kill = Command::new("kill").args([signal, &program.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.collect();
    (program.wait().unwrap().code(), rest.join("\n"))
}

#[test]
fn a_signal_saves_and_a_resumed_run_survives_a_full_disk() {
    let lab = Lab::new();
    let (code, rest) = interrupted(&lab, ARGUMENTS, "-INT");
    assert_eq!(code, Some(130), "{rest}");
    assert!(rest.contains("img2seg train smoke-unet --run run --resume"), "{rest}");
    let saved = files_below(&lab.path("run/checkpoints"));
    assert!(!saved.is_empty());

    // The disk is full: the checkpoint that was there stays.
    let mut command = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" train smoke-unet --data pairs --run run --resume";
    command.args(["-c", script, env!("CARGO_BIN_EXE_img2seg")]);
    lab.prepare(&mut command);
    let failed = said(command);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    // The next epoch may be the best so far: then `best` is written first.
    let named = ["last", "best"].map(|which| format!("run/checkpoints/{which}/weights.safetensors: "));
    assert!(named.iter().any(|named| failed.error().starts_with(named)), "{}", failed.stderr);
    assert!(files_below(&lab.path("run/checkpoints")) == saved, "the checkpoint was touched");
    lab.succeed("evaluate run --checkpoint last");

    // There is room again: it goes on, and another signal stops it.
    let (code, rest) = interrupted(&lab, "train smoke-unet --data pairs --run run --resume", "-TERM");
    assert_eq!(code, Some(143), "{rest}");
    assert!(files_below(&lab.path("run/checkpoints")) != saved, "nothing was learned");
}
