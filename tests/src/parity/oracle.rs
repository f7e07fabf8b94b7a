use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Tensor};
use img2seg_models::read_weights;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

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
        // First, for it trusts nothing: safetensors' own reader adds sizes up without a check.
        let tensors = read_weights(&bytes)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        Ok(Self {
            settings: header.metadata().clone().unwrap_or_default(),
            tensors,
            used: BTreeSet::new(),
            quantities: Vec::new(),
        })
    }

    /// A setting of the file's metadata.
    pub(super) fn setting<T: FromStr<Err: Display>>(&self, key: &str) -> Result<T> {
        let text = self.settings.get(key).with_context(|| format!("metadata {key}: missing"))?;
        text.parse().map_err(|error| anyhow!("metadata {key} = {text}: {error}"))
    }

    /// The file's list of cases: each one's name, and what describes it.
    pub(super) fn cases<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>> {
        let cases: String = self.setting("cases")?;
        let cases: Vec<Map<String, Value>> = serde_json::from_str(&cases).context("metadata cases")?;
        let read = |mut case: Map<String, Value>| {
            let name = case.remove("name").and_then(|name| Some(name.as_str()?.to_owned()));
            let name = name.context("metadata cases: a case has no name")?;
            let of = serde_json::from_value(Value::Object(case)).with_context(|| format!("metadata cases: {name}"))?;
            Ok((name, of))
        };
        cases.into_iter().map(read).collect()
    }

    /// The width that the metadata claims for a network. The network is made before the file's weights are held against it, so the weight of
    /// its widest layer has to bear the claim out: 16 times as many channels on both sides.
    pub(super) fn base_channels(&self, widest: &str) -> Result<usize> {
        let base: usize = self.setting("base")?;
        let dims = self.tensors.get(widest).with_context(|| format!("tensor {widest}: missing"))?.dims();
        let fits = dims.len() == 4 && base > 0 && base.checked_mul(16).is_some_and(|wide| dims[..2] == [wide, wide]);
        ensure!(fits && dims[2..].iter().all(|&side| side > 0), "metadata base = {base}: tensor {widest} is {dims:?}");
        Ok(base)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor that we start from.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.get(name).with_context(|| format!("tensor {name}: missing"))?;
        ensure!(tensor.elem_count() > 0, "tensor {name}: is empty");
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
