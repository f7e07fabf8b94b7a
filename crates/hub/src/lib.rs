//! Data sets of image pairs from the Hugging Face Hub.
//!
//! A data set on the Hub is a handful of parquet files with the encoded images in their cells. [`fetch`] takes them from the
//! local Hub cache, or downloads them into it through [`candle_datasets::hub`], and writes their images as a folder that
//! `img2seg_data` reads like any other. The folder appears when it is complete, says in `hub.toml` where it came from, and
//! is reused from then on, with or without a network.
//!
//! ```
//! use img2seg_hub::DataSetName;
//!
//! let name: DataSetName = "huggan/facades".parse()?;
//! assert_eq!(name.default_root(), std::path::Path::new("data/downloads/huggan--facades"));
//!
//! assert!("huggan/../../facades".parse::<DataSetName>().is_err());
//! # Ok::<(), img2seg_hub::HubError>(())
//! ```

mod cache;
mod columns;
mod download;
mod error;
mod fetch;
mod name;
mod pair;
mod partial;
mod shards;
mod summary;
mod table;

#[cfg(test)]
mod tests;

pub use error::HubError;
pub use fetch::{Progress, fetch};
pub use name::DataSetName;
pub use summary::Summary;
