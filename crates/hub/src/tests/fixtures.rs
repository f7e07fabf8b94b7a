//! Images, parquet files and cache folders for tests.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::DataSetName;
use crate::download::Hub;

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub(super) type Cells = Vec<Option<Vec<u8>>>;

/// A picture whose pixels tell `tone`.
#[allow(clippy::unnecessary_wraps, reason = "the cell of a table may be null")]
pub(super) fn photo(width: u32, height: u32, tone: u8, format: ImageFormat) -> Option<Vec<u8>> {
    let pixels = RgbImage::from_fn(width, height, |x, y| image::Rgb([tone, x as u8, y as u8]));
    Some(encode(&pixels.into(), format))
}

/// A mask of class indices, all `index`.
#[allow(clippy::unnecessary_wraps, reason = "the cell of a table may be null")]
pub(super) fn mask(width: u32, height: u32, index: u8) -> Option<Vec<u8>> {
    Some(encode(&GrayImage::from_pixel(width, height, image::Luma([index])).into(), ImageFormat::Png))
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A parquet file with columns of images as the datasets library writes them, and a number beside each row.
pub(super) fn parquet(columns: &[(&str, Cells)], rows_in_group: usize) -> Vec<u8> {
    let mut message = "message schema { optional int64 id; ".to_owned();
    for (name, _) in columns {
        message += "optional group ";
        message += name;
        message += " { optional binary bytes; optional binary path (UTF8); } ";
    }
    let schema = parse_message_type(&(message + "}")).unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).unwrap();
    let rows = columns[0].1.len();
    for start in (0..rows).step_by(rows_in_group) {
        let range = start..rows.min(start + rows_in_group);
        let mut group = file.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = range.clone().map(|row| row as i64).collect();
        ids.typed::<parquet::data_type::Int64Type>()
            .write_batch(&numbers, Some(&vec![1; numbers.len()]), None)
            .unwrap();
        ids.close().unwrap();
        for (_, cells) in columns {
            let cells = &cells[range.clone()];
            let bytes: Vec<_> = cells.iter().flatten().map(|bytes| ByteArray::from(bytes.clone())).collect();
            let levels: Vec<i16> = cells.iter().map(|cell| if cell.is_some() { 2 } else { 1 }).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&bytes, Some(&levels), None).unwrap();
            column.close().unwrap();
            let mut paths = group.next_column().unwrap().unwrap();
            let names = vec![ByteArray::from("x.png"); cells.len()];
            paths.typed::<ByteArrayType>().write_batch(&names, Some(&vec![2; cells.len()]), None).unwrap();
            paths.close().unwrap();
        }
        group.close().unwrap();
    }
    file.into_inner().unwrap()
}

/// A folder with a Hub cache in it and room for what is fetched.
pub(super) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("downloads/owner--streets")
    }

    /// Puts files into the cache as the main branch of `owner/streets`, linked to blobs as the Hub's libraries do.
    pub(super) fn cached(&self, commit: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
        let repository = self.cache().join("datasets--owner--streets");
        let snapshot = repository.join("snapshots").join(commit);
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), commit).unwrap();
        for (number, (file, bytes)) in files.iter().enumerate() {
            let path = snapshot.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let blob = repository.join(format!("blobs/{commit}{number}"));
            fs::write(&blob, bytes).unwrap();
            #[cfg(unix)]
            std::os::unix::fs::symlink(&blob, &path).unwrap();
            #[cfg(not(unix))]
            fs::copy(&blob, &path).unwrap();
        }
        snapshot
    }

    /// The cache alone, without a network.
    pub(super) fn offline(&self) -> Hub {
        Hub { cache: self.cache(), client: None }
    }
}

pub(super) fn streets() -> DataSetName {
    "owner/streets".parse().unwrap()
}

/// The files below a folder, sorted, as paths from it with `/`.
pub(super) fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(files_below(&path).iter().map(|file| format!("{name}/{file}")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}
