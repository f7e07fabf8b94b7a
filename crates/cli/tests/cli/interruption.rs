//! Signals, and disks that do not take what a run wants to save.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::{Lab, files_below};
use crate::running::Running;

/// A run that does not end by itself, and says something at every epoch.
const ENDLESS: &str =
    "train smoke-unet --data pairs --run run --set epochs=100000 --set evaluation.samples_every_epochs=0";
const RESUME: &str = "train smoke-unet --run run --resume";

#[test]
fn a_signal_saves_and_the_run_goes_on() {
    let lab = Lab::new();
    for (arguments, signal, code) in [(ENDLESS, "-INT", 130), (RESUME, "-TERM", 143)] {
        let mut running = Running::start(lab.command(arguments));
        running.wait_for("epoch ");
        running.signal(signal);
        let (ended, said) = running.end();
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains("and saved; to go on: img2seg train smoke-unet --run run --resume"), "{said}");
        assert!(!lab.path("run/lock").exists());
    }
    lab.succeed("evaluate run --checkpoint last");
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let lab = Lab::new();
    // One step takes longer than the test: the first signal waits for its end.
    let large = "--set data.height=1024 --set data.width=1024 --set task.segmentation.network.unet.base_channels=32";
    let mut running = Running::start(lab.command(&format!("{ENDLESS} {large}")));
    running.wait_for("parameters");
    running.signal("-INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal("-INT");
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("saved"), "{said}");
}

#[test]
fn sigusr1_saves_and_training_goes_on() {
    let lab = Lab::new();
    let mut running = Running::start(lab.command(ENDLESS));
    for _ in 0..2 {
        running.wait_for("epoch ");
        running.signal("-USR1");
        running.wait_for("saved after step ");
    }
    running.wait_for("epoch ");
    running.signal("-INT");
    assert_eq!(running.end().0, Some(130));
}

#[test]
fn a_run_has_one_writer() {
    let lab = Lab::new();
    let mut running = Running::start(lab.command(ENDLESS));
    running.wait_for("epoch ");
    let refusal = format!("run: process {} is writing to this run", running.id());
    assert_eq!(lab.fail(1, RESUME), refusal);
    running.signal("-KILL");
    assert_eq!(running.end().0, None);
    // What the killed process has left locks nothing.
    assert!(lab.path("run/lock").exists());
    let mut running = Running::start(lab.command(RESUME));
    running.wait_for("epoch ");
    running.signal("-INT");
    assert_eq!(running.end().0, Some(130));
}

/// Starts an endless run, makes saving impossible, sees it say so and go on; then makes it possible again, or stops the run without.
fn trouble(command: impl Fn(&str) -> Command, lab: &Lab, begin: impl Fn(u32), end: impl Fn(u32), named: &str) {
    for heals in [true, false] {
        let arguments = if heals { ENDLESS } else { RESUME };
        let mut running = Running::start(command(arguments));
        running.wait_for("epoch ");
        running.signal("-USR1");
        running.wait_for("saved after step ");
        begin(running.id());
        running.signal("-USR1");
        let warning = running.wait_for("warning: ");
        assert!(warning.contains(named), "{warning}");
        assert!(warning.ends_with("; training goes on, and the next checkpoint is the next try"), "{warning}");
        assert!(warning.contains("the newest checkpoint is of step "), "{warning}");
        if heals {
            end(running.id());
            running.signal("-USR1");
            running.wait_for("saved after step ");
            running.signal("-INT");
            let (code, said) = running.end();
            assert_eq!(code, Some(130), "{said}");
        } else {
            running.signal("-INT");
            let id = running.id();
            let (code, said) = running.end();
            assert_eq!(code, Some(1), "{said}");
            let error = said.lines().last().unwrap();
            assert!(error.starts_with("error: ") && error.contains(named) && error.contains("not saved"), "{error}");
            end(id);
        }
        lab.succeed("evaluate run --checkpoint last");
    }
    // Nothing was lost on the way: it can go on.
    let mut running = Running::start(command(RESUME));
    running.wait_for("epoch ");
    running.signal("-INT");
    assert_eq!(running.end().0, Some(130));
    let steps: Vec<u64> = fs::read_to_string(lab.path("run/losses.txt"))
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(steps.iter().copied().eq(1..=steps.len() as u64), "a gap or a repeated line");
    let unfinished = files_below(&lab.path("run/checkpoints"));
    assert!(unfinished.iter().all(|(path, _)| !path.to_string_lossy().contains(".writing-")));
}

#[test]
fn a_removed_folder_is_told_and_tried_again() {
    let lab = Lab::new();
    let (run, away) = (lab.path("run"), lab.path("away"));
    let begin = |_| fs::rename(&run, &away).unwrap();
    let end = |_| fs::rename(&away, &run).unwrap();
    trouble(|arguments| lab.command(arguments), &lab, begin, end, "run/losses.txt: No such file or directory");
}

/// A limit on the size of files stands in for a full disk, which takes a file system of its own: writes fail in the same calls.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_tried_again() {
    let lab = Lab::new();
    let limit = |id: u32, bytes: &str| {
        let status = Command::new("prlimit").args(["--pid", &id.to_string(), &format!("--fsize={bytes}:")]).status();
        assert!(status.expect("prlimit, of util-linux").success());
    };
    let command = |arguments: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_img2seg")]);
        command.args(arguments.split_whitespace());
        lab.prepare(&mut command);
        command
    };
    // The weights' first block fits, the rest does not.
    let begin = |id| limit(id, "20000");
    let end = |id| {
        if Path::new(&format!("/proc/{id}")).exists() {
            limit(id, "unlimited");
        }
    };
    trouble(command, &lab, begin, end, "File too large");
}

/// Root may write anywhere, so there the program runs as nobody.
#[cfg(target_os = "linux")]
#[test]
fn a_read_only_folder_is_told_and_tried_again() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;

    const NOBODY: u32 = 65534;
    let lab = Lab::new();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let program = lab.path("img2seg");
    if is_root {
        // The build folder may be closed to others.
        fs::copy(env!("CARGO_BIN_EXE_img2seg"), &program).unwrap();
        chown(lab.path(""), Some(NOBODY), None).unwrap();
    }
    let command = |arguments: &str| {
        let mut command = lab.command("");
        if is_root {
            command = Command::new(&program);
            command.uid(NOBODY).gid(NOBODY);
        }
        command.args(arguments.split_whitespace());
        lab.prepare(&mut command);
        command
    };
    let mode = |mode| {
        for folder in ["run", "run/checkpoints"] {
            fs::set_permissions(lab.path(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    trouble(command, &lab, |_| mode(0o555), |_| mode(0o755), "run/checkpoints: permission denied");
}

/// The disk was full, the run ended with an error, and the checkpoint that was there has every byte.
#[test]
fn a_run_that_begins_on_a_full_disk_touches_nothing() {
    let lab = Lab::new();
    let mut running = Running::start(lab.command(ENDLESS));
    running.wait_for("epoch ");
    running.signal("-INT");
    assert_eq!(running.end().0, Some(130));
    let saved = files_below(&lab.path("run/checkpoints"));

    let mut command = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f 64; exec \"$0\" {RESUME}");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_img2seg")]);
    lab.prepare(&mut command);
    let mut running = Running::start(command);
    running.wait_for("warning: run/checkpoints/");
    running.signal("-TERM");
    let (code, said) = running.end();
    assert_eq!(code, Some(1), "{said}");
    let error = said.lines().last().unwrap();
    let named = ["last", "best"].map(|which| format!("error: run/checkpoints/{which}/weights.safetensors: "));
    assert!(named.iter().any(|named| error.starts_with(named)), "{error}");
    assert!(files_below(&lab.path("run/checkpoints")) == saved, "the checkpoint was touched");
}
