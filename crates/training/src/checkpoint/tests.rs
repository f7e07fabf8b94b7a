use candle_core::Device;
use img2seg_data::ClassTable;
use tempfile::TempDir;

use super::*;
use crate::RunConfig;
use crate::learner::{self, Step, tests};

struct Lab {
    _folder: TempDir,
    run: RunDir,
    learner: Box<dyn Learner>,
}

/// A run and a learner whose state is another after each [`Lab::save`].
impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::at(folder.path().to_owned());
        Self { _folder: folder, run, learner: learner() }
    }

    fn save(&mut self, which: Which, keep: usize, steps: u64) {
        self.learner.train_step(&tests::batch(16, 16), Step { number: steps, rate_factor: 1.0 }).unwrap();
        let progress = Progress { steps, ..Progress::default() };
        save(&self.run, which, keep, &State::of(self.learner.as_ref()).unwrap(), &progress).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.run.file("checkpoints")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn steps_of(&self, name: &str) -> u64 {
        read_progress(&self.run.file("checkpoints").join(name)).unwrap().progress.steps
    }

    fn resume(&self) -> Result<Option<Resumed>, TrainingError> {
        resume(&self.run, learner().as_mut())
    }

    /// Changes one byte in the middle of a file of a checkpoint.
    fn damage(&self, file: &str) {
        let path = self.run.file("checkpoints").join(file);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

fn config() -> RunConfig {
    let settings = ["data.height=16", "data.width=16", "task.segmentation.network.unet.base_channels=1"];
    tests::recipe("smoke-unet", &settings)
}

fn learner() -> Box<dyn Learner> {
    let config = config();
    learner::build(&config, &ClassTable::load(&config.data.classes).unwrap(), &Device::Cpu).unwrap()
}

#[test]
fn the_newest_are_kept_and_the_best_is_one() {
    let mut lab = Lab::new();
    for steps in 1..=5 {
        lab.save(Which::Last, 3, steps);
        lab.save(Which::Best, 1, steps);
    }
    assert_eq!(lab.names(), ["best", "last", "last-1", "last-2"]);
    assert_eq!(["last", "last-1", "last-2", "best"].map(|name| lab.steps_of(name)), [5, 4, 3, 5]);
    lab.save(Which::Last, 1, 6);
    assert_eq!(lab.names(), ["best", "last"]);
    assert_eq!(load(&lab.run, Which::Last, learner().as_mut()).unwrap().steps, 6);
}

#[test]
fn what_is_resumed_has_every_bit() {
    let mut lab = Lab::new();
    lab.save(Which::Last, 2, 1);
    let mut resumed = learner();
    resume(&lab.run, resumed.as_mut()).unwrap().unwrap();
    let bits = |learner: &dyn Learner| {
        let state = State::of(learner).unwrap();
        let tensors = state.weights.into_iter().chain(state.optimizer).filter(|(_, tensor)| tensor.dtype().is_float());
        let bits = |tensor: Tensor| -> Vec<u32> {
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|value| value.to_bits()).collect()
        };
        tensors.map(|(name, tensor)| (name, bits(tensor))).collect::<Vec<_>>()
    };
    assert!(bits(resumed.as_ref()) == bits(lab.learner.as_ref()));
    // And they stay alike: the step counts were restored too.
    for learner in [&mut lab.learner, &mut resumed] {
        learner.train_step(&tests::batch(16, 16), Step { number: 2, rate_factor: 1.0 }).unwrap();
    }
    assert!(bits(resumed.as_ref()) == bits(lab.learner.as_ref()));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_is_used() {
    for file in ["weights.safetensors", "optimizer.safetensors", "progress.json"] {
        let mut lab = Lab::new();
        for steps in 1..=3 {
            lab.save(Which::Last, 3, steps);
        }
        lab.damage(&format!("last/{file}"));
        let resumed = lab.resume().unwrap().unwrap();
        assert_eq!(resumed.progress.steps, 2);
        assert_eq!(resumed.damaged.len(), 1);
        assert!(resumed.damaged[0].contains(&format!("last/{file}: ")), "{:?}", resumed.damaged);
        assert_eq!(lab.names(), ["damaged-last", "last-1", "last-2"]);
        // The next one does not push the whole ones out for it.
        lab.save(Which::Last, 3, 3);
        assert_eq!(lab.names(), ["damaged-last", "last", "last-1", "last-2"]);
        assert_eq!(["last", "last-1", "last-2"].map(|name| lab.steps_of(name)), [3, 2, 1]);
    }
}

#[test]
fn every_number_of_progress_is_vouched_for() {
    let mut lab = Lab::new();
    lab.save(Which::Last, 2, 7);
    lab.save(Which::Last, 2, 8);
    let path = lab.run.file("checkpoints/last/progress.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"steps\": 8"), "{text}");
    fs::write(&path, text.replace("\"steps\": 8", "\"steps\": 9")).unwrap();
    assert_eq!(lab.resume().unwrap().unwrap().progress.steps, 7);
}

#[test]
fn a_half_checkpoint_counts_as_damaged_and_the_best_serves_when_nothing_else_does() {
    let mut lab = Lab::new();
    lab.save(Which::Best, 1, 1);
    lab.save(Which::Last, 2, 2);
    lab.save(Which::Last, 2, 3);
    fs::remove_file(lab.run.file("checkpoints/last/progress.json")).unwrap();
    fs::write(lab.run.file("checkpoints/last-1/optimizer.safetensors"), "").unwrap();
    let resumed = lab.resume().unwrap().unwrap();
    assert_eq!((resumed.progress.steps, resumed.is_last, resumed.damaged.len()), (1, false, 2));
    lab.damage("best/weights.safetensors");
    let error = lab.resume().unwrap_err().to_string();
    assert!(error.contains("best/weights.safetensors: damaged"), "{error}");
    // Nothing was set aside that nothing stands in for.
    assert_eq!(lab.names(), ["best", "damaged-last", "damaged-last-1"]);
}

#[test]
fn the_newest_serves_and_last_of_one_step() {
    let mut lab = Lab::new();
    lab.save(Which::Last, 1, 1);
    lab.save(Which::Best, 1, 2);
    let resumed = lab.resume().unwrap().unwrap();
    assert_eq!((resumed.progress.steps, resumed.is_last), (2, false));
    lab.save(Which::Last, 1, 2);
    assert!(lab.resume().unwrap().unwrap().is_last);
}

#[test]
fn without_a_checkpoint_there_is_nothing_to_resume() {
    assert!(Lab::new().resume().unwrap().is_none());
}

/// A kill can fall between any two renames.
#[test]
fn stopped_while_it_is_put_in_place_a_whole_one_is_found() {
    let mut lab = Lab::new();
    for steps in 1..=2 {
        lab.save(Which::Last, 2, steps);
    }
    let rename = |from: &str, to: &str| {
        let checkpoints = lab.run.file("checkpoints");
        fs::rename(checkpoints.join(from), checkpoints.join(to)).unwrap();
        lab.resume().unwrap().unwrap().progress.steps
    };
    assert_eq!(rename("last-1", "last-2"), 2);
    assert_eq!(rename("last", "last-1"), 2);
    assert_eq!(load(&lab.run, Which::Last, learner().as_mut()).unwrap().steps, 2);
    lab.save(Which::Last, 2, 3);
    assert_eq!(lab.names(), ["last", "last-1"]);
    assert_eq!(["last", "last-1"].map(|name| lab.steps_of(name)), [3, 2]);
}

#[test]
fn a_run_directory_that_is_gone_does_not_come_back() {
    let lab = Lab::new();
    let gone = RunDir::at(lab.run.file("gone"));
    let state = State::of(lab.learner.as_ref()).unwrap();
    let error = save(&gone, Which::Last, 1, &state, &Progress::default()).unwrap_err().to_string();
    assert!(error.starts_with(&gone.file("checkpoints").display().to_string()), "{error}");
    assert!(!gone.path().exists());
}

/// The hash says that a file is what was written, not that it is what it should be: a stranger can write both.
#[test]
fn a_checkpoint_whose_hashes_fit_is_still_read_with_care() {
    let mut lab = Lab::new();
    lab.save(Which::Last, 1, 1);
    let directory = lab.run.file("checkpoints/last");
    // Two tensors whose sizes overflow when they are added: safetensors 0.8 panics in debug builds, and wraps in others.
    let header = br#"{"a":{"dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,0]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    fs::write(directory.join(WEIGHTS), &bytes).unwrap();
    let mut file = read_progress(&directory).unwrap();
    file.sha256.insert(WEIGHTS.to_owned(), hex(&Sha256::digest(&bytes)));
    fs::write(directory.join(PROGRESS), serde_json::to_string(&file).unwrap()).unwrap();
    let error = load(&lab.run, Which::Last, learner().as_mut()).unwrap_err().to_string();
    assert!(error.contains("last/weights.safetensors: a: shape [4611686018427387904, 2]"), "{error}");
}
