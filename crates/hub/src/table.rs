use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::HubError;
use crate::columns::{choose, image_columns};
use crate::pair::Pair;

/// Rows in memory at a time: work enough for every core, and at most some hundred megabytes of photos at full size.
const ROWS_AT_A_TIME: usize = 32;

/// One parquet file.
pub(crate) struct Table {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl Table {
    pub(crate) fn open(path: &Path) -> Result<Self, HubError> {
        let file = File::open(path).map_err(HubError::io(path))?;
        // Without what the writer noted of its own types, bytes are always a `BinaryArray`.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options))
            .map_err(|reason| HubError::Table { file: path.to_owned(), reason })?;
        Ok(Self { path: path.to_owned(), file, metadata })
    }

    /// What the file says of itself; [`read`](Self::read) holds it to that.
    pub(crate) fn rows(&self) -> Result<usize, HubError> {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        usize::try_from(rows).map_err(|_| self.broken(format!("says that it has {rows} rows")))
    }

    /// The name of the column of side-by-side pairs, or those of the photos and the label maps.
    pub(crate) fn choose_columns(&self) -> Result<Vec<String>, HubError> {
        let images = image_columns(self.metadata.parquet_schema());
        choose(&images.iter().map(|column| column.name.as_str()).collect::<Vec<_>>())
            .map_err(|reason| self.broken(reason))
    }

    /// Calls `each` with some rows at a time, in order, until all were given; each has one cell for each of `columns`.
    pub(crate) fn read(
        self,
        columns: &[String],
        mut each: impl FnMut(&[Pair]) -> Result<(), HubError>,
    ) -> Result<(), HubError> {
        let images = image_columns(self.metadata.parquet_schema());
        let leaf = |name: &String| match images.iter().find(|image| image.name == *name) {
            Some(image) => Ok(image.leaf),
            None => Err(self.broken(format!("no column of images `{name}`"))),
        };
        let leaves = columns.iter().map(leaf).collect::<Result<Vec<_>, _>>()?;
        let file = self.file.try_clone().map_err(HubError::io(&self.path))?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(ProjectionMask::leaves(self.metadata.parquet_schema(), leaves))
            .with_batch_size(ROWS_AT_A_TIME);
        let mut batches = guarded(|| reader.build()).map_err(|reason| self.broken(reason))?;

        let mut row = 0;
        while let Some(batch) = guarded(|| batches.next().transpose()).map_err(|reason| self.broken(reason))? {
            let cells = columns
                .iter()
                .map(|name| cells(&batch, name).ok_or_else(|| self.broken(format!("column `{name}`: not of bytes"))))
                .collect::<Result<Vec<_>, _>>()?;
            let pairs: Vec<_> = (0..batch.num_rows())
                .map(|i| Pair {
                    file: &self.path,
                    row: row + i,
                    columns,
                    cells: cells.iter().map(|column| column[i]).collect(),
                })
                .collect();
            each(&pairs)?;
            row += batch.num_rows();
        }
        let rows = self.rows()?;
        if row == rows { Ok(()) } else { Err(self.broken(format!("says that it has {rows} rows, but has {row}"))) }
    }

    fn broken(&self, reason: String) -> HubError {
        HubError::Table { file: self.path.clone(), reason }
    }
}

/// What parquet answers. It panics at some damages of a file, where it should answer with an error.
fn guarded<T, E: ToString>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // Unwind safe: after an error nobody uses the reader again.
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("damaged: its parts contradict each other".to_owned()),
    }
}

/// The encoded images of a column, `None` where there is none.
fn cells<'a>(batch: &'a RecordBatch, name: &str) -> Option<Vec<Option<&'a [u8]>>> {
    let images = batch.column_by_name(name)?.as_struct_opt()?;
    let bytes = images.column_by_name("bytes")?.as_binary_opt::<i32>()?;
    Some(bytes.iter().enumerate().map(|(row, bytes)| bytes.filter(|_| images.is_valid(row))).collect())
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_in_parquet_is_an_error() {
        assert_eq!(guarded(|| Ok::<_, String>(3)), Ok(3));
        assert_eq!(guarded(|| Err::<i32, _>("end of file")), Err("end of file".to_owned()));
        let panicked = guarded::<(), String>(|| panic!("as parquet does"));
        assert_eq!(panicked, Err("damaged: its parts contradict each other".to_owned()));
    }
}
