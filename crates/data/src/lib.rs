//! From files on disk to batches of tensors: photos of streets, label maps whose colours stand for classes, class ids.
//! Read `config`, `classes`, `sample`, `dataset`, `augment`, `loader`; `streets` needs no files.
//!
//! ```
//! use img2seg_data::{Batch, ClassTable, fit, streets};
//!
//! let scene = streets::scene(1, 7, 64, 128);
//! let table = ClassTable::load("cityscapes")?;
//! assert_eq!(table.decode_image(&scene.label_map), scene.labels);
//! let batch = Batch::stack(&[fit(&scene, 32, 64)])?;
//! assert_eq!(batch.photos.dims(), [1, 3, 32, 64]);
//! # Ok::<(), img2seg_data::DataError>(())
//! ```

mod augment;
mod check;
mod classes;
mod config;
mod dataset;
mod decode;
mod error;
pub mod keyed;
mod loader;
pub mod resize;
mod sample;
mod sheet;
pub mod streets;
mod write;

pub use augment::{AugmentConfig, fit};
pub use check::{CheckReport, ClassCounts, Finding, FindingKind, SplitReport, check};
pub use classes::{Class, ClassTable, read_text};
pub use config::{DataConfig, Direction, Layout, MAX_SIDE, ParseSplitError, Split};
pub use dataset::{Dataset, split_pair};
pub use decode::{decode_image, read_image};
pub use error::{DataError, shown};
pub use loader::{Batches, Loader, LoaderConfig};
pub use sample::{Batch, Sample, VOID, photo_tensor};
pub use sheet::sheet;
pub use write::write_pair;
