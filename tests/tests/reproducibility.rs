//! Same seed, same run: bit for bit, for any number of threads, and across an interruption.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use candle_core::Device;
use img2seg_data::streets;
use img2seg_training::manifest::Origin;
use img2seg_training::{Event, Outcome, Place, Requests, RunConfig, train};

const RECIPES: [&str; 4] = ["smoke-unet", "smoke-cgan", "smoke-adversarial", "smoke-cvae"];

struct Lab {
    folder: tempfile::TempDir,
    config: RunConfig,
    data: PathBuf,
}

impl Lab {
    fn new(recipe: &str) -> Self {
        let path = format!("{}/../data/recipes/{recipe}.toml", env!("CARGO_MANIFEST_DIR"));
        let config = RunConfig::from_toml(&std::fs::read_to_string(path).unwrap(), recipe, &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        streets::write(&data, config.data.streets.as_ref().unwrap(), &|_, _| ()).unwrap();
        Self { folder, config, data }
    }

    fn run(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trains, asking it to stop once `steps` steps were taken. Says whether the run was interrupted.
    fn train(&self, run: &Path, resume: bool, steps: Option<u64>) -> bool {
        let reached =
            |event: &Event| matches!(event, Event::Step { step, .. } if steps.is_some_and(|steps| *step >= steps));
        self.train_until(run, resume, &reached).interrupted
    }

    /// Trains, asking it to stop at the first event that is meant.
    fn train_until(&self, run: &Path, resume: bool, is_meant: &(dyn Fn(&Event) -> bool + Sync)) -> Outcome {
        let origin = Origin::default();
        let place = Place {
            root: &self.data,
            run,
            resume,
            weights: None,
            device: &Device::Cpu,
            until: None,
            trace: None,
            repeats: None,
            allow_changes: false,
        };
        let requests = Requests::default();
        let (sender, events) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for event in events {
                    if is_meant(&event) {
                        requests.stop.store(true, Ordering::Relaxed);
                    }
                }
            });
            let outcome = train(&self.config, place, &origin, &requests, &sender).unwrap();
            drop(sender);
            outcome
        })
    }

    /// Everything that a run leaves but its times, and but the checkpoints before the last: when a run is saved depends on when it is
    /// interrupted.
    fn files(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![run.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    if !name.starts_with("last-") {
                        folders.push(path);
                    }
                } else if !path.ends_with("times.jsonl") {
                    files.insert(path.strip_prefix(run).unwrap().to_owned(), std::fs::read(&path).unwrap());
                }
            }
        }
        assert!(files.len() >= 10, "{:?}", files.keys());
        files
    }
}

fn assert_same(one: &BTreeMap<PathBuf, Vec<u8>>, other: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{what}");
    for (path, bytes) in one {
        assert!(bytes == &other[path], "{what}: {} differs", path.display());
    }
}

#[test]
fn the_same_seed_gives_the_same_run_for_any_number_of_threads() {
    for recipe in RECIPES {
        let lab = Lab::new(recipe);
        lab.train(&lab.run("once"), false, None);
        let once = Lab::files(&lab.run("once"));
        for threads in [1, 3] {
            let run = lab.run(&format!("threads-{threads}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| lab.train(&run, false, None));
            assert_same(&once, &Lab::files(&run), &format!("{recipe}, {threads} threads"));
        }
    }
}

#[test]
fn another_seed_gives_another_run() {
    let mut lab = Lab::new("smoke-unet");
    lab.train(&lab.run("one"), false, None);
    lab.config.seed += 1;
    lab.train(&lab.run("other"), false, None);
    let losses = |name: &str| std::fs::read(lab.run(name).join("losses.txt")).unwrap();
    assert_ne!(losses("one"), losses("other"));
}

#[test]
fn an_interrupted_run_goes_on_as_if_it_had_not_been() {
    for recipe in RECIPES {
        let lab = Lab::new(recipe);
        lab.train(&lab.run("whole"), false, None);
        let whole = Lab::files(&lab.run("whole"));
        let run = lab.run("interrupted");
        let mut interruptions = 0;
        let mut interrupted = lab.train(&run, false, Some(1));
        while interrupted {
            interruptions += 1;
            interrupted = lab.train(&run, true, Some(1));
        }
        assert!(interruptions >= 2, "{recipe}: interrupted {interruptions} times only");
        assert_same(&whole, &Lab::files(&run), recipe);
    }
}

/// The last epoch is the best, and what was saved of it is `best` alone.
#[test]
fn a_run_that_is_killed_between_best_and_last_of_its_end_has_both_when_it_goes_on() {
    for recipe in RECIPES {
        let mut lab = Lab::new(recipe);
        lab.config.epochs = 1;
        lab.config.checkpoint.every_steps = 1;
        lab.train(&lab.run("whole"), false, None);
        let whole = Lab::files(&lab.run("whole"));
        let run = lab.run("killed");
        lab.train(&run, false, None);
        let [last, before] = ["last", "last-1"].map(|name| run.join("checkpoints").join(name));
        for gone in [false, true] {
            std::fs::remove_dir_all(&last).unwrap();
            if !gone {
                std::fs::rename(&before, &last).unwrap();
            }
            assert!(!lab.train(&run, true, None));
            assert_same(&whole, &Lab::files(&run), recipe);
        }
    }
}

/// Scoring takes long on real data: it is broken off, and made again when the run goes on.
#[test]
fn a_run_that_is_stopped_while_it_is_scored_goes_on_there() {
    for recipe in RECIPES {
        let mut lab = Lab::new(recipe);
        // Enough images that the request to stop arrives before the last is scored.
        lab.config.data.streets.as_mut().unwrap().val = 60;
        std::fs::remove_dir_all(&lab.data).unwrap();
        streets::write(&lab.data, lab.config.data.streets.as_ref().unwrap(), &|_, _| ()).unwrap();
        lab.train(&lab.run("whole"), false, None);
        let run = lab.run("interrupted");
        let scoring = |event: &Event| matches!(event, Event::Scoring { .. });
        let outcome = lab.train_until(&run, false, &scoring);
        assert!(outcome.interrupted, "{recipe}");
        assert_eq!((outcome.progress.epochs, outcome.progress.batches), (0, 4), "{recipe}: all steps, no scores");
        lab.train(&run, true, None);
        assert_same(&Lab::files(&lab.run("whole")), &Lab::files(&run), recipe);
    }
}
