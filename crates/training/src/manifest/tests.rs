use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use img2seg_data::{DataConfig, Split};

use super::*;
use crate::learner::tests::smoke;

/// A folder of three files, which are not decoded here, and a cache beside it.
struct Lab {
    folder: tempfile::TempDir,
    config: DataConfig,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap(), config: smoke().data };
        fs::create_dir_all(lab.folder.path().join("data/train")).unwrap();
        for name in ["a", "b", "c"] {
            lab.write(name, "pixels", 1000);
        }
        lab
    }

    /// Writes a sample's file and sets its time.
    fn write(&self, name: &str, text: &str, seconds: u64) {
        let path = self.folder.path().join(format!("data/train/{name}.png"));
        fs::write(&path, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn digest(&self, cache: Option<&Path>) -> SplitDigest {
        let table = Arc::new(ClassTable::load("cityscapes").unwrap());
        let dataset = Dataset::open(&self.folder.path().join("data"), Split::Train, &self.config, table).unwrap();
        let files = std::sync::atomic::AtomicUsize::new(0);
        let digest = digest(&dataset, cache, &|_, total| {
            files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(total, dataset.len());
        });
        assert_eq!(files.into_inner(), dataset.len());
        digest.unwrap()
    }
}

#[test]
fn a_digest_is_of_names_sizes_and_contents_wherever_they_lie() {
    let (one, other) = (Lab::new(), Lab::new());
    let before = one.digest(None);
    assert_eq!(before, other.digest(None));
    assert_eq!((before.images, before.bytes), (3, 18));
    one.write("b", "pixelz", 1000);
    assert_ne!(before, one.digest(None), "a content");
    one.write("b", "pixels", 1000);
    assert_eq!(before, one.digest(None));
    let file = |name: &str| one.folder.path().join("data/train").join(name);
    fs::rename(file("b.png"), file("bb.png")).unwrap();
    assert_ne!(before, one.digest(None), "a name");
}

#[test]
fn the_cache_knows_files_by_size_and_time() {
    let lab = Lab::new();
    let cache = lab.cache();
    let before = lab.digest(Some(&cache));
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
    // Size and time kept: only who reads it sees this. That it is not seen shows that nothing was read.
    lab.write("b", "pixelz", 1000);
    assert_eq!(before, lab.digest(Some(&cache)));
    assert_ne!(before, lab.digest(None));
    // The time differs, the size does not; then the other way round.
    lab.write("b", "pixelz", 1001);
    assert_ne!(before, lab.digest(Some(&cache)));
    lab.write("b", "pixels", 1002);
    assert_eq!(before, lab.digest(Some(&cache)));
    lab.write("b", "more pixels", 1002);
    assert_ne!(before, lab.digest(Some(&cache)));
}

#[test]
fn a_file_just_written_is_not_cached() {
    let lab = Lab::new();
    let path = lab.folder.path().join("data/train/b.png");
    fs::write(&path, "pixels").unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let before = lab.digest(Some(&lab.cache()));
    fs::write(&path, "pixelz").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_ne!(before, lab.digest(Some(&lab.cache())));
}

#[test]
fn a_broken_cache_and_one_that_cannot_be_written_cost_time_only() {
    let lab = Lab::new();
    let before = lab.digest(Some(&lab.cache()));
    let file = fs::read_dir(lab.cache()).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "{\"half").unwrap();
    assert_eq!(before, lab.digest(Some(&lab.cache())));
    assert!(fs::read_to_string(&file).unwrap().ends_with('}'), "it was made anew");
    fs::write(lab.folder.path().join("file"), "").unwrap();
    assert_eq!(before, lab.digest(Some(&lab.folder.path().join("file/cache"))));
}

fn manifest() -> Manifest {
    Manifest {
        version: "1".into(),
        commit: "abc".into(),
        recipe_digest: "0123456789abcdef".into(),
        seed: Some(3),
        device: "cpu".into(),
        libraries: [("gemm".to_owned(), "1".to_owned())].into(),
        threads: 4,
        cpu: Cpu { arithmetic: "avx512".into(), features: vec!["fma".into()], ..Cpu::default() },
        ..Manifest::default()
    }
}

fn run() -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir().unwrap();
    let (run, _lock) = RunDir::create(&folder.path().join("run"), &ClassTable::load("cityscapes").unwrap()).unwrap();
    run.begin(&smoke()).unwrap();
    (folder, run)
}

#[test]
fn what_changes_results_is_refused_and_the_rest_is_noted() {
    let (_folder, run) = run();
    let before = manifest();
    before.write(&run).unwrap();
    assert_eq!(Manifest::read(&run).unwrap(), before);

    let mut now = manifest();
    now.threads = 1;
    now.clone().resume(&run, 5, false).unwrap();
    assert_eq!(Manifest::read(&run).unwrap(), before, "threads do not matter");

    now.cpu.arithmetic = "avx2".into();
    now.libraries.insert("gemm".into(), "2".into());
    now.recipe_digest = "fedcba9876543210".into();
    now.seed = Some(4);
    now.commit = "def".into();
    now.dirty = Some(true);
    let error = now.clone().resume(&run, 5, false).unwrap_err().to_string();
    let expected = "seed was 3, is 4; recipe (config.toml) was 0123456789ab, is fedcba987654; arithmetic was avx512, is avx2; \
                    library gemm was 1, is 2; --allow-changes goes on all the same";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(Manifest::read(&run).unwrap(), before);

    now.clone().resume(&run, 5, true).unwrap();
    let noted = Manifest::read(&run).unwrap();
    let whats: Vec<&str> = noted.resumed[0].changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(whats, ["seed", "recipe (config.toml)", "arithmetic", "library gemm", "commit"]);
    assert_eq!((noted.resumed[0].step, noted.resumed[0].changes[4].is.as_str()), (5, "def with changes"));
    // It is compared with how it last went on.
    now.clone().resume(&run, 6, false).unwrap();
    assert_eq!(Manifest::read(&run).unwrap(), noted);
    now.commit = "fed".into();
    now.resume(&run, 7, false).unwrap();
    assert_eq!(Manifest::read(&run).unwrap().resumed.len(), 2, "a commit is noted without being refused");
}

#[test]
fn what_an_older_manifest_does_not_say_is_unknown() {
    let (_folder, run) = run();
    let old = r#"{"program": "img2seg", "version": "1", "commit": "", "seed": 3, "device": "cpu", "threads": 2,
        "data": {"root": "pairs", "train_images": 8, "digest": "00ff"}, "libraries": {"candle": "0.11.1"}, "new": []}"#;
    fs::write(run.file(FILE), old).unwrap();
    manifest().resume(&run, 5, false).unwrap();
    assert_eq!(data_root(&run), Some(PathBuf::from("pairs")));
    let error = Manifest { seed: Some(4), ..manifest() }.resume(&run, 5, false).unwrap_err().to_string();
    assert!(error.ends_with("manifest.json: seed was 3, is 4; --allow-changes goes on all the same"), "{error}");
    fs::write(run.file(FILE), "{").unwrap();
    assert!(Manifest::read(&run).unwrap_err().to_string().contains("manifest.json: "));
}

/// Reading one would wait for who writes to it.
#[cfg(unix)]
#[test]
fn a_named_pipe_is_refused() {
    let lab = Lab::new();
    let pipe = lab.folder.path().join("data/train/pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let table = Arc::new(ClassTable::load("cityscapes").unwrap());
    let dataset = Dataset::open(&lab.folder.path().join("data"), Split::Train, &lab.config, table).unwrap();
    let error = digest(&dataset, None, &|_, _| ()).unwrap_err().to_string();
    assert_eq!(error, format!("{}: not a regular file", pipe.display()));
}
