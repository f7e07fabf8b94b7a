use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use img2seg_models::{
    BlockKind, NormConfig, Parameters, Patch, PatchDiscriminator, PatchDiscriminatorConfig, Pix2pixNorm, UNet,
    UNetConfig, UnetGenerator, UnetGeneratorConfig, UpSampling,
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
    compare_network(oracle, "generator", &parameters, &|x, train| network.forward_t(x, train))?;

    for (name, norm, spectral_norm) in [("patch", Pix2pixNorm::Batch, false), ("spectral", Pix2pixNorm::None, true)] {
        let config = PatchDiscriminatorConfig { base_channels: 2, patch: Patch::Side70, norm, spectral_norm };
        let parameters = self::parameters();
        let network = PatchDiscriminator::new(&parameters, &config, 6)?;
        compare_network(oracle, name, &parameters, &|x, train| network.forward_t(None, x, train))?;
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
    compare_network(oracle, "unet", &parameters, &|x, train| network.forward_t(x, train))
}

fn parameters() -> Parameters {
    Parameters::new(0, &Device::Cpu)
}

fn compare_network(
    oracle: &mut Oracle,
    network: &str,
    parameters: &Parameters,
    forward: &dyn Fn(&Tensor, bool) -> candle_core::Result<Tensor>,
) -> Result<()> {
    let (x, y) = (oracle.tensor(&format!("{network}.x"))?, oracle.tensor(&format!("{network}.y"))?);
    parameters.load(&oracle.tensors(&format!("{network}.init."))).context(network.to_owned())?;
    oracle.check(&format!("{network}.out.eval"), &forward(&x, false)?, Tolerance::OUTPUT)?;
    let output = forward(&x, true)?;
    oracle.check(&format!("{network}.out.train"), &output, Tolerance::OUTPUT)?;
    let gradients = ops::backward(ops::mse(&output, &y)?)?;
    for (name, parameter) in parameters.trainable() {
        let gradient = gradients.get(&parameter).with_context(|| format!("{name}: received no gradient"))?;
        oracle.check(&format!("{network}.grad.{name}"), gradient, Tolerance::OUTPUT)?;
    }
    for (name, buffer) in parameters.buffers() {
        oracle.check(&format!("{network}.after.{name}"), &buffer, Tolerance::OUTPUT)?;
    }
    oracle.check(&format!("{network}.out.after"), &forward(&x, false)?, Tolerance::OUTPUT)
}
