#![no_main]
//! A class table: refused with a line, or read, written, and read back as itself.

use img2seg_data::ClassTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match ClassTable::from_toml(text, "fuzz") {
        Ok(table) => {
            let written = table.to_toml();
            let again = ClassTable::from_toml(&written, "again").expect("what was written reads back");
            assert_eq!((again.to_toml(), again.classes()), (written, table.classes()));
            assert!((1..=255).contains(&table.len()));
            for (label, class) in table.classes().iter().enumerate() {
                assert_eq!(usize::from(table.decode_evaluated(class.color)), label);
            }
        }
        Err(error) => assert!(error.to_string().starts_with("fuzz:"), "{error}"),
    }
});
