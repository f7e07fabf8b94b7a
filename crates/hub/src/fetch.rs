use std::fs;
use std::path::Path;

use img2seg_data::Split;
use rayon::prelude::*;

use crate::cache::{self, Cached, Snapshot};
use crate::download::Hub;
use crate::partial::Partial;
use crate::shards::of_configuration;
use crate::table::Table;
use crate::{DataSetName, HubError, Summary};

/// How far [`fetch`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Parquet files are being downloaded into the Hub cache; the next word comes when all are there.
    Downloading,
    /// Pairs are being checked and written.
    Writing {
        /// Pairs so far.
        done: usize,
        /// Pairs of all splits.
        total: usize,
    },
}

/// Makes `root` a folder with the pairs of a data set on the Hub, from the local Hub cache if it has the data set.
///
/// A table with one column of images holds side-by-side pairs and becomes `SPLIT/NNNNN.{png,jpg}`; one with two becomes
/// `SPLIT/images/NNNNN.*` and `SPLIT/masks/NNNNN.*`, `NNNNN` counting the rows of the split from 0. The files hold the very
/// bytes of the cells; each was decoded to see that it can be, and that a photo and its label map have one size. Where the Hub
/// has no validation split, the last tenth of its train split, rounded up, becomes `val`. Parquet files are read in the order of
/// their names; a name without a split counts as train.
///
/// A `root` that this data set was fetched into is reused unless the cache has another commit. The cache is where `HF_HUB_CACHE`
/// or `HF_HOME` say; once there, a data set is not looked for on the Hub again, and `HF_HUB_OFFLINE=1` never looks.
///
/// ```no_run
/// use img2seg_hub::{DataSetName, Progress, fetch};
///
/// let name: DataSetName = "huggan/facades".parse()?;
/// let summary = fetch(&name, &name.default_root(), &|progress| {
///     if let Progress::Writing { done, total } = progress {
///         println!("{done} of {total}");
///     }
/// })?;
/// assert!(summary.train > 0);
/// # Ok::<(), img2seg_hub::HubError>(())
/// ```
///
/// # Errors
/// The data set is neither in the cache nor to be had from the Hub; its tables do not hold pairs of PNG or JPEG images (the file
/// and row are named); `root` holds something else; or the disk fails. Then there is no `root`.
pub fn fetch(name: &DataSetName, root: &Path, progress: &dyn Fn(Progress)) -> Result<Summary, HubError> {
    fetch_from(Hub::from_environment(), name, root, progress)
}

pub(crate) fn fetch_from(
    hub: Hub,
    name: &DataSetName,
    root: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Summary, HubError> {
    let cached = cache::find(&hub.cache, name)?;
    if let Some(summary) = reuse(root, name, &cached)? {
        return Ok(summary);
    }
    let partial = Partial::claim(root)?;
    // Another process may have finished between the look and the claim.
    if let Some(summary) = reuse(root, name, &cached)? {
        return Ok(summary);
    }
    let snapshot = match cached {
        Cached::Whole(snapshot) => snapshot,
        Cached::Lacking(lacking) => {
            progress(Progress::Downloading);
            hub.download(name, lacking)?
        }
    };
    let summary = write(&snapshot, name, partial.folder(), progress)?;
    summary.write(partial.folder())?;
    partial.finish()?;
    Ok(summary)
}

/// The summary of a finished folder with this data set; `None` if there is no folder, or an empty one, which is removed.
fn reuse(root: &Path, name: &DataSetName, cached: &Cached) -> Result<Option<Summary>, HubError> {
    let occupied = |holds: String| Err(HubError::Occupied { root: root.to_owned(), holds });
    match (Summary::read(root)?, cached) {
        (None, _) if !root.exists() || fs::remove_dir(root).is_ok() => Ok(None),
        (None, _) => occupied("holds something else".to_owned()),
        (Some(summary), _) if summary.name != name.to_string() => occupied(format!("holds {}", summary.name)),
        (Some(summary), Cached::Whole(snapshot)) if summary.commit != snapshot.commit => {
            occupied(format!("holds {name} at {}, the Hub cache has {}", summary.commit, snapshot.commit))
        }
        (Some(summary), _) => Ok(Some(Summary { reused: true, ..summary })),
    }
}

/// Writes the pairs of all splits below `folder`.
fn write(
    snapshot: &Snapshot,
    name: &DataSetName,
    folder: &Path,
    progress: &dyn Fn(Progress),
) -> Result<Summary, HubError> {
    let (configuration, shards) = of_configuration(snapshot.shards.clone(), name)?;
    let (mut tables, mut left_out) = (Vec::new(), Vec::new());
    for shard in shards {
        match shard.split {
            Some(split) => tables.push((split, shard.file)),
            None => left_out.push(shard.file),
        }
    }

    let mut columns = Vec::new();
    let mut rows = [0_usize; 3]; // of train, val and test on the Hub
    for (split, file) in &tables {
        let table = Table::open(&snapshot.folder.join(file))?;
        if columns.is_empty() {
            columns = table.choose_columns()?;
        }
        rows[*split as usize] = rows[*split as usize].saturating_add(table.rows()?);
    }
    let total = rows.iter().fold(0, |sum: usize, rows| sum.saturating_add(*rows));
    if total == 0 {
        return Err(HubError::Empty { name: name.to_string() });
    }
    let [train, val, test] = rows;
    let val_from_train = if val == 0 { train.div_ceil(10).min(train.saturating_sub(1)) } else { 0 };
    let first_val = train - val_from_train; // the number of the first row of train that goes to val

    let mut written = [0_usize; 3]; // rows of train, val and test on the Hub
    let mut done = 0;
    for (split, file) in &tables {
        let table = Table::open(&snapshot.folder.join(file))?;
        table.read(&columns, |pairs| {
            let before = written[*split as usize];
            let results: Vec<_> = pairs
                .par_iter()
                .enumerate()
                .map(|(i, pair)| {
                    let number = before + i;
                    if *split == Split::Train && number >= first_val {
                        pair.write(&folder.join(Split::Val.name()), number - first_val)
                    } else {
                        pair.write(&folder.join(split.name()), number)
                    }
                })
                .collect();
            results.into_iter().collect::<Result<(), _>>()?; // the first error in the order of the rows
            written[*split as usize] += pairs.len();
            done += pairs.len();
            progress(Progress::Writing { done, total });
            Ok(())
        })?;
    }
    Ok(Summary {
        name: name.to_string(),
        commit: snapshot.commit.clone(),
        configuration,
        columns,
        train: first_val,
        val: val + val_from_train,
        test,
        val_from_train,
        files: tables.into_iter().map(|(_, file)| file).collect(),
        left_out,
        reused: false,
    })
}
