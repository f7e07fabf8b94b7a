//! Differentiable ops for candle tensors, each with its own backward pass and with the meaning of PyTorch's op of its name.
//!
//! ```
//! use candle_core::{Device, Var};
//! use img2seg_ops::{Conv2d, backward, conv2d, max_pool2d};
//! let x = Var::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu)?; // (n, c, h, w)
//! let weight = Var::new(&[[[[2f32]]]], &Device::Cpu)?; // (out, in, 1, 1)
//! let y = max_pool2d(&conv2d(&x, &weight, None, Conv2d::default())?, 2)?;
//! let gradients = backward(y)?; // or y.backward(), where ops of candle's stand between
//! assert_eq!(gradients.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?, [0., 0., 0., 2.]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod activation;
mod batch_norm;
mod check;
mod conv2d;
mod conv_transpose2d;
mod instance_norm;
mod kernel;
mod loss;
mod max_pool2d;
mod optimizer;
mod resize;
mod shape;
mod taps;
#[cfg(test)]
mod verify;

pub use activation::{Activation, leaky_relu, relu, sigmoid, tanh};
pub use batch_norm::{BatchStatistics, NormEval, batch_norm_eval, batch_norm_train};
pub use conv_transpose2d::{ConvTranspose2d, conv_transpose2d, conv_transpose2d_norm_eval};
pub use conv2d::{Conv2d, Exactness, conv2d, conv2d_norm_eval, cudnn_refusal};
pub use instance_norm::instance_norm;
pub use kernel::{Gradients, arithmetic, backward, cpu_features, limit_arithmetic};
pub use loss::*;
pub use max_pool2d::max_pool2d;
pub use optimizer::{AdamParameter, AdamStep, SgdParameter, SgdStep, adam_step, adam_steps};
pub use optimizer::{move_towards, sgd_steps, squared_norms};
pub use resize::{Resize, resize};
pub use shape::{cat, reshape};
