#![no_main]
//! Weights of strangers in both formats, pickles within archives whose checksums are right, and the three files of a checkpoint. The
//! first byte says which.

use std::fs;
use std::io::{Cursor, Write as _};
use std::sync::{LazyLock, Mutex};

use candle_core::Device;
use img2seg_data::ClassTable;
use img2seg_models::load_weights;
use img2seg_training::checkpoint::{self, Progress, State, Which};
use img2seg_training::{Learner, RunConfig, RunDir, learner};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

struct Lab {
    folder: TempDir,
    run: RunDir,
    learner: Mutex<Box<dyn Learner + Send>>,
    weights: Vec<u8>,
    optimizer: Vec<u8>,
}

static LAB: LazyLock<Lab> = LazyLock::new(|| {
    let folder = img2seg_fuzz::folder();
    let settings = ["task.segmentation.network.pixelwise.base_channels=1".to_owned()];
    let config = RunConfig::from_toml(img2seg_fuzz::PIXELWISE, "pixelwise", &settings).expect("a recipe");
    let classes =
        ClassTable::from_toml("name = 'one'\n[[class]]\nname = 'a'\ncolor = [1, 2, 3]\n", "one").expect("a table");
    let (run, _) = RunDir::create(&folder.path().join("run"), &classes).expect("a run");
    run.begin(&config).expect("a recipe");
    let learner = learner::build(&config, &classes, &Device::Cpu).expect("a network");
    let state = State::of(learner.as_ref()).expect("a state");
    checkpoint::save(&run, Which::Last, 1, &state, &Progress::default()).expect("a checkpoint");
    let read = |name: &str| fs::read(run.file("checkpoints/last").join(name)).expect("a file");
    let (weights, optimizer) = (read("weights.safetensors"), read("optimizer.safetensors"));
    Lab { folder, run, learner: Mutex::new(learner), weights, optimizer }
});

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The pickle as PyTorch would file it, beside one storage of 16 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("archive/data.pkl", pickle), ("archive/data/0", &[0; 16])] {
        zip.start_file(name, options).expect("a new file");
        zip.write_all(bytes).expect("written");
    }
    zip.finish().expect("an archive").into_inner()
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let lab = &*LAB;
    if kind % 6 < 3 {
        let path = lab.folder.path().join(["weights.safetensors", "weights.pth", "pickle.pth"][usize::from(kind % 6)]);
        let archived = (kind % 6 == 2).then(|| archive(bytes));
        fs::write(&path, archived.as_deref().unwrap_or(bytes)).expect("a written file");
        match load_weights(&path) {
            Ok(weights) => {
                for tensor in weights.values() {
                    let values = tensor.flatten_all().and_then(|all| all.to_vec1::<f32>()).expect("f32");
                    assert!(values.iter().all(|value| value.is_finite()));
                }
            }
            Err(error) => assert!(error.to_string().starts_with(&path.display().to_string()), "{error}"),
        }
        return;
    }
    let write = |name: &str, bytes: &[u8]| {
        fs::write(lab.run.file("checkpoints/last").join(name), bytes).expect("a written file");
    };
    let (weights, optimizer) = match kind % 6 {
        3 => (bytes, &lab.optimizer[..]),
        4 => (&lab.weights[..], bytes),
        _ => (&lab.weights[..], &lab.optimizer[..]),
    };
    let progress = format!(
        r#"{{"epochs":1,"batches":0,"steps":2,"best":null,"sha256":{{"weights.safetensors":"{}","optimizer.safetensors":"{}","progress.json":"{}"}}}}"#,
        digest(weights),
        digest(optimizer),
        digest(b"1 0 2 ") // epochs, batches and steps, without a best score
    );
    write("weights.safetensors", weights);
    write("optimizer.safetensors", optimizer);
    write("progress.json", if kind % 6 == 5 { bytes } else { progress.as_bytes() });
    let mut learner = lab.learner.lock().expect("no panic before");
    let _ = checkpoint::load(&lab.run, Which::Last, learner.as_mut());
    let _ = checkpoint::resume(&lab.run, learner.as_mut());
});
