//! Class tables: which colours and which mask values stand for which classes.

mod nearest;
mod read;
mod text;

use image::RgbImage;

use crate::DataError;
use crate::sample::VOID;
use nearest::NearestColor;
pub use text::read_text;

/// The built-in tables: name and text.
const BUILT_IN: [(&str, &str); 2] = [
    ("cityscapes", include_str!("../../../data/palettes/cityscapes.toml")),
    ("camvid", include_str!("../../../data/palettes/camvid.toml")),
];

/// A class that networks learn and scores count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Unique within the table.
    pub name: String,
    /// Red, green, blue; unique among the table's classes.
    pub color: [u8; 3],
}

/// The classes of a data set, in the order of their class ids, and the void entries beside them.
///
/// A table is a TOML file:
///
/// ```toml
/// name = "two"
/// void = [2]            # positions, from 0, of the entries that are neither learned nor scored
///
/// [[class]]
/// name = "road"
/// color = [128, 64, 128]
///
/// [[class]]
/// name = "sky"
/// color = [70, 130, 180]
///
/// [[class]]
/// name = "unlabelled"
/// color = [0, 0, 0]
/// ```
///
/// In index masks an entry has the value of its position, unless entries carry an `id` (-1..=255, -1 in no mask). Class ids follow
/// the entries' order, unless entries carry a `train_id`: then these are the class ids, without gaps, and 255, -1 or none is
/// void. Entries may share a train id: the first one names and colours the class. There are at most 256 entries.
#[derive(Clone, Debug)]
pub struct ClassTable {
    name: String,
    entries: Vec<Entry>,
    ids_given: bool,
    train_ids_given: bool,
    classes: Vec<Class>,
    void_color: [u8; 3],
    label_of_index: Vec<Option<u8>>,
    /// Over `any_labels`, the evaluated entries first.
    any: NearestColor,
    any_labels: Vec<u8>,
    /// Over the class ids.
    evaluated: NearestColor,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    color: [u8; 3],
    /// The value in index masks; -1 in none.
    id: i64,
    label: u8,
}

impl ClassTable {
    /// The built-in table of that name (`cityscapes`, `camvid`), else the table in the file at that path.
    pub fn load(name_or_path: &str) -> Result<Self, DataError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::from_toml(text, name);
        }
        let text = read_text(name_or_path.as_ref()).map_err(|source| DataError::NoClassTable {
            name: name_or_path.to_owned(),
            built_in: BUILT_IN.map(|(name, _)| name).join(", "),
            source,
        })?;
        Self::from_toml(&text, name_or_path)
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The classes that are learned and scored; a class's position is its class id. Never empty, at most 255.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// How many classes there are.
    #[allow(clippy::len_without_is_empty, reason = "a table is never empty")]
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// The label of a colour: of the nearest entry by squared distance in RGB, 255 where that is a void entry. Of entries
    /// equally near, evaluated ones come first, then the order of the table.
    pub fn decode(&self, color: [u8; 3]) -> u8 {
        self.any_labels[self.any.find(color).0]
    }

    /// The nearest class of a colour, void entries left out: what a prediction means.
    pub fn decode_evaluated(&self, color: [u8; 3]) -> u8 {
        self.evaluated.find(color).0 as u8
    }

    /// [`decode`](Self::decode) of every pixel, row by row.
    pub fn decode_image(&self, label_map: &RgbImage) -> Vec<u8> {
        decode_pixels(label_map, |color| self.decode(color))
    }

    /// [`decode_evaluated`](Self::decode_evaluated) of every pixel, row by row.
    pub fn decode_evaluated_image(&self, label_map: &RgbImage) -> Vec<u8> {
        decode_pixels(label_map, |color| self.decode_evaluated(color))
    }

    /// How far a colour is from the nearest entry, void or not, in RGB levels: 0 to 442.
    pub fn distance(&self, color: [u8; 3]) -> f64 {
        f64::from(self.any.find(color).1).sqrt()
    }

    /// The colour of a class id; for 255, and any other label that is no class, that of the first void entry, or black.
    pub fn color_of(&self, label: u8) -> [u8; 3] {
        self.classes.get(usize::from(label)).map_or(self.void_color, |class| class.color)
    }

    /// Labels as a picture in the table's colours. `None` unless there are `width` x `height` labels.
    pub fn paint(&self, labels: &[u8], width: u32, height: u32) -> Option<RgbImage> {
        let bytes = labels.iter().flat_map(|&label| self.color_of(label)).collect();
        RgbImage::from_raw(width, height, bytes).filter(|_| labels.len() == width as usize * height as usize)
    }

    /// The label of an index mask's value: the entry with this id, or at this position where no ids are given.
    pub fn label_of_index(&self, value: u32) -> Option<u8> {
        self.label_of_index.get(value as usize).copied().flatten()
    }

    /// The table as TOML that [`from_toml`](Self::from_toml) reads back to the same table.
    pub fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut lines = vec![format!("name = {}", quoted(&self.name))];
        if !self.train_ids_given {
            let void: Vec<usize> = (0..self.entries.len()).filter(|&i| self.entries[i].label == VOID).collect();
            lines.push(format!("void = {void:?}"));
        }
        for entry in &self.entries {
            lines.extend([String::new(), "[[class]]".into(), format!("name = {}", quoted(&entry.name))]);
            lines.push(format!("color = {:?}", entry.color));
            if self.ids_given {
                lines.push(format!("id = {}", entry.id));
            }
            if self.train_ids_given {
                lines.push(format!("train_id = {}", entry.label));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// Neighbours mostly have the same colour, so the last answer is kept.
fn decode_pixels(label_map: &RgbImage, decode: impl Fn([u8; 3]) -> u8) -> Vec<u8> {
    let mut last = ([0; 3], decode([0; 3]));
    label_map
        .pixels()
        .map(|pixel| {
            if pixel.0 != last.0 {
                last = (pixel.0, decode(pixel.0));
            }
            last.1
        })
        .collect()
}

#[cfg(test)]
mod tests;
