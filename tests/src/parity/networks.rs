use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use img2seg_models::{
    BlockKind, Cvae, CvaeConfig, NormConfig, Parameters, Patch, PatchDiscriminator, PatchDiscriminatorConfig,
    Pix2pixNorm, UNet, UNetConfig, UnetGenerator, UnetGeneratorConfig, UpSampling,
};
use img2seg_ops as ops;

use super::Tolerance;
use super::oracle::Oracle;

/// Our networks beside the lab report's, at the sizes of `tests/pytorch/networks.py`: both modes, the gradients of one pass in training, and
/// what the pass makes of the buffers.
pub(super) fn compare(oracle: &mut Oracle) -> Result<()> {
    let generator = UnetGeneratorConfig { base_channels: 2, levels: 6, norm: Pix2pixNorm::Batch, dropout: 0.0 };
    let parameters = parameters();
    let network = UnetGenerator::new(&parameters, &generator, 3, 3)?;
    compare_network(oracle, "generator", &parameters, &|x, train| Ok((network.forward_t(x, train)?, None)))?;

    for (name, norm, spectral_norm) in [("patch", Pix2pixNorm::Batch, false), ("spectral", Pix2pixNorm::None, true)] {
        let config = PatchDiscriminatorConfig { base_channels: 2, patch: Patch::Side70, norm, spectral_norm };
        let parameters = self::parameters();
        let network = PatchDiscriminator::new(&parameters, &config, 6)?;
        compare_network(oracle, name, &parameters, &|x, train| Ok((network.forward_t(None, x, train)?, None)))?;
    }

    let config = UNetConfig {
        levels: 2,
        max_channels: 8,
        block: BlockKind::Residual,
        norm: NormConfig::Group(2),
        up: UpSampling::Bilinear,
        ..UNetConfig::report(4)
    };
    let parameters = self::parameters();
    let network = UNet::new(&parameters, &config, 3, 5)?;
    compare_network(oracle, "unet", &parameters, &|x, train| Ok((network.forward_t(x, train)?, None)))?;

    let config = CvaeConfig { base_channels: 4, latent_channels: 3, levels: 2 };
    let parameters = self::parameters();
    let network = Cvae::new(&parameters, &config, 5, 5)?;
    let noise = oracle.tensor("cvae.noise")?;
    compare_network(oracle, "cvae", &parameters, &|x, train| {
        let (photos, label_maps) = (x.narrow(1, 0, 3)?, x.narrow(1, 3, 5)?);
        let (mean, log_variance) = network.encode(&photos, &label_maps, train)?;
        let latent = ops::reparameterize(&mean, &log_variance, &noise)?;
        let divergence = (ops::gaussian_kl(&mean, &log_variance)?, 0.1);
        Ok((network.decode(&photos, &latent, train)?, Some(divergence)))
    })
}

/// What a network gives, and a term beside the squared error with its weight.
type Pass = (Tensor, Option<(Tensor, f64)>);

fn parameters() -> Parameters {
    Parameters::new(0, &Device::Cpu)
}

fn compare_network(
    oracle: &mut Oracle,
    network: &str,
    parameters: &Parameters,
    forward: &dyn Fn(&Tensor, bool) -> candle_core::Result<Pass>,
) -> Result<()> {
    let (x, y) = (oracle.tensor(&format!("{network}.x"))?, oracle.tensor(&format!("{network}.y"))?);
    parameters.load(&oracle.tensors(&format!("{network}.init."))).context(network.to_owned())?;
    oracle.check(&format!("{network}.out.eval"), &forward(&x, false)?.0, Tolerance::OUTPUT)?;
    let (output, beside) = forward(&x, true)?;
    oracle.check(&format!("{network}.out.train"), &output, Tolerance::OUTPUT)?;
    let error = ops::mse(&output, &y)?;
    let loss = match &beside {
        Some((term, weight)) => ops::weighted_sum(&[(&error, 1.0), (term, *weight)])?,
        None => error,
    };
    let gradients = ops::backward(loss)?;
    for (name, parameter) in parameters.trainable() {
        let gradient = gradients.get(&parameter).with_context(|| format!("{name}: received no gradient"))?;
        let tolerance = if feeds_a_batch_norm(network, &name) { Tolerance::ZERO_GRADIENT } else { Tolerance::OUTPUT };
        oracle.check(&format!("{network}.grad.{name}"), gradient, tolerance)?;
    }
    for (name, buffer) in parameters.buffers() {
        oracle.check(&format!("{network}.after.{name}"), &buffer, Tolerance::OUTPUT)?;
    }
    oracle.check(&format!("{network}.out.after"), &forward(&x, false)?.0, Tolerance::OUTPUT)
}

/// Whether a parameter is the bias of a convolution that feeds a batch norm.
fn feeds_a_batch_norm(network: &str, name: &str) -> bool {
    let of_a_block = name.ends_with(".conv1.bias") || name.ends_with(".conv2.bias");
    network == "cvae" && name.starts_with("unet.") && of_a_block
}
