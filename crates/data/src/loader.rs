//! Samples to batches: read and changed by many threads, a few batches ahead of the learner.

mod cache;

use std::panic;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cache::Cache;
use rayon::Yield;
use rayon::prelude::*;

use crate::augment::{CutMix, augment, fit};
use crate::config::MAX_SIDE;
use crate::keyed::KeyedRng;
use crate::{AugmentConfig, Batch, DataError, Dataset, Sample, VOID, keyed};

/// Batches that wait for the learner, at most; one more is being made.
const AHEAD: usize = 2;

/// What a thread of rayon's pool waits for a batch, when it has found nothing to do there, before it looks again.
const LOOK: Duration = Duration::from_micros(200);

/// What a [`Loader`] makes of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
    /// Samples in a batch, at least 1.
    pub batch_size: usize,
    /// Height in pixels of every sample, 1 to 16384.
    pub height: usize,
    /// Width in pixels of every sample, 1 to 16384.
    pub width: usize,
    /// Memory for samples as they are stored, in MiB; 0 reads every file anew each time.
    pub cache_mib: usize,
}

/// Gives out the batches of a data set, in an order that (seed, epoch) alone determines.
///
/// Sample and change depend on (seed, epoch, index): not on threads, on the cache, or on which batches were taken before.
#[derive(Clone, Debug)]
pub struct Loader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dataset: Dataset,
    config: LoaderConfig,
    augment: AugmentConfig,
    seed: u64,
    cache: Cache,
}

impl Loader {
    /// Checks the settings; reads nothing yet.
    pub fn new(dataset: Dataset, config: LoaderConfig, augment: AugmentConfig, seed: u64) -> Result<Self, DataError> {
        let sides = [("data.height", config.height, MAX_SIDE), ("data.width", config.width, MAX_SIDE)];
        for (key, value, most) in sides.into_iter().chain([("data.batch_size", config.batch_size, usize::MAX)]) {
            if value == 0 || value > most {
                return Err(DataError::Setting { key, reason: format!("{value} is not in 1..={most}") });
            }
        }
        augment.validate()?;
        let cache = Cache::new(dataset.len(), config.cache_mib);
        Ok(Self(Arc::new(Shared { dataset, config, augment, seed, cache })))
    }

    /// What is loaded.
    pub fn dataset(&self) -> &Dataset {
        &self.0.dataset
    }

    /// Batches of an epoch of training: only full ones, unless the only one is not.
    pub fn batches_per_epoch(&self) -> usize {
        (self.0.dataset.len() / self.0.config.batch_size).max(1)
    }

    /// The batches of an epoch from `first_batch` on, shuffled and changed. Incomplete ones are dropped, unless it is the only one.
    pub fn train_batches(&self, epoch: usize, first_batch: usize) -> Batches {
        let order = self.0.order(epoch);
        let batches = order.chunks(self.0.config.batch_size).take(self.batches_per_epoch()).skip(first_batch);
        let shared = Arc::clone(&self.0);
        Batches::start(batches.map(<[usize]>::to_vec).collect(), move |i| shared.train_sample(epoch, i))
    }

    /// Every sample once, in the order of the files, unchanged but for its size. The last batch may be smaller.
    pub fn eval_batches(&self) -> Batches {
        let order: Vec<usize> = (0..self.0.dataset.len()).collect();
        let batches = order.chunks(self.0.config.batch_size).map(<[usize]>::to_vec).collect();
        let shared = Arc::clone(&self.0);
        Batches::start(batches, move |i| shared.eval_sample(i))
    }
}

impl Shared {
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        keyed::rng(self.seed, "order", &[epoch as u64]).shuffle(&mut order);
        order
    }

    fn train_sample(&self, epoch: usize, i: usize) -> Result<Sample, DataError> {
        let draws = |purpose| keyed::rng(self.seed, purpose, &[epoch as u64, i as u64]);
        let mut sample = self.augmented(i, &mut draws("augment"))?;
        let mix = CutMix::draw(self.augment.cut_mix, i, self.dataset.len(), &mut draws("cut_mix"));
        if let Some(mix) = mix {
            mix.paste(&mut sample, &self.augmented(mix.partner, &mut draws("cut_mix partner"))?);
        }
        Ok(sample)
    }

    fn augmented(&self, i: usize, draws: &mut KeyedRng) -> Result<Sample, DataError> {
        let stored = self.cache.get_or_read(i, || self.dataset.sample(i))?;
        let size = (self.config.height, self.config.width);
        Ok(augment(&stored, &self.augment, size, self.dataset.table().color_of(VOID), draws))
    }

    fn eval_sample(&self, i: usize) -> Result<Sample, DataError> {
        let stored = self.cache.get_or_read(i, || self.dataset.sample(i))?;
        Ok(fit(&stored, self.config.height, self.config.width))
    }
}

/// An iterator over batches that a thread makes ahead of their use. An error stands in the place of its batch and ends the
/// iteration. Dropping it ends the thread.
///
/// Samples are made by rayon's pool. Who takes batches on a thread of that pool, perhaps its only one, helps with what there is to do instead of
/// waiting.
#[derive(Debug)]
pub struct Batches {
    queue: Option<Receiver<Result<Batch, DataError>>>,
    thread: Option<JoinHandle<()>>,
    not_started: Option<DataError>,
}

impl Batches {
    fn start(
        batches: Vec<Vec<usize>>,
        sample: impl Fn(usize) -> Result<Sample, DataError> + Send + Sync + 'static,
    ) -> Self {
        let (sender, queue) = sync_channel(AHEAD);
        let work = move || {
            for batch in batches {
                let batch = make_batch(&batch, &sample);
                let failed = batch.is_err();
                // Nobody waits any longer, or there is nothing to wait for.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        match thread::Builder::new().name("loader".into()).spawn(work) {
            Ok(thread) => Self { queue: Some(queue), thread: Some(thread), not_started: None },
            Err(source) => {
                let error = DataError::Io { path: "loader thread".into(), source };
                Self { queue: None, thread: None, not_started: Some(error) }
            }
        }
    }
}

/// Makes the samples in parallel. Of several errors, the first in the batch's order is told, whichever came first.
fn make_batch(
    batch: &[usize],
    sample: &(impl Fn(usize) -> Result<Sample, DataError> + Sync),
) -> Result<Batch, DataError> {
    let samples: Vec<_> = batch.par_iter().map(|&i| sample(i)).collect();
    Batch::stack(&samples.into_iter().collect::<Result<Vec<_>, _>>()?)
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.not_started.take() {
            return Some(Err(error));
        }
        if let Some(batch) = self.queue.as_ref().and_then(received) {
            return Some(batch);
        }
        // The thread is done. Had it ended by a panic, the epoch would seem to be over.
        if let Some(Err(cause)) = self.thread.take().map(JoinHandle::join) {
            panic::resume_unwind(cause);
        }
        None
    }
}

/// The next of a queue, or none if it has ended.
fn received<T>(queue: &Receiver<T>) -> Option<T> {
    if rayon::current_thread_index().is_none() {
        return queue.recv().ok();
    }
    let mut wait = Duration::ZERO;
    loop {
        match queue.recv_timeout(wait) {
            Ok(next) => return Some(next),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                wait = if rayon::yield_now() == Some(Yield::Executed) { Duration::ZERO } else { LOOK };
            }
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Without a receiver, the thread's next send fails; a batch in the making is finished first.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() {
                match rayon::yield_now() {
                    Some(Yield::Executed) => {}
                    Some(Yield::Idle) => thread::sleep(LOOK),
                    None => break,
                }
            }
            // A panic is told where batches are taken; here nobody takes any.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
