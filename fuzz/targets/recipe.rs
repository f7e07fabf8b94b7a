#![no_main]
//! A recipe, with what `--set` says behind its first NUL byte: refused by name, or read, written, and read back as itself.

use img2seg_training::RunConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0');
    let text = parts.next().unwrap_or_default();
    let settings: Vec<String> = parts.map(str::to_owned).collect();
    match RunConfig::from_toml(text, "fuzz", &settings) {
        Ok(config) => {
            let written = config.to_toml().expect("a recipe that was read can be written");
            let again = RunConfig::from_toml(&written, "again", &[]).expect("what was written reads back");
            assert_eq!(again, config);
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("fuzz: ") || error.starts_with("--set "), "{error}");
        }
    }
});
