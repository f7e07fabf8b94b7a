//! Weights as files: ours and PyTorch's, read as if strangers had written them.

mod checked;
mod pickle;
mod pth;
mod safe;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Error, Result, Tensor};

pub use safe::{read_tensors, read_weights};

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 33;

/// Reads the tensors of a `.safetensors`, `.pt` or `.pth` file by name, as f32 on the CPU.
///
/// A state dict may stand by itself or under a key `state_dict` or `model`, and its names may all begin with `module.`, as
/// `torch.nn.DataParallel` makes them. Batch norm's `num_batches_tracked` is left out: nothing here uses it. Errors begin with
/// the path, and the tensor if one is to blame.
///
/// Files may come from strangers. Nothing in a `.pth` is ever executed, and one that names a function which weights have no use for
/// (`os.system`) is refused, as are compressed ones; numbers that are not finite, and claims that the file's own bytes do not bear out
/// ([`read_weights`] lists them), are refused before memory is taken. Files over 8 GiB are not read.
pub fn load_weights(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    let path = path.as_ref();
    let named = |error: Error| Error::Msg(format!("{}: {error}", path.display()));
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    let tensors = match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("safetensors") => read_weights(&read(path).map_err(named)?).map_err(named)?.into_iter().collect(),
        Some("pt" | "pth") => pth::state_dict(&read(path).map_err(named)?).map_err(named)?,
        _ => {
            return Err(Error::Msg(format!(
                "{}: weights are read from .safetensors, .pt and .pth files",
                path.display()
            )));
        }
    };
    let mut weights = BTreeMap::new();
    for (name, tensor) in without_prefix(tensors) {
        if is_counter(&name) {
            continue;
        }
        if !tensor.dtype().is_float() {
            return Err(Error::Msg(format!(
                "{}: {name}: {} values are no weights",
                path.display(),
                tensor.dtype().as_str()
            )));
        }
        let tensor = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.contiguous());
        weights.insert(name.clone(), tensor.map_err(|error| named(Error::Msg(format!("{name}: {error}"))))?);
    }
    Ok(weights)
}

/// The bytes of a regular file; of a pipe or a device there might be no end.
fn read(path: &Path) -> Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(Error::Msg("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Msg(format!("a file over {} GiB", MAX_BYTES >> 30)));
    }
    Ok(bytes)
}

/// Whether it is batch norm's count of batches, the one tensor of integers in a state dict.
fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

/// Writes tensors as a safetensors file that PyTorch's tools read too (its metadata says `format = "pt"`). The bytes are a function of
/// the tensors alone. An existing file is overwritten in place: to replace one safely, write to another name and rename.
pub fn save_weights(path: impl AsRef<Path>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = path.as_ref();
    // safetensors panics on a tensor that it cannot copy to the CPU by itself.
    let on_cpu = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(&Device::Cpu)?.contiguous()?));
    let tensors: BTreeMap<String, Tensor> = tensors.iter().map(on_cpu).collect::<Result<_>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path)
        .map_err(|error| Error::Msg(format!("{}: {error}", path.display())))
}

/// Takes `module.` off the names if all have it.
fn without_prefix(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let stripped: Option<Vec<_>> =
        tensors.iter().map(|(name, tensor)| Some((name.strip_prefix("module.")?.to_owned(), tensor.clone()))).collect();
    stripped.unwrap_or(tensors)
}

#[cfg(test)]
mod tests;
