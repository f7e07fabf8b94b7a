//! Networks and the named, seeded parameters in them.
//!
//! A network is built from [`Parameters`]: it asks for each of its weights by the name that PyTorch's `state_dict` gives it, and a
//! weight that is not there yet is drawn from (seed, name). So the same seed gives the same network whatever is built before it,
//! on every device, and a checkpoint of the lab report's listings loads by name.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use img2seg_models::{Parameters, UNet, UNetConfig};
//!
//! let parameters = Parameters::new(7, &Device::Cpu);
//! let unet = UNet::new(&parameters, &UNetConfig::report(2), 3, 19)?;
//! let photos = Tensor::zeros((1, 3, 16, 32), DType::F32, &Device::Cpu)?;
//!
//! let logits = unet.forward_t(&photos, false)?;
//! assert_eq!(logits.dims(), [1, 19, 16, 32]);
//! assert_eq!(parameters.trainable()[0].0, "b.bn1.bias");
//! # Ok::<(), candle_core::Error>(())
//! ```

pub mod cgan;
mod cvae;
pub mod layers;
mod parameters;
pub mod pix2pix;
mod pixelwise;
mod sizes;
mod unet;
mod weights;

pub use cgan::{Discriminator, DiscriminatorConfig, Generator, GeneratorConfig};
pub use cvae::{Cvae, CvaeConfig};
pub use parameters::{Init, Parameters};
pub use pix2pix::{
    Patch, PatchDiscriminator, PatchDiscriminatorConfig, Pix2pixNorm, UnetGenerator, UnetGeneratorConfig,
};
pub use pixelwise::{Pixelwise, PixelwiseConfig};
pub use unet::{BlockKind, NormConfig, Stem, UNet, UNetConfig, UpSampling};
pub use weights::{load_weights, read_tensors, read_weights, save_weights};
