use candle_core::{DType, Device, Tensor};
use img2seg_ops::Exactness;

use super::*;
use crate::Parameters;

fn generator(base_channels: usize, noise_channels: usize) -> (Parameters, Generator) {
    let parameters = Parameters::new(1, &Device::Cpu);
    let generator = Generator::new(&parameters, &GeneratorConfig { base_channels, noise_channels }).unwrap();
    (parameters, generator)
}

fn discriminator(base_channels: usize) -> (Parameters, Discriminator) {
    let parameters = Parameters::new(1, &Device::Cpu);
    let discriminator = Discriminator::new(&parameters, &DiscriminatorConfig { base_channels }).unwrap();
    (parameters, discriminator)
}

fn waves(shape: (usize, usize, usize, usize)) -> Tensor {
    let count = shape.0 * shape.1 * shape.2 * shape.3;
    let values = (0..count).map(|i| (i as f32).sin());
    Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(shape).unwrap()
}

/// The counts are those of the report's listings in PyTorch.
#[test]
fn they_have_as_many_parameters_as_the_listings() {
    assert_eq!([generator(1, 0).0.count(), generator(4, 0).0.count()], [9_736, 152_992]);
    assert_eq!(generator(64, 0).0.count(), 38_943_232);
    assert_eq!([discriminator(1).0.count(), discriminator(4).0.count()], [924, 11_760]);
    assert_eq!(discriminator(64).0.count(), 2_768_640);
}

#[test]
fn the_generator_paints_in_bounds_at_the_photos_size() {
    let (_, generator) = generator(1, 0);
    let painted = generator.forward_t(&waves((2, 3, 64, 96)), None, true).unwrap();
    assert_eq!(painted.dims(), [2, 3, 64, 96]);
    let largest = painted.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    assert!(largest > 0.0 && largest <= 1.0, "{largest}");
}

#[test]
fn direct_networks_agree_with_fast_ones_but_not_in_bits() {
    let photos = waves((1, 3, 64, 64));
    let outputs = |exactness| {
        let parameters = Parameters::new(1, &Device::Cpu).with_exactness(exactness);
        let config = GeneratorConfig { base_channels: 8, noise_channels: 0 };
        let generator = Generator::new(&parameters.scope("generator"), &config).unwrap();
        let config = DiscriminatorConfig { base_channels: 8 };
        let discriminator = Discriminator::new(&parameters.scope("discriminator"), &config).unwrap();
        let painted = generator.forward_t(&photos, None, false).unwrap();
        let judged = discriminator.forward_t(&photos, &photos, false).unwrap();
        [painted, judged].map(|output| output.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    for (fast, direct) in outputs(Exactness::Fast).iter().zip(outputs(Exactness::Direct)) {
        assert!(*fast != direct);
        assert!(fast.iter().zip(&direct).all(|(fast, direct)| (fast - direct).abs() < 1e-4));
    }
}

#[test]
fn noise_takes_planes_of_its_own_and_changes_the_picture() {
    let (parameters, generator) = generator(2, 4);
    assert_eq!(parameters.tensors()["downSampling.0.weight"].dims(), [2, 7, 4, 4]);
    let photos = waves((1, 3, 64, 64));
    let paint = |noise: &Tensor| {
        let painted = generator.forward_t(&photos, Some(noise), false).unwrap();
        painted.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let noise = waves((1, 4, 64, 64));
    assert_eq!(paint(&noise), paint(&noise));
    assert_ne!(paint(&noise), paint(&noise.neg().unwrap()));
    assert!(generator.forward_t(&photos, None, false).unwrap_err().to_string().contains("takes 4 channels of noise"));
    let (_, silent) = self::generator(1, 0);
    assert!(silent.forward_t(&photos, Some(&noise), false).unwrap_err().to_string().contains("takes none"));
}

#[test]
fn the_discriminator_makes_every_patch_a_sample() {
    let (_, discriminator) = discriminator(1);
    let logits = |height, width| {
        let photos = waves((2, 3, height, width));
        discriminator.forward_t(&photos, &photos, true).unwrap().dims().to_vec()
    };
    assert_eq!(logits(64, 64), [2, 1, 1, 1]);
    assert_eq!(logits(64, 96), [2 * 3, 1, 1, 1]);
    assert_eq!(logits(70, 100), [2 * 3, 1, 1, 1]); // halvings round down
}

#[test]
fn sizes_that_cannot_be_taken_are_refused() {
    let photos = Tensor::zeros((1, 3, 72, 48), DType::F32, &Device::Cpu).unwrap();
    let refused = generator(1, 0).1.forward_t(&photos, None, false).unwrap_err().to_string();
    assert!(refused.starts_with("48x72 image: the generator takes"), "{refused}");
    assert!(refused.contains("64x64 and 64x80"), "{refused}");
    let refused = discriminator(1).1.forward_t(&photos, &photos, false).unwrap_err().to_string();
    assert!(refused.contains("the nearest size is 64x72"), "{refused}");
}
