use candle_core::{Device, Tensor, Var};
use img2seg_ops as ops;

use super::*;

const GENERATOR: UnetGeneratorConfig =
    UnetGeneratorConfig { base_channels: 2, levels: 6, norm: Pix2pixNorm::Batch, dropout: 0.5 };
const DISCRIMINATOR: PatchDiscriminatorConfig =
    PatchDiscriminatorConfig { base_channels: 2, patch: Patch::Side70, norm: Pix2pixNorm::Batch, spectral_norm: false };

fn generator(config: UnetGeneratorConfig) -> (Parameters, UnetGenerator) {
    let parameters = Parameters::new(1, &Device::Cpu);
    let generator = UnetGenerator::new(&parameters, &config, 3, 3).unwrap();
    (parameters, generator)
}

fn discriminator(config: PatchDiscriminatorConfig, in_channels: usize) -> (Parameters, PatchDiscriminator) {
    let parameters = Parameters::new(1, &Device::Cpu);
    let discriminator = PatchDiscriminator::new(&parameters, &config, in_channels).unwrap();
    (parameters, discriminator)
}

fn waves(shape: (usize, usize, usize, usize)) -> Tensor {
    let count = shape.0 * shape.1 * shape.2 * shape.3;
    let values = (0..count).map(|i| (i as f32).sin());
    Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(shape).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn names(parameters: &Parameters) -> Vec<String> {
    parameters.tensors().into_keys().collect()
}

/// By hand, and counted by PyTorch for the listing in `tests/pytorch/networks.py`; the authors' version prints 54.414 M and 2.769 M.
#[test]
fn they_have_as_many_parameters_as_the_authors() {
    let unet_256 = UnetGeneratorConfig { base_channels: 64, levels: 8, ..GENERATOR };
    assert_eq!(generator(unet_256).0.count(), 54_413_955);
    let patches = [Patch::Pixel, Patch::Side16, Patch::Side70, Patch::Side286];
    let counts = patches.map(|patch| {
        discriminator(PatchDiscriminatorConfig { base_channels: 64, patch, ..DISCRIMINATOR }, 6).0.count()
    });
    assert_eq!(counts, [9_024, 139_585, 2_768_705, 11_159_361]);
}

#[test]
fn parameters_are_named_as_the_authors() {
    let (parameters, _) = generator(GENERATOR);
    let names_of = names(&parameters);
    for name in [
        "model.model.0.weight",
        "model.model.3.bias",
        "model.model.1.model.1.weight",
        "model.model.1.model.2.running_mean",
        "model.model.1.model.5.weight",
        "model.model.1.model.6.bias",
        "model.model.1.model.3.model.3.model.3.model.3.model.1.weight",
        "model.model.1.model.3.model.3.model.3.model.3.model.3.weight",
        "model.model.1.model.3.model.3.model.3.model.3.model.4.running_var",
    ] {
        assert!(names_of.iter().any(|known| known == name), "{name}");
    }
    // 2 and 2 outermost weights and biases less one, 4 levels of 2 weights and 2 norms of 4, an innermost of 2 weights and a norm.
    assert_eq!(names_of.len(), 3 + 4 * (2 + 8) + 6);
    let (parameters, _) = discriminator(DISCRIMINATOR, 6);
    let weights: Vec<String> = names(&parameters).into_iter().filter(|name| name.ends_with("weight")).collect();
    let places = [0, 11, 2, 3, 5, 6, 8, 9].map(|place| format!("model.{place}.weight"));
    assert_eq!(weights, places);
    let (parameters, _) =
        discriminator(PatchDiscriminatorConfig { patch: Patch::Pixel, spectral_norm: true, ..DISCRIMINATOR }, 6);
    assert!(names(&parameters).contains(&"net.2.parametrizations.weight.0._u".to_owned()));
}

#[test]
fn they_are_drawn_as_the_paper_says() {
    let (parameters, _) = generator(UnetGeneratorConfig { base_channels: 16, ..GENERATOR });
    let moments = |name: &str| {
        let values = values(&parameters.tensors()[name]);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt())
    };
    let (mean, deviation) = moments("model.model.1.model.3.model.1.weight");
    assert!(mean.abs() < 5e-4 && (deviation - 0.02).abs() < 4e-4, "{mean} {deviation}");
    let (mean, deviation) = moments("model.model.1.model.3.model.2.weight");
    assert!((mean - 1.0).abs() < 0.01 && (deviation - 0.02).abs() < 0.01, "{mean} {deviation}");
    assert_eq!(moments("model.model.3.bias"), (0.0, 0.0));
}

#[test]
fn the_generator_paints_in_bounds_and_drops_by_the_step() {
    for norm in [Pix2pixNorm::Batch, Pix2pixNorm::Instance, Pix2pixNorm::None] {
        let (parameters, generator) = generator(UnetGeneratorConfig { norm, ..GENERATOR });
        let photos = waves((1, 3, 64, 128));
        let paint = |train| values(&generator.forward_t(&photos, train).unwrap());
        let (first, evaluated) = (paint(true), paint(false));
        assert!(first.len() == 3 * 64 * 128 && first.iter().all(|value| value.abs() <= 1.0));
        assert!(first == paint(true));
        parameters.set_step(1);
        assert!(first != paint(true));
        if norm != Pix2pixNorm::Batch {
            assert!(evaluated == paint(false) && evaluated != first);
        }
    }
}

/// Three levels of eight drop, two of seven: those of 8 times the base channels but the innermost.
#[test]
fn only_the_middle_of_the_decoder_drops() {
    let photos = waves((1, 3, 64, 64));
    let changes = |levels| {
        let config = UnetGeneratorConfig { levels, norm: Pix2pixNorm::Instance, ..GENERATOR };
        let (parameters, generator) = generator(config);
        let paint = || values(&generator.forward_t(&photos, true).unwrap());
        let first = paint();
        parameters.set_step(1);
        first != paint()
    };
    assert!(changes(6));
    assert!(!changes(5));
}

#[test]
fn gradients_are_ours_and_reach_every_parameter() {
    let (painters, generator) = generator(UnetGeneratorConfig { norm: Pix2pixNorm::Instance, ..GENERATOR });
    let painted = generator.forward_t(&waves((2, 3, 64, 64)), true).unwrap();
    for (spectral_norm, norm) in [(false, Pix2pixNorm::Batch), (true, Pix2pixNorm::None), (true, Pix2pixNorm::Instance)]
    {
        for patch in [Patch::Pixel, Patch::Side16, Patch::Side70] {
            let config = PatchDiscriminatorConfig { patch, norm, spectral_norm, ..DISCRIMINATOR };
            let (parameters, judge) = discriminator(config, 6);
            let view = PatchDiscriminator::new(&parameters.detached(), &config, 6).unwrap();
            let photos = waves((2, 3, 64, 64));
            let reached = |judge: &PatchDiscriminator, label_maps: &Tensor, parameters: &Parameters| {
                let judged = judge.forward_t(Some(&photos), label_maps, true).unwrap();
                let gradients = ops::backward(ops::bce_with_logits(&judged, 1.0).unwrap()).unwrap();
                assert!(!gradients.through_candle());
                let trainable = parameters.trainable();
                assert!(trainable.iter().all(|(_, parameter)| gradients.get(parameter).is_some()));
                assert_eq!(gradients.len(), trainable.len());
            };
            reached(&judge, &painted.detach(), &parameters);
            reached(&view, &painted, &painters);
            assert!(!view.forward_t(Some(&photos), &painted.detach(), true).unwrap().track_op());
        }
    }
    let predictor = UnetGenerator::new(
        &painters.detached(),
        &UnetGeneratorConfig { norm: Pix2pixNorm::Instance, ..GENERATOR },
        3,
        3,
    );
    assert!(!predictor.unwrap().forward_t(&waves((1, 3, 64, 64)), true).unwrap().track_op());
}

/// The gradient of one logit in the middle of the image covers its patch.
#[test]
fn a_logit_sees_its_patch() {
    for patch in [Patch::Pixel, Patch::Side16, Patch::Side70, Patch::Side286] {
        let parameters = Parameters::new(1, &Device::Cpu).with_exactness(ops::Exactness::Direct); // no rounding beyond the patch
        let config = PatchDiscriminatorConfig { patch, norm: Pix2pixNorm::None, ..DISCRIMINATOR };
        let judge = PatchDiscriminator::new(&parameters, &config, 1).unwrap();
        let image = Var::from_tensor(&waves((1, 1, 320, 320))).unwrap();
        let logits = judge.forward_t(None, &image, false).unwrap();
        let (_, _, rows, columns) = logits.dims4().unwrap();
        let logit = logits.narrow(2, rows / 2, 1).unwrap().narrow(3, columns / 2, 1).unwrap();
        let gradients = logit.sum_all().unwrap().backward().unwrap();
        let seen = values(&gradients.get(&image).unwrap().abs().unwrap().sum((0, 1, 2)).unwrap());
        let first = seen.iter().position(|&gradient| gradient > 0.0).unwrap();
        let last = seen.iter().rposition(|&gradient| gradient > 0.0).unwrap();
        assert_eq!(last - first + 1, usize::from(patch));
    }
}

#[test]
fn logits_are_a_plane_of_patches() {
    let shape = |patch, (height, width)| {
        let (_, judge) = discriminator(PatchDiscriminatorConfig { patch, ..DISCRIMINATOR }, 19);
        judge.forward_t(None, &waves((2, 19, height, width)), true).unwrap().dims().to_vec()
    };
    assert_eq!(shape(Patch::Pixel, (7, 5)), [2, 1, 7, 5]);
    assert_eq!(shape(Patch::Side16, (32, 6)), [2, 1, 14, 1]);
    assert_eq!(shape(Patch::Side70, (64, 96)), [2, 1, 6, 10]);
    assert_eq!(shape(Patch::Side286, (96, 128)), [2, 1, 1, 2]);
}

#[test]
fn sizes_that_cannot_be_taken_are_refused() {
    let refused = generator(GENERATOR).1.forward_t(&waves((1, 3, 72, 64)), false).unwrap_err().to_string();
    assert!(refused.starts_with("64x72 image: the pix2pix generator takes"), "{refused}");
    assert!(refused.contains("64x64 and 64x128"), "{refused}");
    let (_, judge) = discriminator(DISCRIMINATOR, 3);
    let refused = judge.forward_t(None, &waves((1, 3, 20, 36)), false).unwrap_err().to_string();
    assert!(refused.starts_with("36x20 image: the patch discriminator takes"), "{refused}");
    assert!(refused.contains("32x24 and 40x24"), "{refused}");
}

#[test]
fn numbers_that_make_no_network_are_refused() {
    let parameters = Parameters::new(1, &Device::Cpu);
    let refused = |config| UnetGenerator::new(&parameters, &config, 3, 3).unwrap_err().to_string();
    let error = refused(UnetGeneratorConfig { levels: 4, ..GENERATOR });
    assert_eq!(error, "pix2pix generator of levels 4: there may be 5 to 9");
    assert!(refused(UnetGeneratorConfig { base_channels: 0, ..GENERATOR }).ends_with("none may be 0"));
    assert!(refused(UnetGeneratorConfig { dropout: 1.0, levels: 5, ..GENERATOR }).starts_with("dropout 1"));
    assert!(PatchDiscriminator::new(&parameters, &DISCRIMINATOR, 0).is_err());
    let read = |patch: &str| {
        serde_json::from_str::<PatchDiscriminatorConfig>(&format!(
            r#"{{"base_channels": 2, "patch": {patch}, "norm": "batch", "spectral_norm": false}}"#
        ))
    };
    assert_eq!(read("70").unwrap(), DISCRIMINATOR);
    assert_eq!(serde_json::to_value(DISCRIMINATOR).unwrap()["patch"], 70);
    assert!(read("64").unwrap_err().to_string().contains("patch 64: not 1, 16, 70 or 286"));
}
