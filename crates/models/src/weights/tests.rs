mod hostile_pth;
mod hostile_safetensors;

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
