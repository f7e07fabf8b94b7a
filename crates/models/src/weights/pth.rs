//! State dicts as `torch.save` writes them: a zip archive of a pickle and of the bytes that its tensors are made of.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use candle_core::{Error, Result, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::checked::{Kind, elements, finite_tensor};
use super::pickle::{self, Id, Node, Pickle};

/// Reads the state dict of a PyTorch file, wherever it is: by itself, or under `state_dict` or `model`.
///
/// All tensors together may not have more bytes than the file: then no claim makes this take more memory than a few times the file.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let mut archive = Archive::open(bytes)?;
    let pickled = archive.read("data.pkl", pickle::MAX_BYTES)?;
    if archive.read("byteorder", 16).is_ok_and(|order| order == b"big") {
        return Err(message("big endian numbers are not read"));
    }
    let pickle = Pickle::read(&pickled)?;
    for key in [None, Some("state_dict"), Some("model")] {
        let found = key.map_or(Some(pickle.root()), |key| entry(&pickle, pickle.root(), key));
        let Some(entries) = found.and_then(|id| pickle.dict(id)) else { continue };
        let tensors = tensors(&pickle, entries, &mut archive, bytes.len())?;
        if !tensors.is_empty() {
            return Ok(tensors);
        }
    }
    Err(message("no state dict found, neither by itself nor under a key state_dict or model"))
}

fn message(text: impl Into<String>) -> Error {
    Error::Msg(text.into())
}

/// The value of a key; of several, the last, as Python has it.
fn entry(pickle: &Pickle, dict: Id, key: &str) -> Option<Id> {
    let entries = pickle.dict(dict)?;
    entries.iter().rev().find(|(name, _)| pickle.text(*name) == Some(key)).map(|(_, value)| *value)
}

/// The tensors among the entries, whose bytes together are at most `budget`. Batch norm's counters are left out: nothing here uses them.
fn tensors(
    pickle: &Pickle,
    entries: &[(Id, Id)],
    archive: &mut Archive,
    budget: usize,
) -> Result<Vec<(String, Tensor)>> {
    let mut storages = BTreeMap::new();
    let mut found = BTreeMap::new();
    let (mut claimed, mut read) = (0_usize, 0_usize);
    let too_much = || message("its tensors claim more bytes than the file has");
    for &(name, value) in entries {
        let (Some(name), Some(arguments)) = (pickle.text(name), rebuilt(pickle, value)) else { continue };
        if super::is_counter(name) {
            continue;
        }
        let named = |error: Error| message(format!("{name}: {error}"));
        let view = View::of(pickle, arguments).map_err(named)?;
        let size = elements(&view.shape).map_err(named)? * view.kind.size_in_bytes();
        claimed = claimed.checked_add(size).filter(|&claimed| claimed <= budget).ok_or_else(too_much)?;
        if !storages.contains_key(view.key) {
            let storage = archive.read(&format!("data/{}", view.key), (budget - read) as u64).map_err(named)?;
            read += storage.len();
            storages.insert(view.key, storage);
        }
        let tensor = view.tensor(&storages[view.key]).map_err(named)?;
        if found.insert(name.to_owned(), tensor).is_some() {
            return Err(named(message("is there twice")));
        }
    }
    Ok(found.into_iter().collect())
}

/// The arguments of `torch._utils._rebuild_tensor_v2`, of which a parameter or a subclass of tensors may be made.
fn rebuilt(pickle: &Pickle, value: Id) -> Option<&[Id]> {
    let call = |id: Id| match *pickle.node(id) {
        Node::Call(callable, arguments) => Some((pickle.global(callable)?, pickle.sequence(arguments)?)),
        _ => None,
    };
    match call(value)? {
        ("torch._utils._rebuild_tensor_v2", arguments) => Some(arguments),
        ("torch._utils._rebuild_parameter", arguments) => match call(*arguments.first()?)? {
            ("torch._utils._rebuild_tensor_v2", arguments) => Some(arguments),
            _ => None,
        },
        ("torch._tensor._rebuild_from_type_v2", &[function, _, arguments, ..]) => {
            let is_tensor = pickle.global(function) == Some("torch._utils._rebuild_tensor_v2");
            pickle.sequence(arguments).filter(|_| is_tensor)
        }
        _ => None,
    }
}

/// A tensor's place in a storage.
struct View<'a> {
    kind: Kind,
    key: &'a str,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> View<'a> {
    /// From storage, offset, shape and strides; what follows them says nothing about numbers.
    fn of(pickle: &'a Pickle, arguments: &[Id]) -> Result<Self> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return Err(message("too few arguments for a tensor"));
        };
        let storage = match *pickle.node(storage) {
            Node::Persistent(id) => pickle.sequence(id),
            _ => None,
        };
        let Some(&[_, class, key, ..]) = storage else { return Err(message("has no storage")) };
        let class = pickle.global(class).and_then(|class| class.strip_prefix("torch.")).unwrap_or_default();
        let kind = Kind::of_storage(class).ok_or_else(|| message(format!("storage of class {class:?} is not read")))?;
        let key = pickle.text(key).ok_or_else(|| message("its storage has no name"))?;
        let sizes =
            |id: Id| -> Option<Vec<usize>> { pickle.sequence(id)?.iter().map(|&size| pickle.size(size)).collect() };
        let (Some(offset), Some(shape), Some(strides)) = (pickle.size(offset), sizes(shape), sizes(strides)) else {
            return Err(message("offset, shape or strides are no sizes"));
        };
        if shape.len() != strides.len() {
            return Err(message(format!("{} sides and {} strides", shape.len(), strides.len())));
        }
        Ok(Self { kind, key, offset, shape, strides })
    }

    fn tensor(&self, storage: &[u8]) -> Result<Tensor> {
        let count = elements(&self.shape)?;
        let width = self.kind.size_in_bytes();
        let beyond = || message(format!("reaches beyond its storage of {} bytes", storage.len()));
        let mut bytes = Vec::with_capacity(count * width);
        if count > 0 {
            let steps = self.shape.iter().zip(&self.strides).map(|(side, stride)| (side - 1).checked_mul(*stride));
            let last = steps.into_iter().try_fold(self.offset, |at, step| at.checked_add(step?));
            let end = last.and_then(|last| last.checked_add(1)?.checked_mul(width)).ok_or_else(beyond)?;
            if end > storage.len() {
                return Err(beyond());
            }
        }
        for element in 0..count {
            let mut rest = element;
            let mut at = self.offset;
            for (side, stride) in self.shape.iter().zip(&self.strides).rev() {
                at += rest % side * stride;
                rest /= side;
            }
            bytes.extend_from_slice(&storage[at * width..][..width]);
        }
        finite_tensor(&bytes, self.kind, &self.shape)
    }
}

/// The files in `PREFIX/`, where `PREFIX/data.pkl` is. Only names are looked up: nothing is ever unpacked to a path.
struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    prefix: String,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| message(error.to_string()))?;
        let names = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
        let mut prefixes = names.filter_map(|name| {
            let prefix = name.strip_suffix("data.pkl")?;
            (prefix.is_empty() || prefix.ends_with('/')).then(|| prefix.to_owned())
        });
        let prefix = prefixes.next().ok_or_else(|| message("holds no data.pkl"))?;
        if prefixes.next().is_some() {
            return Err(message("holds more than one data.pkl"));
        }
        drop(prefixes);
        Ok(Self { zip, prefix })
    }

    /// The bytes of a file, which has to be stored as it is, as PyTorch does: what is not compressed cannot be a bomb.
    fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>> {
        let name = format!("{}{name}", self.prefix);
        let wrong = |what: String| message(format!("{name}: {what}"));
        let index = self.zip.index_for_name(&name).ok_or_else(|| wrong("is not in the archive".into()))?;
        let raw = self.zip.by_index_raw(index).map_err(|error| wrong(error.to_string()))?;
        if raw.compression() != CompressionMethod::Stored {
            return Err(wrong("compressed; PyTorch stores weights as they are".into()));
        }
        let size = raw.size();
        drop(raw);
        if size > most {
            return Err(wrong(format!("{size} bytes, at most {most} are read")));
        }
        let file = self.zip.by_index(index).map_err(|error| wrong(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
        if bytes.len() as u64 != size {
            return Err(wrong(format!("{} bytes, {size} are claimed", bytes.len())));
        }
        Ok(bytes)
    }
}
