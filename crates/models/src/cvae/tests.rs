use candle_core::Device;

use super::*;

const CONFIG: CvaeConfig = CvaeConfig { base_channels: 2, latent_channels: 3, levels: 3 };

fn cvae(config: CvaeConfig, label_channels: usize, out_channels: usize) -> (Parameters, Cvae) {
    let parameters = Parameters::new(1, &Device::Cpu);
    let cvae = Cvae::new(&parameters, &config, label_channels, out_channels).unwrap();
    (parameters, cvae)
}

fn waves(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    Tensor::from_iter((0..count).map(|i| (i as f32).sin()), &Device::Cpu).unwrap().reshape(shape).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// By hand: the U-Net of the report without its last convolution, the encoder, and five 1x1 convolutions.
#[test]
fn it_has_as_many_parameters_as_its_parts() {
    let (parameters, _) = cvae(CvaeConfig { base_channels: 4, latent_channels: 8, levels: 4 }, 3, 19);
    let unet = 122_471 - (4 * 3 + 3);
    let encoder = 16 * (6 * 4 + 4 * 8 + 8 * 16 + 16 * 32) + 2 * (4 + 8 + 16 + 32) + 2 * (32 * 8 + 8);
    let combine = (12 * 4 + 4) + (4 * 4 + 4) + (4 * 19 + 19);
    assert_eq!(parameters.scope("unet").count(), unet);
    assert_eq!(parameters.scope("encoder").count(), encoder);
    assert_eq!(parameters.count(), unet + encoder + combine);
    let (parameters, _) = cvae(CvaeConfig { base_channels: 64, latent_channels: 8, levels: 4 }, 3, 3);
    assert_eq!(parameters.count(), 31_043_456 + 2_768_784 + 9_027);
}

#[test]
fn a_label_map_becomes_numbers_and_numbers_a_label_map() {
    let (_, cvae) = cvae(CONFIG, 19, 5);
    let (photos, label_maps) = (waves(&[2, 3, 16, 24]), waves(&[2, 19, 16, 24]));
    let (mean, log_variance) = cvae.encode(&photos, &label_maps, true).unwrap();
    assert_eq!((mean.dims(), log_variance.dims()), (&[2, 3][..], &[2, 3][..]));
    assert_eq!(cvae.decode(&photos, &mean, true).unwrap().dims(), [2, 5, 16, 24]);
    // Other label maps have other numbers.
    let (other, _) = cvae.encode(&photos, &label_maps.neg().unwrap(), true).unwrap();
    assert_ne!(values(&other), values(&mean));
}

#[test]
fn log_variances_are_bounded() {
    let (parameters, cvae) = cvae(CONFIG, 3, 3);
    for (name, weight) in parameters.trainable() {
        if name.starts_with("encoder.log_variance") {
            weight.set(&(weight.as_detached_tensor() * 1e6).unwrap()).unwrap();
        }
    }
    let images = waves(&[2, 3, 16, 16]);
    let (_, log_variance) = cvae.encode(&images, &images, true).unwrap();
    assert!(values(&log_variance).iter().all(|value| value.abs() > 7.9 && value.abs() <= 8.0));
}

/// Every pixel and every number counts, and several samples share a photo's features.
#[test]
fn the_latent_changes_every_pixel() {
    let (_, cvae) = cvae(CvaeConfig { base_channels: 8, ..CONFIG }, 3, 3);
    let photos = waves(&[1, 3, 16, 16]);
    let painted = |latent: &[f32; 3]| {
        let latent = Tensor::from_slice(latent, (1, 3), &Device::Cpu).unwrap();
        values(&cvae.decode(&photos, &latent, false).unwrap())
    };
    let zero = painted(&[0.0; 3]);
    for latent in [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]] {
        assert!(painted(&latent).iter().zip(&zero).all(|(a, b)| a.to_bits() != b.to_bits()));
    }
    let features = cvae.features_t(&photos, false).unwrap();
    let again = cvae.paint(&features, &waves(&[1, 3])).unwrap();
    assert_eq!(values(&again), values(&cvae.decode(&photos, &waves(&[1, 3]), false).unwrap()));
}

#[test]
fn gradients_are_ours_and_reach_every_parameter() {
    let (parameters, cvae) = cvae(CONFIG, 3, 3);
    let images = waves(&[2, 3, 16, 16]);
    let (mean, log_variance) = cvae.encode(&images, &images, true).unwrap();
    let latent = ops::add(&mean, &log_variance, Activation::None).unwrap();
    let painted = cvae.decode(&images, &latent, true).unwrap();
    let gradients = ops::backward(ops::mse(&painted, &images).unwrap()).unwrap();
    assert!(!gradients.through_candle());
    for (name, parameter) in parameters.trainable() {
        assert!(gradients.get(&parameter).is_some(), "{name}");
    }
    let view = Cvae::new(&parameters.detached(), &CONFIG, 3, 3).unwrap();
    let (mean, log_variance) = view.encode(&images, &images, true).unwrap();
    assert!(!mean.track_op() && !log_variance.track_op());
    assert!(!view.decode(&images, &mean, true).unwrap().track_op());
}

#[test]
fn what_cannot_be_taken_is_refused() {
    let (parameters, cvae) = cvae(CONFIG, 3, 3);
    let photos = waves(&[1, 3, 16, 20]);
    let error = cvae.encode(&photos, &photos, false).unwrap_err().to_string();
    assert!(error.starts_with("20x16 image: the conditional VAE takes"), "{error}");
    assert!(error.contains("16x16 and 24x16"), "{error}");
    assert!(cvae.decode(&photos, &waves(&[1, 3]), false).is_err());
    let error = cvae.decode(&waves(&[1, 3, 16, 16]), &waves(&[1, 4]), false).unwrap_err().to_string();
    assert_eq!(error, "conditional VAE: latent has shape [1, 4], not [1, 3]");
    let refused = |config| Cvae::new(&parameters, &config, 3, 3).unwrap_err().to_string();
    assert!(refused(CvaeConfig { latent_channels: 0, ..CONFIG }).ends_with("latent_channels 0: none may be 0"));
    assert!(refused(CvaeConfig { levels: 8, ..CONFIG }).contains("levels 8"));
}
