//! Safetensors from strangers: every claim of the header is held against the bytes before memory is taken for it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use candle_core::{Error, Result, Tensor};
use safetensors::tensor::TensorInfo;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::checked::{Kind, finite_tensor, tensor};

/// The largest header that is read: a network of ours has one of a few kilobytes.
const MAX_HEADER: u64 = 1 << 24;

/// Reads the tensors of a safetensors file by name, on the CPU, in the types that they are stored in.
///
/// Floating-point tensors may be `F16`, `BF16`, `F32` or `F64`, others `U8`, `U32`, `I16`, `I32` or `I64`. Refused by name, before
/// memory is taken for them: other types; headers that are cut off, larger than 16 MiB, or not what the format says; a name that occurs twice;
/// tensors beyond the end, on top of each other or with a gap between them; shapes that do not fit their bytes; numbers that are not finite
/// in f32: no network that has one is of use.
pub fn read_weights(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    read_with(bytes, finite_tensor)
}

/// As [`read_weights`], but numbers need not be finite: for what is not weights.
pub fn read_tensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    read_with(bytes, tensor)
}

/// How a tensor is made of its bytes.
type Make = fn(&[u8], Kind, &[usize]) -> Result<Tensor>;

fn read_with(bytes: &[u8], make: Make) -> Result<BTreeMap<String, Tensor>> {
    let (header, data) = split(bytes)?;
    let Header(mut tensors) = serde_json::from_slice(header).map_err(|error| message(format!("header: {error}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end = 0;
    let mut weights = BTreeMap::new();
    for (name, info) in tensors {
        let tensor = read(&info, end, data, make).map_err(|error| message(format!("{name}: {error}")))?;
        end = info.data_offsets.1;
        if weights.insert(name.clone(), tensor).is_some() {
            return Err(message(format!("{name}: is there twice")));
        }
    }
    if end != data.len() {
        return Err(message(format!("{} bytes of tensors, but its header speaks of {end}", data.len())));
    }
    Ok(weights)
}

fn message(text: String) -> Error {
    Error::Msg(text)
}

/// The header's text and the bytes of the tensors.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(message(format!("{} bytes, no safetensors file", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(message(format!("a header of {length} bytes, at most {MAX_HEADER} are read")));
    }
    rest.split_at_checked(length as usize).ok_or_else(|| message("ends within its header".to_owned()))
}

/// `end` is where the tensor before it ends.
fn read(info: &TensorInfo, end: usize, data: &[u8], make: Make) -> Result<Tensor> {
    let kind = Kind::of_safetensors(info.dtype)
        .ok_or_else(|| message(format!("tensors of type {:?} are not read", info.dtype)))?;
    let range: Range<usize> = info.data_offsets.0..info.data_offsets.1;
    if range.start != end {
        return Err(message(format!("begins at byte {} of the tensors, the one before it ends at {end}", range.start)));
    }
    let bytes = data
        .get(range.clone())
        .ok_or_else(|| message(format!("bytes {range:?} of {} that the file has for tensors", data.len())))?;
    make(bytes, kind, &info.shape)
}

/// The entries as they stand: a map would keep one of two with the same name.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                let info = map.next_value().map_err(|error| A::Error::custom(format!("{name}: {error}")))?;
                entries.push((name, info));
            }
        }
        Ok(Header(entries))
    }
}
