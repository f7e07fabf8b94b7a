//! Damaged checkpoints, and runs that diverge.

use std::fs;

use crate::lab::{Lab, files_below};

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_is_used() {
    let lab = Lab::new();
    lab.succeed("train smoke-unet --data pairs --run whole --set epochs=4");
    lab.succeed("train smoke-unet --data pairs --run run --set epochs=4");
    for name in ["last", "best"] {
        let path = lab.path("run/checkpoints").join(name).join("weights.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let error = lab.fail(1, "evaluate run --checkpoint last");
    let complaint = "run/checkpoints/last/weights.safetensors: damaged: its SHA-256 is not the one in progress.json";
    assert_eq!(error, complaint);
    let resumed = lab.succeed("train smoke-unet --run run --resume");
    assert!(resumed.stderr.contains(&format!("warning: {complaint}; it is set aside")), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("goes on after step 3"), "{}", resumed.stderr);
    // The last epoch was made again, to the bit.
    for file in ["losses.txt", "metrics.jsonl", "checkpoints/last", "checkpoints/best"] {
        let [whole, run] = ["whole", "run"].map(|name| lab.path(name).join(file));
        if whole.is_dir() {
            assert!(files_below(&whole) == files_below(&run), "{file}");
        } else {
            assert_eq!(fs::read(whole).unwrap(), fs::read(run).unwrap(), "{file}");
        }
    }
    assert!(lab.path("run/checkpoints/damaged-last").is_dir());
}

#[test]
fn a_run_that_diverges_names_the_step_and_leaves_what_reproduces_it() {
    let lab = Lab::new();
    for (recipe, rate, part) in [
        ("smoke-unet", "task.segmentation.optimizer.adam.learning_rate", "network"),
        ("smoke-cgan", "task.adversarial.discriminator_optimizer.adam.learning_rate", "generator"),
    ] {
        let run = format!("run-{recipe}");
        let error = lab.fail(1, &format!("train {recipe} --data pairs --run {run} --set epochs=50 --set {rate}=1e25"));
        let step: u64 = error.strip_prefix("step ").and_then(|rest| rest.split(':').next()).unwrap().parse().unwrap();
        let dump = format!("{run}/diverged/step-{step:08}");
        assert!(error.contains(" is not finite (") && error.contains("; batch: "), "{error}");
        assert!(error.ends_with(&format!("{dump} reproduces the step")), "{error}");
        assert!(error.contains(&format!("({part}; ")), "{error}");
        // Nothing of the step has reached the records or a checkpoint.
        let losses = fs::read_to_string(lab.path(&run).join("losses.txt")).unwrap_or_default();
        assert_eq!(losses.lines().filter(|line| !line.starts_with('#')).count() as u64, step - 1, "{losses}");
        assert!(!losses.contains("NaN") && !losses.contains("inf"), "{losses}");

        let replayed = lab.succeed(&format!("replay-step {dump}"));
        let lines: Vec<&str> = replayed.stdout.lines().collect();
        let [then, now] = [lines[lines.len() - 2], lines[lines.len() - 1]];
        assert_eq!(then.strip_prefix("then: ").unwrap(), now.strip_prefix("now:  ").unwrap(), "{}", replayed.stdout);
        // Somewhere else than in the run directory it is the same.
        fs::rename(lab.path(&dump), lab.path("elsewhere")).unwrap();
        assert_eq!(lab.succeed("replay-step elsewhere").stdout, replayed.stdout);
        fs::remove_file(lab.path("elsewhere/batch.safetensors")).unwrap();
        assert!(lab.fail(1, "replay-step elsewhere").starts_with("elsewhere/batch.safetensors: "));
        fs::remove_dir_all(lab.path("elsewhere")).unwrap();
    }
}

#[test]
fn clipped_gradients_do_not_diverge() {
    let lab = Lab::new();
    let clipped = "--set task.segmentation.optimizer.adam.max_gradient_norm=0.5";
    lab.succeed(&format!("train smoke-unet --data pairs --run run {clipped}"));
    assert!(fs::read_to_string(lab.path("run/config.toml")).unwrap().contains("max_gradient_norm = 0.5"));
    lab.succeed("train smoke-unet --data pairs --run free");
    let losses = |run: &str| fs::read_to_string(lab.path(run).join("losses.txt")).unwrap();
    assert_ne!(losses("run"), losses("free"));
    let error = lab
        .fail(1, "train smoke-unet --data pairs --run no --set task.segmentation.optimizer.adam.max_gradient_norm=-1");
    assert!(error.contains("task.segmentation.optimizer.adam.max_gradient_norm: must be 0 or more"), "{error}");
}

#[test]
fn weights_that_a_run_began_with_survive_a_kill_before_its_first_checkpoint() {
    let lab = Lab::new();
    lab.succeed("train smoke-unet --data pairs --run first --set epochs=3 --set seed=7");
    let begin =
        "train smoke-unet --data pairs --weights first/checkpoints/last/weights.safetensors --set epochs=1 --run";
    lab.succeed(&format!("{begin} whole"));
    lab.succeed(&format!("{begin} killed"));
    // As if it had been killed in its first step.
    for file in ["checkpoints/last", "checkpoints/best"] {
        fs::remove_dir_all(lab.path("killed").join(file)).unwrap();
    }
    fs::rename(lab.path("killed/checkpoints/last-1"), lab.path("killed/checkpoints/last")).unwrap();
    lab.succeed("train smoke-unet --run killed --resume");
    let losses = |run: &str| fs::read_to_string(lab.path(run).join("losses.txt")).unwrap();
    assert_eq!(losses("whole"), losses("killed"));
}

#[test]
fn what_was_learned_before_a_broken_file_is_kept() {
    let lab = Lab::new();
    (3..8).for_each(|index| lab.save_pair(&format!("pairs/train/{index}.png"), 64, index));
    lab.succeed("train smoke-unet --data pairs --run whole");
    let steps = |run: &str| fs::read_to_string(lab.path(run).join("losses.txt")).unwrap_or_default().lines().count();
    let mut kept = 0;
    for index in 0..8 {
        let path = lab.path(&format!("pairs/train/{index}.png"));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let run = format!("run-{index}");
        let error = lab.fail(1, &format!("train smoke-unet --data pairs --run {run} --set checkpoint.every_steps=0"));
        assert!(error.starts_with(&format!("pairs/train/{index}.png: ")), "{error}");
        fs::write(&path, bytes).unwrap();
        if steps(&run) > 0 {
            kept += 1;
            let resumed = lab.succeed(&format!("train smoke-unet --run {run} --resume --allow-changes"));
            assert!(resumed.stderr.contains("goes on after step "), "{}", resumed.stderr);
            for file in ["losses.txt", "metrics.jsonl", "checkpoints/last/weights.safetensors"] {
                let [whole, run] = ["whole", &run].map(|name| fs::read(lab.path(name).join(file)).unwrap());
                assert!(whole == run, "{file}, after {index}.png was broken");
            }
        } else {
            assert!(!lab.path(&run).join("checkpoints").exists());
        }
    }
    // Two of the eight are in the first step.
    assert_eq!(kept, 6);
}
