//! Reading a whole data set to see what is wrong with it.

mod class_counts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use class_counts::ClassCounts;
use image::RgbImage;
use rayon::prelude::*;

use crate::{ClassTable, DataConfig, DataError, Dataset, Split, shown};

/// Files that are read between two words of progress.
const STRIDE: usize = 16;

/// What [`check`] found, split by split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckReport {
    /// In the order that was asked for.
    pub splits: Vec<SplitReport>,
}

impl CheckReport {
    /// A colour farther than this from every colour of the table is off it, in RGB levels. JPEG moves the colours inside of areas
    /// by less; at their edges it mixes neighbours.
    pub const OFF_TABLE_DISTANCE: f64 = 48.0;

    /// A file is listed where more than this share of its pixels is off the table.
    pub const OFF_TABLE_SHARE: f64 = 0.1;

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.splits.iter().all(|split| split.findings.is_empty())
    }
}

/// What [`check`] found in one split.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitReport {
    /// The split.
    pub split: Split,
    /// Samples that were listed, readable or not.
    pub files: usize,
    /// How many readable samples there are of each size (height, width), as stored.
    pub sizes: BTreeMap<(u32, u32), usize>,
    /// The pixels of readable samples by class.
    pub counts: ClassCounts,
    /// What is wrong, in the order of the files.
    pub findings: Vec<Finding>,
}

/// Something wrong with one file, or with a whole split.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The file, or the split's folder.
    pub path: PathBuf,
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// One line that names the file and says what is wrong.
    pub text: String,
}

/// The kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// It cannot be read, has no mate, or holds what the class table does not have.
    Broken,
    /// It cannot be cut into halves, or photo and mask differ in size.
    Size,
    /// Many of its colours are far from every colour of the class table.
    Colors,
}

/// Reads every file of the given splits. `progress` is told (done, total) files of the split at work.
pub fn check(
    root: &Path,
    splits: &[Split],
    config: &DataConfig,
    table: &Arc<ClassTable>,
    progress: &dyn Fn(Split, usize, usize),
) -> CheckReport {
    let splits = splits.iter().map(|&split| match Dataset::open(root, split, config, Arc::clone(table)) {
        Ok(dataset) => check_split(&dataset, &|done, total| progress(split, done, total)),
        Err(error) => SplitReport {
            findings: vec![finding(&root.join(split.name()), &error)],
            ..SplitReport::new(split, 0, table.len())
        },
    });
    CheckReport { splits: splits.collect() }
}

impl SplitReport {
    fn new(split: Split, files: usize, classes: usize) -> Self {
        Self { split, files, sizes: BTreeMap::new(), counts: ClassCounts::new(classes), findings: Vec::new() }
    }
}

fn check_split(dataset: &Dataset, progress: &dyn Fn(usize, usize)) -> SplitReport {
    let total = dataset.len();
    let mut report = SplitReport::new(dataset.split(), total, dataset.table().len());
    for first in (0..total).step_by(STRIDE) {
        let last = (first + STRIDE).min(total);
        let seen: Vec<_> = (first..last).into_par_iter().map(|i| look_at(dataset, i)).collect();
        for (i, seen) in (first..).zip(seen) {
            match seen {
                Ok(seen) => {
                    *report.sizes.entry(seen.size).or_default() += 1;
                    report.counts.merge(&seen.counts);
                    if seen.off_table > CheckReport::OFF_TABLE_SHARE {
                        let path = dataset.mask_path(i).unwrap_or(dataset.path(i));
                        report.findings.push(off_table(path, seen.off_table, dataset.table()));
                    }
                }
                Err(error) => report.findings.push(finding(dataset.path(i), &error)),
            }
        }
        progress(last, total);
    }
    report
}

/// What is kept of a sample.
struct Seen {
    size: (u32, u32),
    counts: ClassCounts,
    off_table: f64,
}

fn look_at(dataset: &Dataset, i: usize) -> Result<Seen, DataError> {
    let sample = dataset.sample(i)?;
    let mut counts = ClassCounts::new(dataset.table().len());
    counts.add(&sample.labels);
    let size = (sample.photo.height(), sample.photo.width());
    Ok(Seen { size, counts, off_table: off_table_share(&sample.label_map, dataset.table()) })
}

fn finding(path: &Path, error: &DataError) -> Finding {
    let kind = match error {
        DataError::NotSideBySide { .. } | DataError::SizesDiffer { .. } => FindingKind::Size,
        _ => FindingKind::Broken,
    };
    Finding { path: path.to_owned(), kind, text: error.to_string() }
}

fn off_table(path: &Path, share: f64, table: &ClassTable) -> Finding {
    let text = format!(
        "{}: {:.1} % of its pixels are more than {} levels from every colour of the class table {}",
        shown(path),
        100.0 * share,
        CheckReport::OFF_TABLE_DISTANCE,
        table.name()
    );
    Finding { path: path.to_owned(), kind: FindingKind::Colors, text }
}

/// The share of pixels that are farther than [`CheckReport::OFF_TABLE_DISTANCE`] from every colour of the table.
fn off_table_share(label_map: &RgbImage, table: &ClassTable) -> f64 {
    let off = label_map.pixels().filter(|pixel| table.distance(pixel.0) > CheckReport::OFF_TABLE_DISTANCE).count();
    off as f64 / (label_map.len() / 3).max(1) as f64
}

#[cfg(test)]
mod tests;
