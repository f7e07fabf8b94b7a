use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use img2seg_models::{Parameters, UNet, UNetConfig};
use img2seg_ops as ops;

use super::Tolerance;
use super::adam::Adam;
use super::oracle::Oracle;

/// The U-Net: both modes before training, the gradients of the first step, and what as many steps as there are losses make of it.
pub(super) fn compare(oracle: &mut Oracle) -> Result<()> {
    let (x, y) = (oracle.tensor("x")?, oracle.tensor("y")?);
    let parameters = Parameters::new(0, &Device::Cpu);
    let base_channels = oracle.base_channels("init.b.conv2.weight")?;
    let config = UNetConfig::report(base_channels);
    let unet = UNet::new(&parameters, &config, x.dim(1)?, y.dim(1)?)?;
    parameters.load(&oracle.tensors("init."))?;
    let name: String = oracle.setting("loss")?;
    let loss = match name.as_str() {
        "mse" => ops::mse,
        "l1" => ops::l1,
        _ => bail!("metadata loss = {name}: not mse or l1"),
    };
    let mut adam = Adam::new(oracle, parameters.trainable())?;

    oracle.check("out.eval", &unet.forward_t(&x, false)?, Tolerance::OUTPUT)?;
    let mut losses = Vec::new();
    for step in 0..oracle.tensor("losses")?.dim(0)? {
        let output = unet.forward_t(&x, true)?;
        let loss = loss(&output, &y)?;
        let gradients = ops::backward(loss.clone())?;
        if step == 0 {
            oracle.check("out.train", &output, Tolerance::OUTPUT)?;
            for (name, parameter) in parameters.trainable() {
                let gradient = gradients.get(&parameter).with_context(|| format!("{name}: received no gradient"))?;
                let tolerance = if is_noise(&name) { Tolerance::ZERO_GRADIENT } else { Tolerance::OUTPUT };
                oracle.check(&format!("grad.{name}"), gradient, tolerance)?;
            }
        }
        adam.step(&gradients)?;
        losses.push(loss);
    }
    oracle.check("losses", &Tensor::stack(&losses, 0)?, Tolerance::LOSS)?;
    for (name, tensor) in parameters.tensors() {
        let follows_noise = is_noise(&name) || name.ends_with(".running_mean");
        let tolerance = if follows_noise { Tolerance::of_noise(adam.learning_rate()) } else { Tolerance::TRAINED };
        oracle.check(&format!("after.{name}"), &tensor, tolerance)?;
    }
    oracle.check("out.after", &unet.forward_t(&x, false)?, Tolerance::TRAINED_OUTPUT)
}

/// Whether a parameter is the bias of a convolution that feeds a batch norm.
fn is_noise(name: &str) -> bool {
    name.ends_with(".conv1.bias") || name.ends_with(".conv2.bias")
}
