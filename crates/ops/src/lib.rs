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
mod allocator;
mod check;
mod conv2d;
mod conv_transpose2d;
mod cuda;
mod dropout;
mod kernel;
mod loss;
mod norm;
mod optimizer;
mod pool;
mod resize;
mod shape;
mod taps;
mod upload;
#[cfg(test)]
mod verify;

pub use activation::{Activation, add, leaky_relu, relu, sigmoid, soft_clamp, tanh};
pub use cuda::{Algorithms, cuda_device, cuda_peak_memory, cuda_refusals};
pub use kernel::{Gradients, arithmetic, backward, cpu_features, limit_arithmetic};
pub use loss::*;
pub use norm::*;
pub use optimizer::*;
pub use {allocator::BySize, conv_transpose2d::*, conv2d::*};
pub use {dropout::*, pool::*, resize::*, shape::*, upload::*};
