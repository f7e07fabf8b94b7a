#![no_main]
//! A file that says what PyTorch computed: compared, or refused by its name.

use std::sync::LazyLock;

use img2seg_tests::parity;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(img2seg_fuzz::folder);

fuzz_target!(|data: &[u8]| {
    let path = FOLDER.path().join("oracle.safetensors");
    std::fs::write(&path, data).expect("a written file");
    let _ = parity::compare(&path);
});
