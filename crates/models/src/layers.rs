//! Layers with parameters, named and initialised as PyTorch's modules of the same names.

mod conv;
mod dropout;
mod norm;
mod spectral;

pub use conv::{Conv2d, ConvTranspose2d};
pub use dropout::Dropout;
pub use norm::{BatchNorm2d, GroupNorm, InstanceNorm2d, Norm};
pub use spectral::SpectralConv2d;
