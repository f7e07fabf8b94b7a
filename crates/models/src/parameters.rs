mod draws;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Error, Result, Shape, Tensor, Var};
use img2seg_ops::Exactness;

/// The first values of a tensor that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element is this.
    Constant(f32),
    /// Uniform on `[-bound, bound)`, drawn from (seed, full name): element `i` is made of word `i` of a `ChaCha8` stream.
    Uniform {
        /// The largest magnitude.
        bound: f32,
    },
    /// Normal, drawn from (seed, full name): element `i` is made of word `i` of a `ChaCha8` stream, in f64 and by operations that every
    /// processor rounds alike.
    Normal {
        /// The mean.
        mean: f32,
        /// The standard deviation.
        deviation: f32,
    },
}

impl Init {
    /// PyTorch's default for the weight and the bias of a convolution: uniform within `1 / sqrt(fan_in)`, where `fan_in` is
    /// the product of all but the first dimension of the *weight*. A transposed convolution's weight is (in, out, h, w), so its
    /// `fan_in` counts output channels, as PyTorch's does.
    pub fn convolution(fan_in: usize) -> Self {
        Self::Uniform { bound: (1.0 / (fan_in as f64).sqrt()) as f32 }
    }
}

/// The tensors of one or more networks by name: the weights that training moves, and the buffers (running statistics) that it does
/// not. Everything is f32 and is visited in name order.
///
/// This is a handle: a clone, a [`scope`](Self::scope) and a [`detached`](Self::detached) view share the tensors. A scope sees
/// the names below its prefix; names are always given in full, so that they mean the same from every scope.
#[derive(Debug, Clone)]
pub struct Parameters {
    seed: u64,
    device: Device,
    prefix: String, // empty, or ending in a dot
    tracked: bool,
    exactness: Exactness,
    step: Arc<AtomicU64>,
    store: Arc<Mutex<Store>>,
}

#[derive(Debug, Default)]
struct Store {
    trainable: BTreeMap<String, Var>,
    buffers: BTreeMap<String, Var>,
}

impl Parameters {
    /// No parameters yet; those to come are drawn from `seed` and live on `device`. Convolutions made of them are fast.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            seed,
            device: device.clone(),
            prefix: String::new(),
            tracked: true,
            exactness: Exactness::Fast,
            step: Arc::default(),
            store: Arc::default(),
        }
    }

    /// The same parameters, for convolutions of this exactness. Scopes and detached views of them keep it.
    #[must_use]
    pub fn with_exactness(&self, exactness: Exactness) -> Self {
        Self { exactness, ..self.clone() }
    }

    /// The parameters whose names begin with `name` and a dot, below this scope.
    #[must_use]
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The same parameters, as a network that is looked through rather than trained sees them: its weights follow every update,
    /// its running statistics are shared both ways, and no gradient is computed for it.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { tracked: false, ..self.clone() }
    }

    /// The device that holds the tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What convolutions made of these parameters may round.
    pub fn exactness(&self) -> Exactness {
        self.exactness
    }

    /// Says which step of training comes next: what layers draw in training depends on it. All scopes and views share it; it
    /// begins at 0.
    pub fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// The step that [`set_step`](Self::set_step) has named last.
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    /// 0 with this probability and 1 otherwise, drawn from (seed, the scope's name, step).
    pub(crate) fn keep_mask(&self, shape: &Shape, probability: f64) -> Result<Tensor> {
        let keep = draws::keep(self.seed, &self.prefix, self.step(), probability, shape.elem_count());
        Tensor::from_vec(keep, shape, &self.device)
    }

    /// Whether this scope has a weight or a buffer `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        let (name, store) = (format!("{}{name}", self.prefix), self.store());
        store.trainable.contains_key(&name) || store.buffers.contains_key(&name)
    }

    /// The weight `name` of this scope, made if it is not there. Fails if it is there in another shape, or is a buffer.
    pub fn weight(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Tensor> {
        let (name, shape) = (format!("{}{name}", self.prefix), shape.into());
        let mut store = self.store();
        if store.buffers.contains_key(&name) {
            return Err(Error::Msg(format!("{name}: a buffer, not a weight")));
        }
        let var = self.get_or_insert(&mut store.trainable, name, shape, init)?;
        Ok(if self.tracked { var.as_tensor().clone() } else { var.as_detached_tensor() })
    }

    /// The buffer `name` of this scope, made if it is not there. Fails if it is there in another shape, or is a weight.
    pub fn buffer(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Var> {
        let (name, shape) = (format!("{}{name}", self.prefix), shape.into());
        let mut store = self.store();
        if store.trainable.contains_key(&name) {
            return Err(Error::Msg(format!("{name}: a weight, not a buffer")));
        }
        self.get_or_insert(&mut store.buffers, name, shape, init)
    }

    /// The weights of this scope, in name order.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        self.select(&self.store().trainable)
    }

    /// The buffers of this scope, in name order.
    pub fn buffers(&self) -> Vec<(String, Var)> {
        self.select(&self.store().buffers)
    }

    /// Weights and buffers of this scope. They share storage with the networks and change as these are trained.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        let both = self.trainable().into_iter().chain(self.buffers());
        both.map(|(name, var)| (name, var.as_detached_tensor())).collect()
    }

    /// The number of elements in the weights of this scope.
    pub fn count(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Copies `tensors` into the weights and buffers of this scope, from any device and floating-point type.
    ///
    /// Fails, and changes nothing, unless the names are exactly those of this scope and every shape is right; the error lists
    /// what is missing, what is unknown and what is of the wrong shape.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let ours: BTreeMap<String, Var> = self.trainable().into_iter().chain(self.buffers()).collect();
        let missing = ours.keys().filter(|name| !tensors.contains_key(*name)).cloned().collect();
        let unknown = tensors.keys().filter(|name| !ours.contains_key(*name)).cloned().collect();
        let misshapen = ours
            .iter()
            .filter_map(|(name, var)| Some((name, var, tensors.get(name)?)))
            .filter(|(_, var, tensor)| var.shape() != tensor.shape())
            .map(|(name, var, tensor)| format!("{name} {:?} instead of {:?}", tensor.dims(), var.dims()))
            .collect();
        let complaints = [("missing", missing), ("unknown", unknown), ("of the wrong shape", misshapen)];
        let complaints: Vec<String> =
            complaints.into_iter().filter_map(|(what, names)| complaint(what, names)).collect();
        if !complaints.is_empty() {
            return Err(Error::Msg(format!("weights do not fit: {}", complaints.join("; "))));
        }
        let converted: Vec<Tensor> = ours
            .keys()
            .map(|name| tensors[name].to_device(&self.device)?.to_dtype(DType::F32)?.contiguous()?.copy())
            .collect::<Result<_>>()?;
        ours.values().zip(&converted).try_for_each(|(var, tensor)| var.set(tensor))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A map of finished tensors is whole even if a thread panicked while it held the lock.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn select(&self, vars: &BTreeMap<String, Var>) -> Vec<(String, Var)> {
        let in_scope = vars.iter().filter(|(name, _)| name.starts_with(&self.prefix));
        in_scope.map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    fn get_or_insert(&self, vars: &mut BTreeMap<String, Var>, name: String, shape: Shape, init: Init) -> Result<Var> {
        if let Some(var) = vars.get(&name) {
            if *var.shape() != shape {
                return Err(Error::Msg(format!("{name}: has shape {:?}, not {:?}", var.dims(), shape.dims())));
            }
            return Ok(var.clone());
        }
        let values = match init {
            Init::Constant(value) => vec![value; shape.elem_count()],
            Init::Uniform { bound } => draws::uniform(self.seed, &name, bound, shape.elem_count()),
            Init::Normal { mean, deviation } => draws::normal(self.seed, &name, mean, deviation, shape.elem_count()),
        };
        let var = Var::from_vec(values, shape, &self.device)?;
        vars.insert(name, var.clone());
        Ok(var)
    }
}

/// "missing: a, b and 7 more"; nothing if there is nothing to name.
fn complaint(what: &str, names: Vec<String>) -> Option<String> {
    const SHOWN: usize = 8;
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!shown.is_empty()).then(|| format!("{what}: {shown}{more}"))
}

#[cfg(test)]
mod tests;
