//! What PyTorch computed, against what we compute.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use img2seg_tests::parity::{self, Comparison};
use safetensors::SafeTensors;

fn oracle(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle").join(name)
}

/// A copy of an oracle file, with its tensors changed.
fn changed(name: &str, folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> PathBuf {
    let bytes = std::fs::read(oracle(name)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    change(&mut tensors);
    let path = folder.join(name);
    safetensors::serialize_to_file(tensors, header.metadata().clone(), &path).unwrap();
    path
}

fn names_of_failures(comparison: &Comparison) -> Vec<&str> {
    comparison.failures().map(|quantity| quantity.name.as_str()).collect()
}

fn agrees(name: &str, quantities: usize) {
    let comparison = parity::compare(&oracle(name)).unwrap();
    assert_eq!(names_of_failures(&comparison), [""; 0]);
    assert_eq!(comparison.quantities.len(), quantities);
}

#[test]
fn the_unet_agrees() {
    agrees("unet.safetensors", 2 + 82 + 1 + 118 + 1);
}

#[test]
fn the_cgan_agrees() {
    agrees("cgan.safetensors", 3 + 35 + 1 + 55 + 1);
}

#[test]
fn the_layers_agree() {
    agrees("layers.safetensors", 36 + 17 + 18 + 2 + 2);
}

#[test]
fn more_layers_agree() {
    let [convolutions, norms, pools, resizes, activations] = [12 * 4, 2 + 4 + 4 * 4, 2 * 2, 8 * 2, 4 * 2];
    agrees("more-layers.safetensors", convolutions + norms + pools + resizes + activations);
}

#[test]
fn the_steps_agree() {
    agrees("steps.safetensors", 8);
}

#[test]
fn the_other_networks_agree() {
    let [generator, patch, spectral, unet] = [3 + 31 + 18, 3 + 13 + 6, 3 + 10 + 10, 3 + 54];
    let cvae = 3 + 60 + 24;
    agrees("networks.safetensors", generator + patch + spectral + unet + cvae);
}

#[test]
fn the_losses_agree() {
    agrees("losses.safetensors", 32 + 38);
}

#[test]
fn one_perturbed_tensor_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (file, tensor) in [
        ("unet.safetensors", "grad.en1.conv.conv1.weight"),
        ("unet.safetensors", "after.b.bn1.running_var"),
        ("cgan.safetensors", "grad.generator.downSampling.0.weight"),
        ("cgan.safetensors", "disc.eval"),
        ("layers.safetensors", "pool0.gx"),
        ("networks.safetensors", "generator.grad.model.model.1.model.3.model.5.weight"),
        ("networks.safetensors", "spectral.grad.model.5.parametrizations.weight.original"),
        ("networks.safetensors", "spectral.after.model.2.parametrizations.weight.0._u"),
        ("networks.safetensors", "unet.grad.d1.up.weight"),
        ("networks.safetensors", "cvae.grad.encoder.log_variance.weight"),
        ("losses.safetensors", "lovasz0.glogits"),
    ] {
        let path = changed(file, folder.path(), |tensors| {
            let scaled = (&tensors[tensor] * 1.01).unwrap();
            tensors.insert(tensor.to_owned(), scaled);
        });
        assert_eq!(names_of_failures(&parity::compare(&path).unwrap()), [tensor]);
    }
}

/// The exception for biases that a batch norm cancels is for rounding, not for gradients.
#[test]
fn a_gradient_that_should_vanish_and_does_not_fails() {
    let folder = tempfile::tempdir().unwrap();
    let name = "grad.b.conv1.bias";
    let path = changed("unet.safetensors", folder.path(), |tensors| {
        let shifted = (&tensors[name] + 1e-5).unwrap();
        tensors.insert(name.to_owned(), shifted);
    });
    assert_eq!(names_of_failures(&parity::compare(&path).unwrap()), [name]);
}

#[test]
fn a_wrong_weight_fails_wherever_it_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed("layers.safetensors", folder.path(), |tensors| {
        let scaled = (&tensors["conv4.weight"] * 1.01).unwrap();
        tensors.insert("conv4.weight".to_owned(), scaled);
    });
    assert_eq!(names_of_failures(&parity::compare(&path).unwrap()), ["conv4.y", "conv4.gx"]);
}

#[test]
fn tensors_that_are_missing_or_have_no_counterpart_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let error = |file: &str, change: fn(&mut HashMap<String, Tensor>)| {
        let path = changed(file, folder.path(), change);
        let error = format!("{:#}", parity::compare(&path).unwrap_err());
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        error
    };
    let rename = |tensors: &mut HashMap<String, Tensor>| {
        let tensor = tensors.remove("grad.outputs.bias").unwrap();
        tensors.insert("grad.outputs.offset".into(), tensor);
    };
    let text = error("unet.safetensors", rename);
    assert!(text.contains("tensor grad.outputs.bias: missing"), "{text}");
    let text = error("layers.safetensors", |tensors| {
        let extra = tensors["conv0.gx"].clone();
        tensors.insert("conv0.gxx".into(), extra);
    });
    assert!(text.contains("nothing of ours to compare with: conv0.gxx"), "{text}");
    let text = error("cgan.safetensors", |tensors| {
        tensors.remove("init.discriminator.main.0.weight");
    });
    assert!(text.contains("missing: discriminator.main.0.weight"), "{text}");
}

fn run(files: &[PathBuf]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parity")).args(files).output().unwrap()
}

#[test]
fn the_program_tells_by_its_exit_code_and_a_line_for_each_quantity() {
    let folder = tempfile::tempdir().unwrap();
    let bad = changed("layers.safetensors", folder.path(), |tensors| {
        let negative = tensors["lrelu0.y"].neg().unwrap();
        tensors.insert("lrelu0.y".into(), negative);
    });
    let text = folder.path().join("text.safetensors");
    std::fs::write(&text, "not tensors").unwrap();

    let good = run(&[oracle("layers.safetensors")]);
    assert_eq!(good.status.code(), Some(0));
    let stdout = String::from_utf8(good.stdout).unwrap();
    assert_eq!(stdout.lines().filter(|line| line.ends_with(" ok")).count(), 75, "{stdout}");
    assert!(stdout.contains("layers: 75 of 75 quantities agree, 0 fail"), "{stdout}");

    let mixed = run(&[bad, oracle("layers.safetensors")]);
    assert_eq!(mixed.status.code(), Some(1));
    let stdout = String::from_utf8(mixed.stdout).unwrap();
    let failures: Vec<&str> = stdout.lines().filter(|line| line.ends_with("FAIL")).collect();
    assert!(failures.len() == 1 && failures[0].starts_with("lrelu0.y "), "{stdout}");

    for unreadable in [text, folder.path().join("absent.safetensors")] {
        let output = run(std::slice::from_ref(&unreadable));
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("parity: {}: ", unreadable.display())), "{stderr}");
    }
    assert_eq!(run(&[]).status.code(), Some(2));
}
