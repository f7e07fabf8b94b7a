//! Class tables: which colours and which mask values stand for which classes.

mod nearest;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;

use image::RgbImage;
use serde::Deserialize;
use toml::Spanned;

use crate::DataError;
use crate::sample::VOID;
use nearest::NearestColor;

/// The built-in tables: name and text.
const BUILT_IN: [(&str, &str); 2] = [
    ("cityscapes", include_str!("../../../data/palettes/cityscapes.toml")),
    ("camvid", include_str!("../../../data/palettes/camvid.toml")),
];

/// As many as the values of an 8-bit mask.
const MAX_ENTRIES: usize = 256;

/// No honest table comes near it.
const MAX_BYTES: u64 = 1 << 20;

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    name: String,
    void: Option<Spanned<Vec<usize>>>,
    class: Spanned<Vec<Spanned<FileEntry>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    name: String,
    color: [u8; 3],
    id: Option<i64>,
    train_id: Option<i64>,
}

impl ClassTable {
    /// The built-in table of that name (`cityscapes`, `camvid`), else the table in the file at that path.
    pub fn load(name_or_path: &str) -> Result<Self, DataError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::from_toml(text, name);
        }
        let mut text = String::new();
        File::open(name_or_path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)).map_err(
            |source| DataError::NoClassTable {
                name: name_or_path.to_owned(),
                built_in: BUILT_IN.map(|(name, _)| name).join(", "),
                source,
            },
        )?;
        if text.len() as u64 > MAX_BYTES {
            let reason = format!("more than {MAX_BYTES} bytes long");
            return Err(DataError::ClassTable { origin: name_or_path.to_owned(), line: 1, reason });
        }
        Self::from_toml(&text, name_or_path)
    }

    /// Reads a table from TOML; `origin` is what errors call it.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, DataError> {
        let wrong = |span: Range<usize>, reason: String| {
            let line = 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
            DataError::ClassTable { origin: origin.to_owned(), line, reason }
        };
        let file: FileTable = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let begin = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
            let line = text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or("").trim();
            wrong(span, format!("{}: {}", if line.is_empty() { "the table" } else { line }, error.message()))
        })?;
        let (entries_span, entries) = (file.class.span(), file.class.into_inner());
        if entries.len() > MAX_ENTRIES {
            return Err(wrong(entries_span, format!("class: {} entries, at most {MAX_ENTRIES} fit", entries.len())));
        }
        let ids_given = entries.iter().any(|entry| entry.get_ref().id.is_some());
        let train_ids_given = entries.iter().any(|entry| entry.get_ref().train_id.is_some());
        let void = void_positions(file.void, entries.len(), train_ids_given).map_err(|(span, why)| wrong(span, why))?;

        let mut table = Unchecked::new(ids_given, train_ids_given);
        for (position, entry) in entries.into_iter().enumerate() {
            let span = entry.span();
            table
                .push(entry.into_inner(), void[position])
                .map_err(|why| wrong(span, format!("class {position}: {why}")))?;
        }
        table.finish(file.name).map_err(|why| wrong(entries_span, format!("class: {why}")))
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

/// For every entry, whether `void` lists it.
fn void_positions(
    void: Option<Spanned<Vec<usize>>>,
    entries: usize,
    train_ids_given: bool,
) -> Result<Vec<bool>, (Range<usize>, String)> {
    let mut is_void = vec![false; entries];
    let Some(void) = void else { return Ok(is_void) };
    let span = void.span();
    for position in void.into_inner() {
        if train_ids_given {
            return Err((span, "void: entries with train ids say by train_id = 255 that they are void".into()));
        }
        match is_void.get_mut(position) {
            Some(void) => *void = true,
            None => return Err((span, format!("void: {position} is not a position in 0..{entries}"))),
        }
    }
    Ok(is_void)
}

/// A table while its entries are added and checked one by one.
struct Unchecked {
    ids_given: bool,
    train_ids_given: bool,
    entries: Vec<Entry>,
    evaluated_names: HashMap<String, u8>,
    evaluated_colors: HashMap<[u8; 3], u8>,
    label_of_index: Vec<Option<u8>>,
    next_label: u8,
}

impl Unchecked {
    fn new(ids_given: bool, train_ids_given: bool) -> Self {
        Self {
            ids_given,
            train_ids_given,
            entries: Vec::new(),
            evaluated_names: HashMap::new(),
            evaluated_colors: HashMap::new(),
            label_of_index: vec![None; MAX_ENTRIES],
            next_label: 0,
        }
    }

    fn push(&mut self, entry: FileEntry, void: bool) -> Result<(), String> {
        let label = match entry.train_id {
            Some(-1 | 255) => VOID,
            Some(label @ 0..=254) => label as u8,
            Some(other) => return Err(format!("train_id: {other} is not in -1..=255")),
            None if void || self.train_ids_given => VOID,
            None if self.next_label == VOID => return Err("one class too many, 255 fit".into()),
            None => {
                self.next_label += 1;
                self.next_label - 1
            }
        };
        let id = match entry.id {
            Some(id @ -1..=255) => id,
            Some(other) => return Err(format!("id: {other} is not in -1..=255")),
            None if self.ids_given => return Err("id: missing, other entries have one".into()),
            None => self.entries.len() as i64,
        };
        if let Ok(index) = usize::try_from(id)
            && self.label_of_index[index].replace(label).is_some()
        {
            return Err(format!("id: {id} is taken"));
        }
        if label != VOID {
            // Entries may share a label; then they may share its name and colour.
            if self.evaluated_names.insert(entry.name.clone(), label).is_some_and(|other| other != label) {
                return Err(format!("name: {:?} is taken", entry.name));
            }
            if self.evaluated_colors.insert(entry.color, label).is_some_and(|other| other != label) {
                return Err(format!("color: {:?} is taken by another class", entry.color));
            }
        }
        self.entries.push(Entry { name: entry.name, color: entry.color, id, label });
        Ok(())
    }

    fn finish(self, name: String) -> Result<ClassTable, String> {
        let count =
            self.entries.iter().filter(|entry| entry.label != VOID).map(|entry| entry.label + 1).max().unwrap_or(0);
        if count == 0 {
            return Err("every entry is void".into());
        }
        let classes = (0..count)
            .map(|label| {
                let entry = self.entries.iter().find(|entry| entry.label == label);
                let entry = entry.ok_or_else(|| format!("train_id: {label} is missing, {} is there", count - 1))?;
                Ok(Class { name: entry.name.clone(), color: entry.color })
            })
            .collect::<Result<Vec<_>, String>>()?;
        let (evaluated, void): (Vec<_>, Vec<_>) = self.entries.iter().partition(|entry| entry.label != VOID);
        let any: Vec<&Entry> = evaluated.into_iter().chain(void.iter().copied()).collect();
        Ok(ClassTable {
            name,
            void_color: void.first().map_or([0; 3], |entry| entry.color),
            any: NearestColor::new(any.iter().map(|entry| entry.color).collect()),
            any_labels: any.iter().map(|entry| entry.label).collect(),
            evaluated: NearestColor::new(classes.iter().map(|class| class.color).collect()),
            classes,
            ids_given: self.ids_given,
            train_ids_given: self.train_ids_given,
            label_of_index: self.label_of_index,
            entries: self.entries,
        })
    }
}

#[cfg(test)]
mod tests;
