//! Every learner overfits one batch.

use candle_core::Device;
use img2seg_data::{Batch, ClassTable, streets};
use img2seg_training::learner::{self, Step};
use img2seg_training::{Learner, RunConfig};

/// Tiny scenes are full of poles a pixel wide: the smoke recipe's four channels are too few to learn them by heart.
const WIDE: &str = "task.segmentation.network.unet.base_channels=16";

fn recipe(name: &str, settings: &[&str]) -> RunConfig {
    let path = format!("{}/../data/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    RunConfig::from_toml(&std::fs::read_to_string(path).unwrap(), name, &settings).unwrap()
}

/// Trains on one batch of two scenes and returns the share of labelled pixels that are then predicted right.
fn overfit(config: &RunConfig, steps: u64) -> f64 {
    let classes = ClassTable::load(&config.data.classes).unwrap();
    let scenes: Vec<_> = (0..2).map(|index| streets::scene(5, index, config.data.height, config.data.width)).collect();
    let batch = Batch::stack(&scenes).unwrap();
    let mut learner = learner::build(config, &classes, &Device::Cpu).unwrap();
    for number in 1..=steps {
        learner.train_step(&batch, Step { number, rate_factor: 1.0 }).unwrap();
    }
    accuracy(learner.as_ref(), &batch, &classes)
}

fn accuracy(learner: &dyn Learner, batch: &Batch, classes: &ClassTable) -> f64 {
    let (prediction, _) = learner.evaluate(batch).unwrap();
    let images = prediction.decode(classes).unwrap();
    let truth = batch.labels.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let predicted = images.iter().flat_map(|image| &image.labels);
    let scored: Vec<bool> =
        truth.iter().zip(predicted).filter(|&(&t, _)| t != 255).map(|(&t, &p)| t == u32::from(p)).collect();
    scored.iter().filter(|&&right| right).count() as f64 / scored.len() as f64
}

const CROSS_ENTROPY: &str = "task.segmentation.loss={ cross-entropy = { weight = 1.0, class_weights = 'none' } }";

#[test]
fn segmentation_by_classes_overfits_one_batch() {
    let config = recipe("smoke-unet", &[WIDE, "task.segmentation.output=classes", CROSS_ENTROPY]);
    let reached = overfit(&config, 300);
    assert!(reached > 0.95, "{reached}");
}

/// Mixed precision: convolutions round to 8 bits, everything else is f32.
#[test]
fn segmentation_by_classes_overfits_one_batch_in_bf16() {
    let config = recipe("smoke-unet", &[WIDE, "task.segmentation.output=classes", CROSS_ENTROPY, "exactness=bf16"]);
    let reached = overfit(&config, 300);
    assert!(reached > 0.95, "{reached}");
}

#[test]
fn segmentation_by_colours_overfits_one_batch() {
    let config = recipe("smoke-unet", &[WIDE]);
    let reached = overfit(&config, 300);
    assert!(reached > 0.9, "{reached}");
}

#[test]
fn the_adversarial_pair_overfits_one_batch_with_its_l1_term() {
    let rates = ["generator", "discriminator"]
        .map(|network| format!("task.adversarial.{network}_optimizer.adam.learning_rate=2e-3"));
    let config = recipe("smoke-cgan", &[&rates[0], &rates[1], "task.adversarial.generator.lab.noise_channels=0"]);
    let reached = overfit(&config, 250);
    assert!(reached > 0.85, "{reached}");
}

#[test]
fn a_network_with_a_discriminator_of_its_class_maps_overfits_one_batch() {
    let network = "task.adversarial-segmentation.network.unet.dropout=0.0";
    let config = recipe("smoke-adversarial", &[network, "ema_decay=0.5"]);
    let reached = overfit(&config, 300);
    assert!(reached > 0.9, "{reached}");
}

#[test]
fn the_mean_of_a_conditional_vaes_samples_overfits_one_batch() {
    let config = recipe("smoke-cvae", &["task.variational.network.base_channels=8"]);
    let reached = overfit(&config, 300);
    assert!(reached > 0.9, "{reached}");
}
