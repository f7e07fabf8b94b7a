//! The way back from a loss to the variables, along the records of our nodes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Result, Tensor, TensorId};
use rayon::Scope;

#[cfg(feature = "cuda")]
use super::Order;
use super::deal::look_for_work_until;
use super::elementwise::update;
use super::node::{Gradient, MOST_INPUTS, OfParameters, Record, Source, in_f32};
use super::values::{has_kernel, lend, values};

/// The gradients of a loss by its variables.
#[derive(Debug, Default)]
pub struct Gradients {
    of_variables: HashMap<TensorId, Tensor>,
    /// Of those whose squares were summed up as they were computed.
    squared_norms: HashMap<TensorId, f64>,
    through_candle: bool,
}

impl Gradients {
    /// The gradient of a variable, of its shape; none if the loss does not depend on it.
    pub fn get(&self, variable: &Tensor) -> Option<&Tensor> {
        self.of_variables.get(&variable.id())
    }

    /// The sum of the squares of a variable's gradient, if it was taken when that was computed.
    pub(crate) fn known_squared_norm(&self, variable: &Tensor) -> Option<f64> {
        self.squared_norms.get(&variable.id()).copied()
    }

    /// Variables that have a gradient.
    pub fn len(&self) -> usize {
        self.of_variables.len()
    }

    /// Whether the loss depends on no variable.
    pub fn is_empty(&self) -> bool {
        self.of_variables.is_empty()
    }

    /// Whether an op of candle's stood between the loss and a variable, so that candle has computed the gradients. They are
    /// the same, and take more time and memory.
    pub fn through_candle(&self) -> bool {
        self.through_candle
    }
}

/// The gradients of a loss, or of the sum of a tensor of any shape, by all variables that it depends on.
///
/// What only `loss` keeps alive is freed on the way, so pass it by value and let go of the network's output before. Each
/// tensor's gradients are added up in one order, from its last use to its first. On the CPU rayon's threads compute those of convolutions'
/// parameters beside the rest.
///
/// On the CPU and on CUDA devices, where all ops from the variables on are this crate's, nothing is computed that no variable needs;
/// otherwise this is `Tensor::backward`.
///
/// # Errors
/// What an op's backward pass cannot do.
pub fn backward(loss: Tensor) -> Result<Gradients> {
    match Source::of(&loss) {
        Source::Record(record) => match records_below(record) {
            Some(records) => {
                let one = Tensor::ones(loss.shape(), loss.dtype(), loss.device())?;
                drop(loss); // and candle's graph with it, unless somebody else holds a part of it
                along(records, one)
            }
            None => by_candle(&loss),
        },
        Source::Variable(_) | Source::Candle => by_candle(&loss),
        Source::Constant => Ok(Gradients::default()),
    }
}

fn by_candle(loss: &Tensor) -> Result<Gradients> {
    let mut all = loss.backward()?;
    let variables = loss.sorted_nodes().into_iter().filter(|node| node.is_variable());
    let of_variables = variables.filter_map(|variable| Some((variable.id(), all.remove(variable)?.detach()))).collect();
    Ok(Gradients { of_variables, through_candle: true, ..Gradients::default() })
}

/// All records that `last` was made from, itself included, in the order in which they were made; none if an op of candle's is
/// among them.
fn records_below(last: Arc<Record>) -> Option<Vec<Arc<Record>>> {
    let mut seen = HashSet::from([last.order]);
    let mut records = vec![last];
    let mut next = 0;
    while let Some(record) = records.get(next).cloned() {
        next += 1;
        for input in &record.inputs {
            match input {
                Source::Record(record) if seen.insert(record.order) => records.push(record.clone()),
                Source::Candle => return None,
                _ => {}
            }
        }
    }
    records.sort_unstable_by_key(|record| record.order);
    Some(records)
}

fn along(records: Vec<Arc<Record>>, gradient: Tensor) -> Result<Gradients> {
    let of_variables = OfVariables::default();
    rayon::in_place_scope(|scope| {
        let passed = passes(records, gradient, &of_variables, scope);
        of_variables.wait();
        passed
    })?;
    of_variables.sums()
}

/// Goes through the records from the last to the first. Each is let go after its pass, with all that it saved for it.
fn passes<'scope>(
    mut records: Vec<Arc<Record>>,
    gradient: Tensor,
    of_variables: &'scope OfVariables,
    scope: &Scope<'scope>,
) -> Result<()> {
    let mut place = 0;
    let mut pending: HashMap<u64, Tensor> = records.last().map(|last| (last.order, gradient)).into_iter().collect();
    while let Some(record) = records.pop() {
        let Some(gradient) = pending.remove(&record.order) else { continue };
        let first = match record.inputs.first() {
            Some(Source::Record(input)) => Some(input.order),
            _ => None,
        };
        let mut so_far = first.and_then(|first| pending.remove(&first));
        place += MOST_INPUTS;
        let beside = |at, of| of_variables.hand_out(scope, place + at, &record.inputs[at..], of);
        let gradients = record.pass(&gradient, true, &mut so_far, Some(&beside))?;
        drop(gradient);
        if let Some((first, sum)) = first.zip(so_far) {
            pending.insert(first, sum);
        }
        for (at, (input, gradient)) in record.inputs.iter().zip(gradients).enumerate() {
            match (input, gradient) {
                (Source::Record(input), Some(gradient)) => add(&mut pending, input.order, gradient.tensor)?,
                (Source::Variable(id), Some(gradient)) => of_variables.put(place + at, Ok((*id, gradient))),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The gradients of variables as they come. No pass waits for those of a convolution's parameters but where it computes them itself: threads that
/// would have to wait for the last piece of an op compute them.
#[derive(Default)]
struct OfVariables {
    done: Mutex<Vec<Done>>,
    /// How many have been handed out and are not done. Each keeps an image and a gradient from being freed.
    handed_out: AtomicUsize,
}

/// A variable's gradient, or why there is none.
struct Done {
    /// Where it comes in the order in which all are added up.
    place: usize,
    gradient: Result<(TensorId, Gradient)>,
}

impl OfVariables {
    fn put(&self, place: usize, gradient: Result<(TensorId, Gradient)>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(Done { place, gradient });
    }

    /// Has the gradients of the first two inputs computed, or gives them back if one is no variable, or no thread is likely to be free.
    fn hand_out<'scope>(
        &'scope self,
        scope: &Scope<'scope>,
        place: usize,
        inputs: &[Source],
        of: OfParameters,
    ) -> Option<OfParameters> {
        let mut ids = [None; 2];
        for (id, input) in ids.iter_mut().zip(inputs) {
            match input {
                Source::Variable(variable) => *id = Some(*variable),
                Source::Constant => {}
                Source::Record(_) | Source::Candle => return Some(of),
            }
        }
        let others = rayon::current_num_threads() - 1;
        if self.handed_out.load(Ordering::Relaxed) >= others {
            return Some(of);
        }
        self.handed_out.fetch_add(1, Ordering::Relaxed);
        scope.spawn(move |_| {
            match of() {
                Ok(gradients) => {
                    for (at, (id, gradient)) in ids.into_iter().zip(gradients).enumerate() {
                        if let Some(done) = id.zip(gradient) {
                            self.put(place + at, Ok(done));
                        }
                    }
                }
                Err(error) => self.put(place, Err(error)),
            }
            self.handed_out.fetch_sub(1, Ordering::Relaxed);
        });
        None
    }

    /// Looks for work until what has been handed out is done.
    fn wait(&self) {
        look_for_work_until(|| self.handed_out.load(Ordering::Relaxed) == 0);
    }

    fn sums(self) -> Result<Gradients> {
        let mut done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_unstable_by_key(|done| done.place);
        let mut sums = Gradients::default();
        for Done { gradient, .. } in done {
            let (id, Gradient { tensor, squared_norm }) = gradient?;
            // That of a sum is not the sum of its terms'.
            match squared_norm.filter(|_| !sums.of_variables.contains_key(&id)) {
                Some(norm) => _ = sums.squared_norms.insert(id, norm),
                None => _ = sums.squared_norms.remove(&id),
            }
            add(&mut sums.of_variables, id, in_f32(&tensor)?)?;
        }
        Ok(sums)
    }
}

/// The first gradient of a tensor is taken as it is, the others are added to it.
fn add<K: Copy + Eq + Hash>(sums: &mut HashMap<K, Tensor>, key: K, gradient: Tensor) -> Result<()> {
    match sums.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(gradient);
            Ok(())
        }
        // Sums are in f32, unless all are bf16.
        Entry::Occupied(entry) if [entry.get(), &gradient].iter().filter(|x| x.dtype() == DType::BF16).count() == 1 => {
            let (sum, gradient) = (in_f32(entry.get())?, in_f32(&gradient)?);
            entry.remove();
            sums.insert(key, sum);
            add(sums, key, gradient)
        }
        Entry::Occupied(mut entry) if !has_kernel(entry.get()) || !entry.get().is_contiguous() => {
            #[cfg(feature = "cuda")]
            if let Some(stage) = crate::cuda::Stage::of_image(entry.get())
                && Order::is_one_of(entry.get(), &gradient)
            {
                return crate::cuda::moves::add_to(&stage, entry.get(), &gradient, [1., 1.]);
            }
            let sum = (entry.get() + gradient)?;
            entry.insert(sum);
            Ok(())
        }
        Entry::Occupied(entry) => {
            let gradient = gradient.contiguous()?;
            let gradient = values(&gradient)?;
            lend(entry.get(), |sum| {
                update(sum, &gradient, |sum, gradient| sum + gradient);
                Ok(())
            })
        }
    }
}

#[cfg(test)]
mod tests;
