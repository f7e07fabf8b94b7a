//! When a run is saved, and what happens where it cannot be.

use std::time::{Duration, Instant};

use crate::checkpoint::{self, Progress, State, Which};
use crate::config::CheckpointConfig;
use crate::run_dir::Records;
use crate::{Learner, RunDir, TrainingError};

/// Saves a run: its records, then its checkpoints, so that none of these knows of more than the records do.
pub(crate) struct Saver<'a> {
    run: &'a RunDir,
    config: &'a CheckpointConfig,
    pub(crate) records: Records,
    /// The best state, copied because it could not be written when it was the learner's.
    best: Option<(State, Progress)>,
    saved: Option<u64>,
    tried: Instant,
}

impl<'a> Saver<'a> {
    /// For a run whose newest checkpoint is of step `saved`.
    pub(crate) fn new(run: &'a RunDir, config: &'a CheckpointConfig, records: Records, saved: Option<u64>) -> Self {
        Self { run, config, records, best: None, saved, tried: Instant::now() }
    }

    /// Whether the recipe wants a checkpoint after this step.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        let CheckpointConfig { every_steps, every_minutes, .. } = *self.config;
        // A number of minutes that is no duration is longer than any run.
        let interval = Duration::try_from_secs_f64(60.0 * every_minutes).unwrap_or(Duration::MAX);
        every_steps > 0 && step.is_multiple_of(every_steps) || every_minutes > 0.0 && self.tried.elapsed() >= interval
    }

    /// Saves the learner as it is.
    ///
    /// # Errors
    /// [`TrainingError::NotSaved`]. What was to be written waits for the next time.
    pub(crate) fn save(&mut self, learner: &dyn Learner, progress: &Progress) -> Result<(), TrainingError> {
        self.tried = Instant::now();
        let mut save = || {
            self.records.write()?;
            if let Some((state, progress)) = &self.best {
                checkpoint::save(self.run, Which::Best, 1, state, progress)?;
                self.best = None;
            }
            checkpoint::save(self.run, Which::Last, self.config.keep, &State::of(learner)?, progress)
        };
        match save() {
            Ok(()) => self.saved = Some(progress.steps),
            Err(error) => return Err(self.not_saved(progress, error)),
        }
        Ok(())
    }

    /// Saves the learner as it is, unless it has taken no step since it was saved.
    pub(crate) fn save_if_new(&mut self, learner: &dyn Learner, progress: &Progress) -> Result<(), TrainingError> {
        if progress.steps == self.saved.unwrap_or(0) { Ok(()) } else { self.save(learner, progress) }
    }

    /// Saves the learner as it is, and as the best so far.
    ///
    /// # Errors
    /// Those of [`Saver::save`]. The best state is kept in memory then, until it can be written.
    pub(crate) fn save_best(&mut self, learner: &dyn Learner, progress: &Progress) -> Result<(), TrainingError> {
        let state = State::of(learner)?;
        self.best = None;
        let mut save = || {
            self.records.write()?;
            checkpoint::save(self.run, Which::Best, 1, &state, progress)
        };
        if let Err(error) = save() {
            self.best = Some((state.copy()?, progress.clone()));
            self.tried = Instant::now();
            return Err(self.not_saved(progress, error));
        }
        self.save(learner, progress)
    }

    fn not_saved(&self, progress: &Progress, error: TrainingError) -> TrainingError {
        TrainingError::NotSaved { step: progress.steps, saved: self.saved, source: Box::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use img2seg_data::ClassTable;

    use super::*;
    use crate::config::BestScore;
    use crate::learner::{self, Step, tests};

    #[test]
    fn checkpoints_are_due_by_steps_and_by_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::at(folder.path().to_owned());
        let due = |every_steps, every_minutes, waited: u64| {
            let config = CheckpointConfig { every_steps, every_minutes, keep: 1, best: BestScore::MeanIou };
            let (records, _) = Records::open(&run, &Progress::default()).unwrap();
            let mut saver = Saver::new(&run, &config, records, None);
            saver.tried = Instant::now().checked_sub(Duration::from_secs(waited)).unwrap();
            [5, 6].map(|step| saver.is_due(step))
        };
        assert_eq!(due(0, 0.0, 50), [false, false]);
        assert_eq!(due(3, 0.0, 0), [false, true]);
        assert_eq!(due(0, 0.5, 29), [false, false]);
        assert_eq!(due(0, 0.5, 31), [true, true]);
        assert_eq!(due(3, 1e300, 31), [false, true]);
    }

    /// The learner goes on while the disk refuses its best state: what is written later is that state, not a later one.
    #[test]
    fn the_best_state_waits_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::at(folder.path().to_owned());
        let config = CheckpointConfig { every_steps: 0, every_minutes: 0.0, keep: 1, best: BestScore::MeanIou };
        let (records, _) = Records::open(&run, &Progress::default()).unwrap();
        let mut saver = Saver::new(&run, &config, records, None);
        let recipe = tests::smoke();
        let classes = ClassTable::load(&recipe.data.classes).unwrap();
        let mut learner = learner::build(&recipe, &classes, &Device::Cpu).unwrap();
        let values = |learner: &dyn Learner| -> Vec<Vec<f32>> {
            learner
                .weights()
                .tensors()
                .values()
                .map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap())
                .collect()
        };
        let mut progress = Progress { steps: 1, ..Progress::default() };
        let best = values(learner.as_ref());

        // A file stands where the folder should.
        std::fs::write(run.file("checkpoints"), "").unwrap();
        let error = saver.save_best(learner.as_ref(), &progress).unwrap_err().to_string();
        assert!(error.ends_with("step 1 is not saved, there is no checkpoint"), "{error}");
        learner.train_step(&tests::batch(32, 64), Step { number: 2, rate_factor: 1.0 }).unwrap();
        progress.steps = 2;
        saver.save(learner.as_ref(), &progress).unwrap_err();
        std::fs::remove_file(run.file("checkpoints")).unwrap();
        saver.save(learner.as_ref(), &progress).unwrap();

        let last = values(learner.as_ref());
        assert!(last != best);
        for (which, expected, steps) in [(Which::Best, best, 1), (Which::Last, last, 2)] {
            assert_eq!(checkpoint::load(&run, which, learner.as_ref()).unwrap().steps, steps);
            assert!(values(learner.as_ref()) == expected, "{which:?}");
        }
    }
}
