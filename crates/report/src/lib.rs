//! Figures and the HTML page of finished runs.
//!
//! This crate reads the text files and pictures of a run directory, without tensors. Its page is one file that loads nothing.
//!
//! ```
//! use image::{Rgb, RgbImage};
//! use img2seg_data::ClassTable;
//!
//! let table = ClassTable::load("camvid")?;
//! let photo = RgbImage::from_pixel(1, 1, Rgb([100, 100, 100]));
//! let tinted = img2seg_report::overlay(&photo, &[3], &table);
//! assert_eq!(tinted.get_pixel(0, 0).0, [114, 82, 114]); // halfway to the purple of roads
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod run;

mod chart;
mod comparison;
mod confusion;
mod error;
mod error_map;
#[cfg(test)]
mod fake;
mod indexed;
mod lettering;
mod overlay;
mod page;
mod sheet;
mod table;
#[cfg(test)]
mod tests;
mod write;

pub use error::ReportError;
pub use indexed::indexed_png;
pub use overlay::overlay;
pub use run::Run;
pub use sheet::dataset_sheet;
pub use write::{Compared, compare, write};
