//! Differentiable ops for candle tensors: convolution, normalisation, pooling, resampling, losses and the Adam step.
//!
//! Each op means what PyTorch's op of that name means and brings its own backward pass, because candle's are naive,
//! or wrong, or missing (the file of each op says which). Images are `(n, c, h, w)`.
//!
//! ```
//! use candle_core::{Device, Var};
//! use img2seg_ops::{Conv2d, conv2d, max_pool2d, relu};
//!
//! # fn main() -> candle_core::Result<()> {
//! let x = Var::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu)?; // (1, 1, 2, 2)
//! let weight = Var::new(&[[[[2f32]]]], &Device::Cpu)?; // (out, in, 1, 1)
//! let y = max_pool2d(&relu(&conv2d(&x, &weight, None, Conv2d::default())?)?, 2)?;
//! assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [8.]);
//!
//! let gradients = y.sum_all()?.backward()?;
//! assert_eq!(gradients.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?, [0., 0., 0., 2.]);
//! assert_eq!(gradients.get(&weight).unwrap().flatten_all()?.to_vec1::<f32>()?, [4.]);
//! # Ok(())
//! # }
//! ```

mod check;
mod elementwise;
mod matmul;
mod node;
mod taps;
#[cfg(test)]
mod verify;

mod activation;
mod adam;
mod batch_norm;
mod bce;
mod conv2d;
mod conv_transpose2d;
mod cross_entropy;
mod instance_norm;
mod max_pool2d;
mod regression;
mod resize;

pub use activation::{Activation, leaky_relu, relu, sigmoid, tanh};
pub use adam::{AdamStep, adam_step};
pub use batch_norm::{BatchStatistics, batch_norm_eval, batch_norm_train};
pub use bce::bce_with_logits;
pub use conv_transpose2d::{ConvTranspose2d, conv_transpose2d};
pub use conv2d::{Conv2d, conv2d};
pub use cross_entropy::{VOID, cross_entropy};
pub use instance_norm::instance_norm;
pub use max_pool2d::max_pool2d;
pub use regression::{l1, mse};
pub use resize::{Resize, resize};
