//! Every recipe parses, says everything, builds, and has the networks that its name promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use img2seg_data::ClassTable;
use img2seg_ops::Exactness;
use img2seg_training::config::{DiscriminatorNetworkConfig, GeneratorNetworkConfig, NetworkConfig, TaskConfig};
use img2seg_training::{RunConfig, learner};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn recipes() -> BTreeMap<String, String> {
    let files = std::fs::read_dir(root().join("data/recipes")).unwrap();
    let paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_recipe_reads_back_as_itself() {
    for (name, text) in recipes() {
        let config = RunConfig::from_toml(&text, &name, &[]).unwrap();
        let again = RunConfig::from_toml(&config.to_toml().unwrap(), &name, &[]).unwrap();
        assert_eq!(config, again, "{name}");
        assert!(text.starts_with("# "), "{name}: the first line says what the recipe is for");
        assert!(
            text.contains(&format!("cargo xtask train {name}")) || name == "quickstart",
            "{name}: the header gives the command"
        );
    }
}

#[test]
fn the_program_carries_every_recipe() {
    let list = std::fs::read_to_string(root().join("crates/cli/src/recipes.rs")).unwrap();
    for name in recipes().keys() {
        assert!(list.contains(&format!("\"{name}\"")), "{name} is not in the program's list");
    }
}

/// Networks as narrow as their norms allow.
fn narrow(task: &mut TaskConfig) {
    let network = |network: &mut NetworkConfig| match network {
        NetworkConfig::Unet(unet) => unet.base_channels = 2,
        NetworkConfig::Pixelwise(pixelwise) => pixelwise.base_channels = 2,
    };
    match task {
        TaskConfig::Segmentation(task) => network(&mut task.network),
        TaskConfig::Adversarial(task) => {
            match &mut task.generator {
                GeneratorNetworkConfig::Lab(generator) => generator.base_channels = 2,
                GeneratorNetworkConfig::Pix2pix(generator) => generator.base_channels = 2,
            }
            match &mut task.discriminator {
                DiscriminatorNetworkConfig::Lab(discriminator) => discriminator.base_channels = 2,
                DiscriminatorNetworkConfig::Patch(discriminator) => discriminator.base_channels = 2,
            }
        }
        TaskConfig::AdversarialSegmentation(task) => {
            network(&mut task.network);
            task.discriminator.base_channels = 2;
        }
        TaskConfig::Variational(task) => task.network.base_channels = 2,
    }
}

#[test]
fn every_recipe_builds_with_narrow_networks() {
    for (name, text) in recipes() {
        let mut config = RunConfig::from_toml(&text, &name, &[]).unwrap();
        narrow(&mut config.task);
        let classes = ClassTable::load(&config.data.classes).unwrap();
        learner::build(&config, &classes, &Device::Cpu).unwrap();
    }
}

/// The sizes of the lab report's networks, counted by hand from its listings.
#[test]
fn the_lab_recipes_have_the_reports_sizes() {
    let networks = |name: &str| {
        let config = RunConfig::from_toml(&recipes()[name], name, &[]).unwrap();
        let classes = ClassTable::load(&config.data.classes).unwrap();
        learner::build(&config, &classes, &Device::Cpu).unwrap().networks()
    };
    assert_eq!(networks("lab-unet"), [("unet", unet_parameters(64))]);
    assert_eq!(
        networks("lab-cgan"),
        [("generator", generator_parameters(64)), ("discriminator", discriminator_parameters(64))]
    );
}

/// Listings 5-7: a convolution has a bias, a norm has a weight and a bias.
fn unet_parameters(base: usize) -> usize {
    let block = |i: usize, o: usize| (9 * i * o + o) + 2 * o + (9 * o * o + o) + 2 * o;
    let widths = [base, 2 * base, 4 * base, 8 * base, 16 * base];
    let down: usize = [3, base, 2 * base, 4 * base, 8 * base].iter().zip(widths).map(|(&i, o)| block(i, o)).sum();
    let up: usize = widths[..4].iter().map(|&o| (4 * 2 * o * o + o) + block(2 * o, o)).sum();
    down + up + 3 * base + 3
}

/// Listing 2: no convolution has a bias.
fn generator_parameters(g: usize) -> usize {
    let down = 16 * (3 * g + g * 2 * g + 2 * g * 4 * g + 4 * g * 8 * g + 8 * g * 16 * g);
    let up = 16 * (16 * g * 16 * g + 16 * g * 8 * g + 8 * g * 4 * g + 4 * g * 2 * g + 2 * g * 3);
    let norms = 2 * (2 * g + 4 * g + 8 * g) + 2 * (16 * g + 8 * g + 4 * g + 2 * g);
    down + up + norms
}

/// Listing 3.
fn discriminator_parameters(d: usize) -> usize {
    16 * (6 * d + d * 2 * d + 2 * d * 4 * d + 4 * d * 8 * d + 8 * d) + 2 * (2 * d + 4 * d + 8 * d)
}

#[test]
fn a_mistyped_key_is_named_with_its_line() {
    let text = recipes()["quickstart"].replace("batch_size", "batchsize");
    let error = RunConfig::from_toml(&text, "mine.toml", &[]).unwrap_err().to_string();
    assert!(error.starts_with("mine.toml: ") && error.contains("batchsize") && error.contains("line "), "{error}");
    let text = recipes()["quickstart"].replace("exactness = ", "# ");
    let error = RunConfig::from_toml(&text, "old.toml", &[]).unwrap_err().to_string();
    assert!(error.starts_with("old.toml: ") && error.contains("missing field `exactness`"), "{error}");
}

#[test]
fn settings_replace_keys_and_refuse_unknown_ones() {
    let text = &recipes()["quickstart"];
    let settings = |list: &[&str]| list.iter().map(|&setting| setting.to_owned()).collect::<Vec<_>>();
    let list =
        settings(&["data.batch_size=7", "data.layout=pairs", "task.segmentation.optimizer.adamw.learning_rate=1"]);
    let config = RunConfig::from_toml(text, "quickstart", &list).unwrap();
    assert_eq!(config.data.batch_size, 7);
    for (setting, exactness) in [
        ("exactness=direct", Exactness::Direct),
        ("exactness=fast", Exactness::Fast),
        ("exactness=bf16", Exactness::Bf16),
    ] {
        let config = RunConfig::from_toml(text, "quickstart", &settings(&[setting])).unwrap();
        assert_eq!(config.exactness, exactness);
        assert_eq!(RunConfig::from_toml(&config.to_toml().unwrap(), "config.toml", &[]).unwrap(), config);
    }
    for (setting, expected) in [
        ("data.batchsize=7", "batchsize"),
        ("data.batch_size=many", "batch_size"),
        ("epochs", "key=value"),
        ("epochs.x=1", "epochs"),
        ("epochs=0", "epochs"),
        ("task.segmentation.loss={ mse = { weight = 1.0 } }", "task.segmentation.loss.mse"),
        ("exactness=exact", "exactness"),
    ] {
        let error = RunConfig::from_toml(text, "quickstart", &settings(&[setting])).unwrap_err().to_string();
        assert!(error.contains(expected), "{setting}: {error}");
    }
}
