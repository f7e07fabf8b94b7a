use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use img2seg_models::{Discriminator, DiscriminatorConfig, Generator, GeneratorConfig, Parameters};
use img2seg_ops::{Gradients, backward, bce_with_logits, sigmoid, weighted_sum};

use super::Tolerance;
use super::adam::Adam;
use super::oracle::Oracle;

/// The conditional GAN: both networks before training, their gradients in the first step, and what as many steps of the report's
/// Listing 4 as there are losses make of them.
pub(super) fn compare(oracle: &mut Oracle) -> Result<()> {
    let (x, y) = (oracle.tensor("x")?, oracle.tensor("y")?);
    let base_channels = oracle.base_channels("init.generator.upSampling.0.weight")?;
    let loss: String = oracle.setting("loss")?;
    ensure!(loss == "bce", "metadata loss = {loss}: not bce");

    let parameters = Parameters::new(0, &Device::Cpu);
    let (ours, theirs) = (parameters.scope("generator"), parameters.scope("discriminator"));
    let generator = Generator::new(&ours, &GeneratorConfig { base_channels, noise_channels: 0 })?;
    let config = DiscriminatorConfig { base_channels };
    let discriminator = Discriminator::new(&theirs, &config)?;
    let view = Discriminator::new(&theirs.detached(), &config)?;
    parameters.load(&oracle.tensors("init."))?;
    let mut generator_adam = Adam::new(oracle, ours.trainable())?;
    let mut discriminator_adam = Adam::new(oracle, theirs.trainable())?;

    oracle.check("out.eval", &generator.forward_t(&x, None, false)?, Tolerance::OUTPUT)?;
    let judged = sigmoid(&discriminator.forward_t(&x, &y, false)?)?; // the file's discriminator ends in it
    oracle.check("disc.eval", &judged, Tolerance::OUTPUT)?;

    let mut losses = Vec::new();
    for step in 0..oracle.tensor("losses")?.dim(0)? {
        let real = bce_with_logits(&discriminator.forward_t(&x, &y, true)?, 1.0)?;
        let painted = generator.forward_t(&x, None, true)?;
        let fake = bce_with_logits(&discriminator.forward_t(&x, &painted.detach(), true)?, 0.0)?;
        let gradients = backward(weighted_sum(&[(&real, 1.0), (&fake, 1.0)])?)?;
        if step == 0 {
            oracle.check("out.train", &painted, Tolerance::OUTPUT)?;
            check_gradients(oracle, &theirs, &gradients)?;
        }
        discriminator_adam.step(&gradients)?;

        let fooled = bce_with_logits(&view.forward_t(&x, &painted, true)?, 1.0)?;
        let gradients = backward(fooled.clone())?;
        if step == 0 {
            check_gradients(oracle, &ours, &gradients)?;
        }
        generator_adam.step(&gradients)?;
        losses.push(Tensor::stack(&[real, fake, fooled], 0)?);
    }
    oracle.check("losses", &Tensor::stack(&losses, 0)?, Tolerance::LOSS)?;
    for (name, tensor) in parameters.tensors() {
        oracle.check(&format!("after.{name}"), &tensor, Tolerance::TRAINED)?;
    }
    oracle.check("out.after", &generator.forward_t(&x, None, false)?, Tolerance::TRAINED_OUTPUT)
}

fn check_gradients(oracle: &mut Oracle, parameters: &Parameters, gradients: &Gradients) -> Result<()> {
    for (name, parameter) in parameters.trainable() {
        let gradient = gradients.get(&parameter).with_context(|| format!("{name}: received no gradient"))?;
        oracle.check(&format!("grad.{name}"), gradient, Tolerance::OUTPUT)?;
    }
    Ok(())
}
