use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use super::{Quantity, Tolerance};

/// A file of what PyTorch computed, and what was compared with it so far.
pub(super) struct Oracle {
    settings: HashMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
    used: BTreeSet<String>,
    quantities: Vec<Quantity>,
}

impl Oracle {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        Ok(Self {
            settings: header.metadata().clone().unwrap_or_default(),
            tensors: tensors.into_iter().collect(),
            used: BTreeSet::new(),
            quantities: Vec::new(),
        })
    }

    /// A setting of the file's metadata.
    pub(super) fn setting<T: FromStr<Err: Display>>(&self, key: &str) -> Result<T> {
        let text = self.settings.get(key).with_context(|| format!("metadata {key}: missing"))?;
        text.parse().map_err(|error| anyhow!("metadata {key} = {text}: {error}"))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor that we start from.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name).with_context(|| format!("tensor {name}: missing"))?;
        self.used.insert(name.to_owned());
        Ok(tensor.clone())
    }

    /// The tensors that we start from whose names begin with `prefix`, without it.
    pub(super) fn tensors(&mut self, prefix: &str) -> BTreeMap<String, Tensor> {
        let below =
            self.tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone())));
        let below: BTreeMap<_, _> = below.collect();
        self.used.extend(below.keys().map(|name| format!("{prefix}{name}")));
        below
    }

    /// Compares a tensor of ours with the file's.
    pub(super) fn check(&mut self, name: &str, ours: &Tensor, tolerance: Tolerance) -> Result<()> {
        let theirs = self.tensor(name)?;
        ensure!(ours.shape() == theirs.shape(), "tensor {name}: {:?}, ours is {:?}", theirs.dims(), ours.dims());
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
        self.quantities.push(Quantity::new(name, &values(ours)?, &values(&theirs)?, tolerance));
        Ok(())
    }

    /// Names that were neither read nor compared.
    pub(super) fn unused(&self) -> Vec<&str> {
        self.tensors.keys().filter(|name| !self.used.contains(*name)).map(String::as_str).collect()
    }

    pub(super) fn into_quantities(self) -> Vec<Quantity> {
        self.quantities
    }
}
