use candle_core::{DType, Device};

use super::*;

fn unet(base_channels: usize, out_channels: usize) -> (Parameters, UNet) {
    let parameters = Parameters::new(1, &Device::Cpu);
    let unet = UNet::new(&parameters, &UNetConfig::report(base_channels), 3, out_channels).unwrap();
    (parameters, unet)
}

/// The counts are those of the report's listing in PyTorch.
#[test]
fn it_has_as_many_parameters_as_the_listing() {
    assert_eq!(unet(1, 3).0.count(), 7_898);
    assert_eq!(unet(4, 3).0.count(), 122_471);
    assert_eq!(unet(4, 19).0.count(), 122_551);
    assert_eq!(unet(64, 3).0.count(), 31_043_651);
}

#[test]
fn its_initialisation_is_pytorchs() {
    let parameters = unet(2, 3).0;
    let largest = |name: &str| {
        let tensor = &parameters.tensors()[name];
        tensor.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    let within = |name: &str, fan_in: f32| {
        let (bound, largest) = (1.0 / fan_in.sqrt(), largest(name));
        assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest} for {bound}");
    };
    within("en2.conv.conv1.weight", 2.0 * 9.0);
    within("b.conv2.bias", 32.0 * 9.0);
    within("d1.convT.weight", 16.0 * 4.0); // of the 32 to 16 channels, the 16 that PyTorch counts
    within("d1.convT.bias", 16.0 * 4.0);
    let both = |name: &str| parameters.tensors()[name].to_vec1::<f32>().unwrap();
    assert_eq!(both("en1.conv.bn1.bias"), [0.0, 0.0]);
    assert_eq!(both("en1.conv.bn1.running_var"), [1.0, 1.0]);
}

#[test]
fn training_moves_the_running_statistics_and_evaluation_does_not() {
    let (parameters, unet) = unet(1, 3);
    let photos = Tensor::from_iter((0..2 * 3 * 16 * 32).map(|i| (i as f32).sin()), &Device::Cpu).unwrap();
    let photos = photos.reshape((2, 3, 16, 32)).unwrap();
    let mean = || parameters.tensors()["en1.conv.bn1.running_mean"].to_vec1::<f32>().unwrap();
    assert_eq!(unet.forward_t(&photos, false).unwrap().dims(), [2, 3, 16, 32]);
    assert_eq!(mean(), [0.0]);
    unet.forward_t(&photos, true).unwrap();
    assert_ne!(mean(), [0.0]);
}

#[test]
fn a_direct_network_agrees_with_a_fast_one_but_not_in_bits() {
    let photos = Tensor::from_iter((0..3 * 32 * 32).map(|i| (i as f32).sin()), &Device::Cpu).unwrap();
    let photos = photos.reshape((1, 3, 32, 32)).unwrap();
    let output = |exactness| {
        let parameters = Parameters::new(1, &Device::Cpu).with_exactness(exactness);
        let unet = UNet::new(&parameters, &UNetConfig::report(8), 3, 3).unwrap();
        unet.forward_t(&photos, false).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (fast, direct) = (output(ops::Exactness::Fast), output(ops::Exactness::Direct));
    assert!(fast != direct);
    assert!(fast.iter().zip(&direct).all(|(fast, direct)| (fast - direct).abs() < 1e-4));
}

#[test]
fn sizes_that_do_not_halve_four_times_are_refused() {
    let (_, unet) = unet(1, 3);
    let photos = Tensor::zeros((1, 3, 24, 16), DType::F32, &Device::Cpu).unwrap();
    let error = unet.forward_t(&photos, false).unwrap_err().to_string();
    assert!(error.starts_with("16x24 image: U-Net takes"), "{error}");
    assert!(error.contains("16x16 and 16x32"), "{error}");
    let parameters = Parameters::new(1, &Device::Cpu);
    assert!(UNet::new(&parameters, &UNetConfig::report(0), 3, 3).is_err());
}

/// The bottleneck of one 16x16 photo is a single pixel, which has no variance.
#[test]
fn a_batch_without_variance_is_refused_in_training() {
    let (_, unet) = unet(1, 3);
    let photo = Tensor::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
    assert!(unet.forward_t(&photo, false).is_ok());
    assert!(unet.forward_t(&photo, true).is_err());
}

/// Every choice but the report's.
fn other(base_channels: usize) -> UNetConfig {
    UNetConfig {
        levels: 3,
        max_channels: 3 * base_channels,
        block: BlockKind::Residual,
        norm: NormConfig::Group(2),
        up: UpSampling::Bilinear,
        dropout: 0.5,
        ..UNetConfig::report(base_channels)
    }
}

fn waves(shape: (usize, usize, usize, usize)) -> Tensor {
    let count = shape.0 * shape.1 * shape.2 * shape.3;
    Tensor::from_iter((0..count).map(|i| (i as f32).sin()), &Device::Cpu).unwrap().reshape(shape).unwrap()
}

fn count(config: &UNetConfig) -> usize {
    let parameters = Parameters::new(1, &Device::Cpu);
    UNet::new(&parameters, config, 3, 3).unwrap();
    parameters.count()
}

/// By hand: a 3x3 convolution has 9 i o + o, a 1x1 has i o + o, a norm 2 o.
#[test]
fn each_choice_has_its_parameters() {
    let report = UNetConfig::report(4);
    let block = |i: usize, o: usize| (9 * i * o + o) + (9 * o * o + o) + 4 * o;
    let two =
        block(3, 4) + block(4, 8) + block(8, 16) + (4 * 16 * 8 + 8) + block(16, 8) + (4 * 8 * 4 + 4) + block(8, 4);
    assert_eq!(count(&UNetConfig { levels: 2, ..report }), two + 15);
    assert_eq!(count(&UNetConfig { norm: NormConfig::Group(2), ..report }), 122_471);
    assert_eq!(count(&UNetConfig { norm: NormConfig::Instance, ..report }), 122_471);
    assert_eq!(count(&UNetConfig { dropout: 0.5, ..report }), 122_471);
    let up: usize = [4, 8, 16, 32].iter().map(|o| (9 - 4) * 2 * o * o).sum();
    assert_eq!(count(&UNetConfig { up: UpSampling::Nearest, ..report }), 122_471 + up);
    assert_eq!(count(&UNetConfig { up: UpSampling::Bilinear, ..report }), 122_471 + up);
    let pairs = [(3, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 32), (32, 16), (16, 8), (8, 4)];
    let shortcuts: usize = pairs.iter().map(|(i, o)| i * o + o).sum();
    assert_eq!(count(&UNetConfig { block: BlockKind::Residual, ..report }), 122_471 + shortcuts);
    let narrow = block(3, 4) + block(4, 6) + block(6, 6) + (4 * 36 + 6) + block(12, 6) + (4 * 24 + 4) + block(8, 4);
    assert_eq!(count(&UNetConfig { levels: 2, max_channels: 6, ..report }), narrow + 15);
}

#[test]
fn names_follow_the_choices() {
    let parameters = Parameters::new(1, &Device::Cpu);
    UNet::new(&parameters, &other(2), 3, 3).unwrap();
    let names = parameters.tensors();
    for name in ["en1.conv.shortcut.weight", "en3.conv.norm2.bias", "b.norm1.weight", "d3.up.weight", "outputs.bias"] {
        assert!(names.contains_key(name), "{name}");
    }
    // The third level and the bottleneck have 6 channels each, so that nothing needs a projection there.
    assert!(!names.keys().any(|name| name.starts_with("b.shortcut") || name.contains("bn") || name.contains("convT")));
}

#[test]
fn every_choice_gives_an_image_and_gradients_of_our_own() {
    let photos = waves((2, 3, 16, 32));
    for block in [BlockKind::Plain, BlockKind::Residual] {
        for norm in [NormConfig::Batch, NormConfig::Instance, NormConfig::Group(2)] {
            for up in [UpSampling::Transposed, UpSampling::Nearest, UpSampling::Bilinear] {
                let config = UNetConfig { block, norm, up, ..other(2) };
                let parameters = Parameters::new(1, &Device::Cpu);
                let unet = UNet::new(&parameters, &config, 3, 5).unwrap();
                let output = unet.forward_t(&photos, true).unwrap();
                assert_eq!(output.dims(), [2, 5, 16, 32]);
                let loss = ops::mse(&output, &output.zeros_like().unwrap()).unwrap();
                let gradients = ops::backward(loss).unwrap();
                assert!(!gradients.through_candle(), "{config:?}");
                let trainable = parameters.trainable();
                assert!(trainable.iter().all(|(_, parameter)| gradients.get(parameter).is_some()), "{config:?}");
                let view = UNet::new(&parameters.detached(), &config, 3, 5).unwrap();
                assert!(!view.forward_t(&photos, true).unwrap().track_op());
            }
        }
    }
}

#[test]
fn dropout_follows_the_step_and_only_in_training() {
    let parameters = Parameters::new(1, &Device::Cpu);
    let unet = UNet::new(&parameters, &other(2), 3, 3).unwrap();
    let photos = waves((1, 3, 16, 16));
    let output = |train| unet.forward_t(&photos, train).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (first, evaluated) = (output(true), output(false));
    assert!(first == output(true) && first != evaluated);
    parameters.set_step(1);
    assert!(first != output(true));
    assert!(evaluated == output(false));
}

/// Where nothing but one of the two can bring the step into the output.
#[test]
fn dropout_is_at_the_end_of_the_contracting_path() {
    let photos = waves((1, 3, 16, 16));
    let config = UNetConfig { block: BlockKind::Plain, ..other(2) };
    let changes = |fixed: &[(&str, f32)], skip: bool| {
        let parameters = Parameters::new(1, &Device::Cpu);
        let unet = UNet::new(&parameters, &config, 3, 3).unwrap();
        for (name, weight) in parameters.trainable() {
            if let Some((_, value)) = fixed.iter().find(|(fixed, _)| name == *fixed) {
                weight.set(&Tensor::full(*value, weight.shape(), &Device::Cpu).unwrap()).unwrap();
            }
            if name == "d1.conv.conv1.weight" && !skip {
                let half = weight.dim(1).unwrap() / 2;
                let zeros = weight.as_detached_tensor().narrow(1, half, half).unwrap().zeros_like().unwrap();
                weight.slice_set(&zeros, 1, half).unwrap();
            }
        }
        let output = || unet.forward_t(&photos, true).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let first = output();
        parameters.set_step(1);
        first != output()
    };
    let no_bottleneck = [("d1.up.weight", 0.0)];
    assert!(changes(&no_bottleneck, true));
    assert!(!changes(&no_bottleneck, false));
    let constant_bottleneck = [("b.norm2.weight", 0.0), ("b.norm2.bias", 1.0)];
    assert!(changes(&constant_bottleneck, false));
}

#[test]
fn a_table_says_every_choice() {
    let config = |norm: &str| {
        let text = format!(
            r#"{{"base_channels": 4, "stem": "none", "levels": 5, "max_channels": 64, "block": "residual", "norm": {norm}, "up": "nearest", "dropout": 0.5}}"#
        );
        serde_json::from_str::<UNetConfig>(&text)
    };
    let read = config(r#"{"group": 8}"#).unwrap();
    let expected = UNetConfig {
        stem: Stem::None,
        base_channels: 4,
        levels: 5,
        max_channels: 64,
        block: BlockKind::Residual,
        norm: NormConfig::Group(8),
        up: UpSampling::Nearest,
        dropout: 0.5,
    };
    assert_eq!(read, expected);
    assert_eq!(config(r#""batch""#).unwrap().norm, NormConfig::Batch);
    assert!(config(r#""layer""#).unwrap_err().to_string().contains("layer"));
    assert!(config(r#""batch", "depth": 4"#).unwrap_err().to_string().contains("unknown field `depth`"));
    let missing =
        serde_json::from_str::<UNetConfig>(r#"{"base_channels": 4, "stem": "none"}"#).unwrap_err().to_string();
    assert!(missing.contains("missing field `levels`"), "{missing}");
}

#[test]
fn choices_that_make_no_network_are_refused() {
    let refused =
        |config: UNetConfig| UNet::new(&Parameters::new(1, &Device::Cpu), &config, 3, 3).unwrap_err().to_string();
    let report = UNetConfig::report(4);
    assert_eq!(refused(UNetConfig { levels: 8, ..report }), "U-Net of levels 8: there may be 1 to 7");
    assert_eq!(refused(UNetConfig { levels: 0, ..report }), "U-Net of levels 0: there may be 1 to 7");
    assert!(refused(UNetConfig { max_channels: 0, ..report }).ends_with("none may be 0"));
    assert!(refused(UNetConfig { dropout: 1.0, ..report }).starts_with("dropout 1: "));
    let error = refused(UNetConfig { norm: NormConfig::Group(3), ..report });
    assert_eq!(error, "group norm of 4 channels: 3 groups do not divide them");
    let deep = UNetConfig { levels: 7, ..report };
    assert!(deep.check_size(128, 256).is_ok());
    assert!(deep.check_size(128, 192).unwrap_err().to_string().contains("128x128 and 256x128"));
    assert!(UNetConfig { levels: 70, ..report }.check_size(128, 128).is_err());
}

/// A stem of `3 * 16 * 4 + 4` weights and `2 * 4` of its norm, and a first level that sees 4 channels instead of 3.
#[test]
fn a_stem_halves_the_photo_and_the_output_has_its_size() {
    let parameters = Parameters::new(1, &Device::Cpu);
    let config = UNetConfig { stem: Stem::Halve, ..UNetConfig::report(4) };
    let unet = UNet::new(&parameters, &config, 3, 19).unwrap();
    assert_eq!(parameters.count(), 122_551 + (3 * 16 * 4 + 4) + 2 * 4 + 9 * 4);
    let photos = Tensor::zeros((1, 3, 64, 32), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(unet.forward_t(&photos, true).unwrap().dims(), [1, 19, 64, 32]);
    assert_eq!(config.side_multiple(), 32);
    let photos = Tensor::zeros((1, 3, 16, 32), DType::F32, &Device::Cpu).unwrap();
    let refused = unet.forward_t(&photos, true).unwrap_err().to_string();
    assert!(refused.contains("multiples of 32") && refused.contains("32x32"), "{refused}");
}
