//! The loop, read top to bottom.

mod ahead;
mod saver;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use ahead::Ahead;
use candle_core::Device;
use img2seg_data::{ClassTable, Dataset, Loader, Split};
use img2seg_models::load_weights;
use saver::Saver;
use serde_json::{Value, json};

use crate::checkpoint::{self, Best, Progress, State, Which};
use crate::divergence::diverged;
use crate::evaluate::{Evaluation, Scoring, evaluate};
use crate::learner::{self, Step};
use crate::manifest::{self, Manifest, Origin};
use crate::run_dir::{Records, RunLock};
use crate::schedule::Schedule;
use crate::scores::Scores;
use crate::trace::{self, Trace};
use crate::{Loss, RunConfig, RunDir, TrainingError, samples};

/// What happens in a run, as it happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// The files of a split are being read for the manifest.
    Digesting {
        /// The split.
        split: Split,
        /// Files read so far.
        done: usize,
        /// Files to read.
        total: usize,
    },
    /// The run begins, or goes on.
    Started {
        /// Steps of an epoch.
        steps_per_epoch: usize,
        /// Steps of the whole run.
        steps: u64,
        /// Steps done before.
        done: u64,
        /// The networks and how many trainable numbers each has.
        networks: Vec<(&'static str, usize)>,
    },
    /// A step was taken.
    Step {
        /// From 1.
        epoch: usize,
        /// From 1, over the whole run.
        step: u64,
        /// Images in its batch.
        images: usize,
        /// The losses before the step.
        losses: Vec<Loss>,
    },
    /// A split is being scored.
    Scoring {
        /// The split.
        split: Split,
        /// Images scored so far.
        done: usize,
        /// Images to score.
        total: usize,
    },
    /// An epoch ended.
    Epoch {
        /// From 1.
        epoch: usize,
        /// Means over its steps.
        losses: Vec<(String, f64)>,
        /// The val scores, when it was scored.
        val: Option<Box<Scores>>,
        /// Images a second while learning.
        images_per_second: f64,
        /// Whether the checkpoint `best` is now of this epoch.
        best: bool,
    },
    /// The run was saved because it was asked for.
    Saved {
        /// After this step.
        step: u64,
    },
    /// The run could not be saved. It goes on and tries again at the next checkpoint; only at its end that is an error.
    NotSaved {
        /// Why, and what is saved.
        reason: String,
    },
    /// A checkpoint that the run would have gone on from is damaged; it goes on from an older one.
    Damaged {
        /// What is wrong with it.
        complaint: String,
    },
}

/// What a run can be asked for while it goes on.
#[derive(Debug, Default)]
pub struct Requests {
    /// End after the present step, saved.
    pub stop: Arc<AtomicBool>,
    /// Save after the present step, and go on. The run takes the request back when it has tried.
    pub save: Arc<AtomicBool>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Where it stands.
    pub progress: Progress,
    /// Whether it was stopped before its last epoch. It is saved and can be resumed.
    pub interrupted: bool,
    /// Seconds spent in training steps of this call, scoring left out.
    pub training_seconds: f64,
}

/// Where a run happens, and whether it has begun.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The data.
    pub root: &'a Path,
    /// The run directory: free or empty for a new run.
    pub run: &'a Path,
    /// Whether `run` holds a run that goes on from its last checkpoint.
    pub resume: bool,
    /// A file of weights for a new run to begin with, instead of those that its seed draws.
    pub weights: Option<&'a Path>,
    /// What computes.
    pub device: &'a Device,
    /// Stops after this many steps of the run, saved.
    pub until: Option<u64>,
    /// A file for the hashes of every step's tensors; see [`Trace`].
    pub trace: Option<&'a Path>,
    /// The directory of a run that this one, a new one, repeats: what made that one must be as it was.
    pub repeats: Option<&'a Path>,
    /// Warns of what has changed since the run was made, and notes it, instead of refusing to go on.
    pub allow_changes: bool,
}

/// Trains `config` at `place`. Nothing is written before recipe, data and networks are known to fit.
///
/// Nobody needs to listen to `events`.
///
/// # Errors
/// Among others [`TrainingError::Diverged`], which leaves a dump, [`TrainingError::RunInUse`], and [`TrainingError::NotSaved`] where
/// the run could not be saved at its end.
#[allow(clippy::too_many_lines, reason = "a run is one piece, to be read from top to bottom")]
pub fn train(
    config: &RunConfig,
    place: Place,
    origin: &Origin,
    requests: &Requests,
    events: &Sender<Event>,
) -> Result<Outcome, TrainingError> {
    let Place { root, device, .. } = place;
    let tell = |event| _ = events.send(event);
    let resumed = if place.resume { Some(RunDir::open(place.run)?) } else { None };
    let resumed = resumed.map(|run| Ok::<_, TrainingError>((RunLock::take(place.run)?, run))).transpose()?;
    let classes = Arc::new(match &resumed {
        Some((_, run)) => run.classes()?,
        None => ClassTable::load(&config.data.classes)?,
    });
    let open = |split| Dataset::open(root, split, &config.data, classes.clone());
    let (train_set, val_set) = (open(Split::Train)?, open(Split::Val)?);
    let mut settled = config.clone();
    settled.settle(&train_set)?;
    let config = &settled;
    let mut learner = learner::build(config, &classes, device)?;
    if let Some(path) = place.weights {
        let refused = |text: String| TrainingError::checkpoint(path, text);
        let weights = load_weights(path).map_err(|error| {
            let text = TrainingError::from(error).to_string();
            refused(text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned())
        })?;
        learner.weights().load(&weights).map_err(|error| refused(error.to_string()))?;
    }

    let digesting = |split, done, total| tell(Event::Digesting { split, done, total });
    let sets = [&train_set, &val_set];
    let manifest = Manifest::new(config, &classes, origin, &place, learner.as_ref(), sets, &digesting)?;
    if let Some(original) = place.repeats {
        manifest::check_repetition(original, &manifest, place.allow_changes)?;
    }

    let mut progress = Progress::default();
    let mut saved = None;
    let mut is_in_last = true;
    let (run, _lock) = if let Some((lock, run)) = resumed {
        run.clear_unfinished()?;
        if let Some(resumed) = checkpoint::resume(&run, learner.as_mut())? {
            resumed.damaged.into_iter().for_each(|complaint| tell(Event::Damaged { complaint }));
            progress = resumed.progress;
            is_in_last = resumed.is_last;
            saved = Some(progress.steps);
        }
        manifest.resume(&run, progress.steps, place.allow_changes)?;
        (run, lock)
    } else {
        let (run, lock) = RunDir::create(place.run, &classes)?;
        manifest.write(&run)?;
        if place.weights.is_some() {
            // Its seed does not tell where this run begins.
            checkpoint::save(&run, Which::Last, config.checkpoint.keep, &State::of(learner.as_ref())?, &progress)?;
            saved = Some(0);
        }
        run.begin(config)?;
        (run, lock)
    };
    let (records, mut means) = Records::open(&run, &progress)?;
    let mut saver = Saver::new(&run, &config.checkpoint, records, saved);
    if !is_in_last {
        // A run whose epochs are all done is not saved again: `last` has to be its end all the same.
        match saver.save(learner.as_ref(), &progress) {
            Err(error) if progress.epochs < config.epochs => tell(Event::NotSaved { reason: error.to_string() }),
            done => done?,
        }
    }
    let trace = |path| Trace::create(path, learner.as_ref(), progress.steps);
    let mut trace = place.trace.map(trace).transpose()?;

    let loader = |set: Dataset| Loader::new(set, config.loader(), config.data.augment.clone(), config.seed);
    let scored_train_loader = match config.evaluation.train_images {
        0 => None,
        images => Some(loader(train_set.clone().take(images))?),
    };
    let (train_loader, val_loader) = (loader(train_set)?, loader(val_set)?);
    let steps_per_epoch = train_loader.batches_per_epoch();
    let schedule = Schedule::new(&config.schedule, config.epochs, steps_per_epoch);
    tell(Event::Started {
        steps_per_epoch,
        steps: (config.epochs * steps_per_epoch) as u64,
        done: progress.steps,
        networks: learner.networks(),
    });

    let stopping = |steps| requests.stop.load(Ordering::Relaxed) || place.until.is_some_and(|until| steps >= until);
    let mut training_seconds = 0.0;
    while progress.epochs < config.epochs {
        let epoch = progress.epochs + 1;
        let started = Instant::now();
        let mut images = 0;
        for batch in Ahead::new(train_loader.train_batches(epoch, progress.batches), device)? {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    // The file is to blame, not what was learned; of two errors, the first is told.
                    let _ = saver.save_if_new(learner.as_ref(), &progress);
                    return Err(error.into());
                }
            };
            let step = Step { number: progress.steps + 1, rate_factor: schedule.factor(progress.steps) };
            let losses = match learner.train_step(&batch, step) {
                Err(TrainingError::NotFinite { part, tensor }) => {
                    // For who looks for the cause; the error that ends the run is the divergence.
                    let _ = saver.records.write();
                    return Err(diverged(&run, learner.as_ref(), &batch, step, part, tensor));
                }
                losses => losses?,
            };
            progress.steps += 1;
            progress.batches += 1;
            saver.records.step(epoch, progress.steps, &losses);
            if let Some(trace) = &mut trace {
                trace.add(progress.steps, &losses, &batch, learner.as_ref())?;
            }
            means.add(losses.iter().map(|loss| (loss.name, loss.value)));
            images += batch.names.len();
            tell(Event::Step { epoch, step: progress.steps, images: batch.names.len(), losses });

            let asked = requests.save.swap(false, Ordering::Relaxed);
            if stopping(progress.steps) && progress.batches < steps_per_epoch {
                saver.save(learner.as_ref(), &progress)?;
                training_seconds += started.elapsed().as_secs_f64();
                return Ok(Outcome { progress, interrupted: true, training_seconds });
            }
            if asked || saver.is_due(progress.steps) && progress.batches < steps_per_epoch {
                match saver.save(learner.as_ref(), &progress) {
                    Ok(()) if asked => tell(Event::Saved { step: progress.steps }),
                    Ok(()) => {}
                    Err(error) => tell(Event::NotSaved { reason: error.to_string() }),
                }
            }
        }
        let train_seconds = started.elapsed().as_secs_f64();
        training_seconds += train_seconds;
        let train_losses = std::mem::take(&mut means).means();

        let started = Instant::now();
        let last = epoch == config.epochs;
        let due = |every: usize| every > 0 && (last || epoch % every == 0);
        let wants_samples = due(config.evaluation.samples_every_epochs);
        let score = |loader: &Loader, split: Split, pictures: usize| {
            let total = loader.dataset().len();
            let scoring = |done| {
                tell(Event::Scoring { split, done, total });
                if requests.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let asked = Scoring { split: split.name(), tta: config.evaluation.tta, pictures, details: false };
            evaluate(learner.as_ref(), loader, &classes, device, asked, scoring)
        };
        let mut val: Option<Evaluation> = None;
        let mut train: Option<Evaluation> = None;
        if due(config.evaluation.every_epochs) || wants_samples {
            let pictures = if wants_samples { config.evaluation.samples } else { 0 };
            val = score(&val_loader, Split::Val, pictures)?;
            train = match &scored_train_loader {
                Some(loader) if val.is_some() => score(loader, Split::Train, 0)?,
                _ => None,
            };
            if val.is_none() || scored_train_loader.is_some() && train.is_none() {
                // Asked to stop: all batches of the epoch are done, and it is scored when the run goes on.
                saver.save(learner.as_ref(), &progress)?;
                return Ok(Outcome { progress, interrupted: true, training_seconds });
            }
        }
        if let (Some(val), true) = (&val, wants_samples)
            && let Some(png) = samples::png(&val.pictures, &classes)?
        {
            saver.records.sheet(&format!("epoch-{epoch:03}.png"), png);
        }

        progress.epochs = epoch;
        progress.batches = 0;
        let candidate = val.as_ref().and_then(|val| val.scores.of(config.checkpoint.best));
        let best = candidate.is_some_and(|score| progress.best.is_none_or(|best| score > best.score));
        if let (Some(score), true) = (candidate, best) {
            progress.best = Some(Best { score, epoch });
        }
        let rate_factor = schedule.factor(progress.steps.saturating_sub(1));
        let images_per_second = images as f64 / train_seconds;
        saver.records.epoch(
            &metrics_line(epoch, &progress, rate_factor, &train_losses, train.as_ref(), val.as_ref()),
            &trace::digests(epoch, learner.as_ref())?,
            &json!({
                "epoch": epoch,
                "train_seconds": train_seconds,
                "evaluation_seconds": started.elapsed().as_secs_f64(),
                "images_per_second": images_per_second,
            }),
        );
        let stops = stopping(progress.steps) && !last;
        let save = if best { Saver::save_best } else { Saver::save };
        match save(&mut saver, learner.as_ref(), &progress) {
            Ok(()) => {}
            Err(error) if last || stops => return Err(error),
            Err(error) => tell(Event::NotSaved { reason: error.to_string() }),
        }
        let val = val.map(|val| Box::new(val.scores));
        tell(Event::Epoch { epoch, losses: train_losses, val, images_per_second, best });
        if stops {
            return Ok(Outcome { progress, interrupted: true, training_seconds });
        }
    }
    Ok(Outcome { progress, interrupted: false, training_seconds })
}

/// A line of `metrics.jsonl`. Times stand elsewhere: equal runs have equal lines.
fn metrics_line(
    epoch: usize,
    progress: &Progress,
    rate_factor: f64,
    train_losses: &[(String, f64)],
    train: Option<&Evaluation>,
    val: Option<&Evaluation>,
) -> Value {
    let object = |losses: &[(String, f64)]| -> Value {
        losses.iter().map(|(name, mean)| (name.clone(), json!(mean))).collect::<serde_json::Map<_, _>>().into()
    };
    json!({
        "epoch": epoch,
        "step": progress.steps,
        "learning_rate_factor": rate_factor,
        "losses": { "train": object(train_losses), "val": val.map(|val| object(&val.losses)) },
        "train": train.map(|train| &train.scores),
        "val": val.map(|val| &val.scores),
    })
}
