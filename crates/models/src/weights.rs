use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::Path;

use candle_core::{DType, Device, Error, Result, Tensor, pickle, safetensors as st};

/// Reads the tensors of a `.safetensors`, `.pt` or `.pth` file by name, as f32 on the CPU.
///
/// A state dict may stand by itself or under a key `state_dict` or `model`, and its names may all begin with `module.`, as
/// `torch.nn.DataParallel` makes them. Batch norm's `num_batches_tracked` is left out: nothing here uses it. Errors begin with
/// the path, and the tensor if one is to blame.
pub fn load_weights(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    let path = path.as_ref();
    let named = |error: Error| Error::Msg(format!("{}: {error}", path.display()));
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    let tensors = match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("safetensors") => st::load(path, &Device::Cpu).map_err(named)?.into_iter().collect(),
        Some("pt" | "pth") => state_dict(path).map_err(named)?,
        _ => {
            return Err(Error::Msg(format!(
                "{}: weights are read from .safetensors, .pt and .pth files",
                path.display()
            )));
        }
    };
    let mut weights = BTreeMap::new();
    for (name, tensor) in without_prefix(tensors) {
        if name.rsplit('.').next() == Some("num_batches_tracked") {
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

/// The tensors of a PyTorch file, wherever its state dict is.
fn state_dict(path: &Path) -> Result<Vec<(String, Tensor)>> {
    for key in [None, Some("state_dict"), Some("model")] {
        // A key that is not there is an error, and so is a broken file; the first look has found out about the latter.
        let file = match pickle::PthTensors::new(path, key) {
            Err(error) if key.is_none() => return Err(error),
            Err(_) => continue,
            Ok(file) => file,
        };
        let mut tensors = Vec::new();
        for name in file.tensor_infos().keys() {
            let tensor = file.get(name).map_err(|error| Error::Msg(format!("{name}: {error}")))?;
            tensors.extend(tensor.map(|tensor| (name.clone(), tensor)));
        }
        if !tensors.is_empty() {
            return Ok(tensors);
        }
    }
    Err(Error::Msg("no state dict found, neither by itself nor under a key state_dict or model".into()))
}

/// Takes `module.` off the names if all have it.
fn without_prefix(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let stripped: Option<Vec<_>> =
        tensors.iter().map(|(name, tensor)| Some((name.strip_prefix("module.")?.to_owned(), tensor.clone()))).collect();
    stripped.unwrap_or(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Discriminator, DiscriminatorConfig, Parameters};

    /// See `tests/fixtures/make.py`.
    fn fixture(name: &str) -> String {
        format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn same(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> bool {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        a.keys().eq(b.keys()) && a.iter().all(|(name, t)| t.shape() == b[name].shape() && values(t) == values(&b[name]))
    }

    #[test]
    fn every_way_to_save_a_state_dict_loads_alike_and_fits_the_network() {
        let expected = load_weights(fixture("discriminator.safetensors")).unwrap();
        assert_eq!(expected.len(), 17);
        for name in ["discriminator.pth", "discriminator-training.pth", "discriminator-parallel.pt"] {
            assert!(same(&load_weights(fixture(name)).unwrap(), &expected), "{name}");
        }
        let parameters = Parameters::new(0, &Device::Cpu);
        Discriminator::new(&parameters, &DiscriminatorConfig { base_channels: 1 }).unwrap();
        parameters.load(&expected).unwrap();
        assert!(same(&parameters.tensors(), &expected));
    }

    #[test]
    fn what_is_saved_loads_again_and_is_the_same_file_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let expected = load_weights(fixture("discriminator.pth")).unwrap();
        let (one, two) = (folder.path().join("one.safetensors"), folder.path().join("two.safetensors"));
        save_weights(&one, &expected).unwrap();
        assert!(same(&load_weights(&one).unwrap(), &expected));
        save_weights(&two, &expected).unwrap();
        assert_eq!(std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
    }

    #[test]
    fn errors_name_the_file_and_the_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let whole = std::fs::read(fixture("discriminator.pth")).unwrap();
        let integers = folder.path().join("integers.safetensors").display().to_string();
        let tensor = Tensor::new(&[1u32], &Device::Cpu).unwrap();
        save_weights(&integers, &BTreeMap::from([("step".to_owned(), tensor)])).unwrap();
        let cases = [
            (folder.path().join("none.pth").display().to_string(), ""),
            (folder.path().join("none.safetensors").display().to_string(), ""),
            (write("half.pth", &whole[..whole.len() / 2]), ""),
            (write("text.safetensors", b"not a checkpoint"), ""),
            (write("weights.ckpt", b""), "weights are read from .safetensors, .pt and .pth files"),
            (fixture("nothing.pth"), "no state dict found, neither by itself nor under a key state_dict or model"),
            (integers, "step: u32 values are no weights"),
        ];
        for (path, text) in cases {
            let error = load_weights(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}: {text}")), "{error}");
            assert!(error.len() > path.len() + 2, "{error}");
        }
    }
}
