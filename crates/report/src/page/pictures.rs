//! Images of the split, each with its truth and what every run made of it.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, RgbImage};
use img2seg_data::decode_image;

use super::Column;
use super::details::spreads;
use crate::ReportError;
use crate::error_map::error_map;
use crate::run::Picture;
use crate::table::percent;

/// Photos are stored anew where that makes them smaller; label maps never are.
const JPEG_QUALITY: u8 = 90;

/// An image inside the page.
pub(super) struct Inline {
    pub(super) uri: String,
    pub(super) width: u32,
    pub(super) height: u32,
}

pub(super) struct Block {
    pub(super) name: String,
    pub(super) photo: Inline,
    pub(super) truth: Inline,
    pub(super) predictions: Vec<Prediction>,
}

impl Block {
    /// Whether a run has filed how unsure it is of this image.
    pub(super) fn has_uncertainty(&self) -> bool {
        let shown = self.predictions.iter().filter_map(|prediction| prediction.shown.as_ref());
        shown.into_iter().any(|shown| shown.uncertainty.is_some())
    }
}

pub(super) struct Prediction {
    pub(super) run: String,
    pub(super) series: usize,
    /// `None` where this run kept no picture of that image.
    pub(super) shown: Option<Shown>,
}

pub(super) struct Shown {
    pub(super) prediction: Inline,
    pub(super) errors: Inline,
    /// How unsure the network is at each pixel, where it filed that.
    pub(super) uncertainty: Option<Inline>,
    pub(super) pixel_accuracy: String,
    pub(super) mean_iou: String,
}

/// An image that some runs kept a picture of.
pub(crate) struct Matched<'a> {
    /// Whose photo and truth are shown.
    pub(crate) first: &'a Picture,
    /// A column each; none where that run kept no picture of the image.
    pub(crate) of: Vec<Option<&'a Picture>>,
}

/// The pictures of all columns, matched by name, in the order in which runs have them; of several runs those first on which they
/// differ most.
pub(crate) fn matched<'a>(columns: &[Column<'a>]) -> Vec<Matched<'a>> {
    let pictures = |column: &Column<'a>| column.evaluation.map_or(&[][..], |evaluation| &evaluation.pictures);
    let mut firsts: Vec<&Picture> = Vec::new();
    for picture in columns.iter().flat_map(pictures) {
        if firsts.iter().all(|first| first.score.name != picture.score.name) {
            firsts.push(picture);
        }
    }
    let spreads = if columns.len() > 1 { spreads(columns) } else { Vec::new() };
    let rank = |picture: &Picture| spreads.iter().position(|(name, ..)| *name == picture.score.name);
    firsts.sort_by_key(|picture| rank(picture).unwrap_or(usize::MAX));
    let matched = |first: &'a Picture| {
        let of = |column| pictures(column).iter().find(|picture| picture.score.name == first.score.name);
        Matched { first, of: columns.iter().map(of).collect() }
    };
    firsts.into_iter().map(matched).collect()
}

pub(super) fn blocks(columns: &[Column]) -> Result<Vec<Block>, ReportError> {
    let block = |Matched { first, of }: Matched| {
        let predictions = columns.iter().zip(of).map(|(column, picture)| {
            Ok(Prediction { run: column.name.clone(), series: column.series, shown: picture.map(shown).transpose()? })
        });
        Ok(Block {
            name: first.score.name.clone(),
            photo: photo(&first.dir.join("photo.png"))?,
            truth: stored(&first.dir.join("truth.png"))?,
            predictions: predictions.collect::<Result<_, ReportError>>()?,
        })
    };
    matched(columns).into_iter().map(block).collect()
}

fn shown(picture: &Picture) -> Result<Shown, ReportError> {
    let file = |name: &str| picture.dir.join(name);
    let (_, photo) = read(&file("photo.png"))?;
    let photo = photo.to_rgb8();
    let truth = labels(&file("truth-labels.png"), &photo)?;
    let predicted = labels(&file("prediction-labels.png"), &photo)?;
    let uncertainty = uncertainty_file(picture).map(|path| stored(&path)).transpose()?;
    Ok(Shown {
        uncertainty,
        prediction: stored(&file("prediction.png"))?,
        errors: Inline {
            uri: data_uri("image/png", &error_map(&photo, &truth, &predicted)?),
            width: photo.width(),
            height: photo.height(),
        },
        pixel_accuracy: percent(picture.score.pixel_accuracy),
        mean_iou: percent(picture.score.mean_iou),
    })
}

/// Where the uncertainty of a picture lies: among its own files, or beside its folder under its name.
fn uncertainty_file(picture: &Picture) -> Option<PathBuf> {
    let own = picture.dir.join("uncertainty.png");
    let name = picture.score.name.as_str();
    // A name is a stranger's text: it must not lead elsewhere.
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    let beside = picture.dir.with_file_name(format!("{name}-uncertainty.png"));
    [(true, own), (plain, beside)].into_iter().find(|(plain, path)| *plain && path.is_file()).map(|(_, path)| path)
}

fn labels(path: &Path, photo: &RgbImage) -> Result<Vec<u8>, ReportError> {
    let (_, image) = read(path)?;
    let DynamicImage::ImageLuma8(labels) = image else {
        return Err(wrong(path, "not an 8-bit grey image of class ids"));
    };
    if labels.dimensions() != photo.dimensions() {
        let [(width, height), (photo_width, photo_height)] = [labels.dimensions(), photo.dimensions()];
        return Err(wrong(path, format!("{width}x{height}, but its photo has {photo_width}x{photo_height}")));
    }
    Ok(labels.into_raw())
}

/// The file as it is.
fn stored(path: &Path) -> Result<Inline, ReportError> {
    let (bytes, image) = read(path)?;
    Ok(Inline { uri: data_uri("image/png", &bytes), width: image.width(), height: image.height() })
}

fn photo(path: &Path) -> Result<Inline, ReportError> {
    let (bytes, image) = read(path)?;
    let image = image.to_rgb8();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
        .encode_image(&image)
        .map_err(|error| wrong(path, error.to_string()))?;
    let uri = if jpeg.len() < bytes.len() { data_uri("image/jpeg", &jpeg) } else { data_uri("image/png", &bytes) };
    Ok(Inline { uri, width: image.width(), height: image.height() })
}

/// A PNG file, and what it shows.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, DynamicImage), ReportError> {
    let bytes = fs::read(path).map_err(|source| ReportError::Unreadable { path: path.to_owned(), source })?;
    if !bytes.starts_with(b"\x89PNG") {
        return Err(wrong(path, "not a PNG image"));
    }
    let image = decode_image(&bytes).map_err(|reason| wrong(path, reason))?;
    Ok((bytes, image))
}

fn wrong(path: &Path, message: impl Into<String>) -> ReportError {
    ReportError::Picture { path: path.to_owned(), message: message.into() }
}

pub(super) fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}
