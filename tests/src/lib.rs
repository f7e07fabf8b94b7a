//! The comparison of our networks and layers with what PyTorch computed for them.
//!
//! A file holds inputs, weights, and PyTorch's outputs, gradients, losses and trained weights for them. [`parity::compare`] computes
//! the same with ours and says how far apart the two are. The files of `tests/oracle` are compared in every test run; the
//! program `parity` compares any.
//!
//! ```
//! use img2seg_tests::parity;
//!
//! let comparison = parity::compare("oracle/layers.safetensors".as_ref())?;
//! assert_eq!(comparison.kind, "layers");
//! assert!(comparison.quantities.iter().all(parity::Quantity::is_within));
//! # Ok::<(), anyhow::Error>(())
//! ```

pub mod parity;
