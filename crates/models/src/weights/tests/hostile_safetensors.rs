//! Safetensors that no honest program writes.

use super::*;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The header's entry of a tensor.
fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn refused(header: &str, data: &[u8]) -> String {
    read_weights(&file(header, data)).unwrap_err().to_string()
}

fn refused_entries(entries: &[String], data: &[u8]) -> String {
    refused(&format!("{{{}}}", entries.join(",")), data)
}

#[test]
fn honest_files_of_every_type_are_read_counters_too() {
    let entries = [
        r#""__metadata__":{"format":"pt"}"#.to_owned(),
        entry("b", "F32", "[1,2]", 8, 16),
        entry("steps", "I64", "[1]", 0, 8),
        entry("none", "F16", "[0,3]", 16, 16),
        entry("half", "BF16", "[]", 16, 18),
    ];
    let data = [&7_i64.to_le_bytes()[..], &1_f32.to_le_bytes(), &(-2_f32).to_le_bytes(), &[0x80, 0x3F]].concat();
    let read = read_weights(&file(&format!("{{{}}}", entries.join(",")), &data)).unwrap();
    assert_eq!(read.keys().collect::<Vec<_>>(), ["b", "half", "none", "steps"]);
    assert_eq!(read["steps"].to_vec1::<i64>().unwrap(), [7]);
    assert_eq!(read["b"].to_vec2::<f32>().unwrap(), [[1.0, -2.0]]);
    assert_eq!((read["half"].dtype(), read["none"].dims()), (DType::BF16, [0, 3].as_slice()));
}

#[test]
fn headers_that_do_not_fit_the_file_are_refused() {
    assert_eq!(read_weights(b"").unwrap_err().to_string(), "0 bytes, no safetensors file");
    assert_eq!(read_weights(&[0; 7]).unwrap_err().to_string(), "7 bytes, no safetensors file");
    let claims = |length: u64| read_weights(&[&length.to_le_bytes()[..], b"{}"].concat()).unwrap_err().to_string();
    assert_eq!(claims(3), "ends within its header");
    assert_eq!(claims(16_777_216), "ends within its header");
    assert_eq!(claims(16_777_217), "a header of 16777217 bytes, at most 16777216 are read");
    assert_eq!(claims(u64::MAX), format!("a header of {} bytes, at most 16777216 are read", u64::MAX));
    for header in [
        "",
        "[]",
        "{",
        "\u{0}",
        r#"{"a":1}"#,
        r#"{"a":{"dtype":"F32"}}"#,
        r#"{"a":{"dtype":"X","shape":[],"data_offsets":[0,0]}}"#,
    ] {
        assert!(refused(header, &[]).starts_with("header: "), "{header}");
    }
    // Nested deep enough to end a stack: metadata is passed over, and a tensor is no list.
    let deep = format!("{}1{}", "[".repeat(500_000), "]".repeat(500_000));
    assert!(read_weights(&file(&format!(r#"{{"__metadata__":{deep}}}"#), &[])).unwrap().is_empty());
    assert!(refused(&format!(r#"{{"a":{deep}}}"#), &[]).starts_with("header: a: "));
}

#[test]
fn offsets_have_to_tile_the_file() {
    let one = entry("a", "F32", "[1]", 0, 4);
    let cases = [
        (vec![one.clone()], 3, "a: bytes 0..4 of 3 that the file has for tensors"),
        (vec![one.clone()], 5, "5 bytes of tensors, but its header speaks of 4"),
        (
            vec![one.clone(), entry("b", "F32", "[1]", 0, 4)],
            4,
            "b: begins at byte 0 of the tensors, the one before it ends at 4",
        ),
        (
            vec![one.clone(), entry("b", "F32", "[1]", 2, 6)],
            8,
            "b: begins at byte 2 of the tensors, the one before it ends at 4",
        ),
        (
            vec![one.clone(), entry("b", "F32", "[1]", 8, 12)],
            12,
            "b: begins at byte 8 of the tensors, the one before it ends at 4",
        ),
        (vec![entry("a", "F32", "[1]", 4, 0)], 4, "a: begins at byte 4 of the tensors, the one before it ends at 0"),
        (vec![one.clone(), entry("a", "F32", "[1]", 4, 8)], 8, "a: is there twice"),
        (vec![entry("a", "F32", "[2]", 0, 4)], 4, "a: shape [2] needs 8 bytes, there are 4"),
        (vec![entry("a", "F8_E4M3", "[4]", 0, 4)], 4, "a: tensors of type F8_E4M3 are not read"),
        (vec![entry("a", "F4", "[8]", 0, 4)], 4, "a: tensors of type F4 are not read"),
    ];
    for (entries, bytes, text) in cases {
        assert_eq!(refused_entries(&entries, &vec![0; bytes]), text);
    }
    let backwards = refused_entries(&[one, entry("b", "F32", "[1]", 4, 0)], &[0; 4]);
    assert_eq!(backwards, "b: bytes 4..0 of 4 that the file has for tensors");
}

/// The sizes of these sum up to 2^64 bytes and a few: safetensors 0.8.0 adds without a check, and takes the file for whole.
#[test]
fn sizes_that_overflow_are_refused() {
    let quarter = 1_u64 << 62;
    let shape = |bytes: u64| format!("[{}]", bytes / 4);
    let mut entries: Vec<String> =
        (0..3).map(|i| entry(&format!("t{i}"), "F32", &shape(quarter), i * quarter, (i + 1) * quarter)).collect();
    entries.push(entry("t3", "F32", &shape(quarter - 4096), 3 * quarter, 4 * (quarter - 1024)));
    assert!(refused_entries(&entries, &[0; 64]).starts_with("t0: bytes 0..4611686018427387904 of 64"));

    for shape in [
        "[4294967296,4294967296,4294967296]",
        "[9223372036854775808,4,0]",
        "[0,9223372036854775808,4]",
        "[4611686018427387904]",
    ] {
        let text = refused_entries(&[entry("a", "F32", shape, 0, 0)], &[]);
        assert!(text.starts_with("a: shape [") && text.ends_with("is larger than any memory"), "{text}");
    }
    let many = format!("[{}1]", "1,".repeat(100));
    assert_eq!(refused_entries(&[entry("a", "F32", &many, 0, 4)], &[0; 4]), "a: 101 dimensions, at most 8 are read");
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("F32", &f32::NAN.to_le_bytes(), "not a number"),
        ("F32", &f32::NEG_INFINITY.to_le_bytes(), "infinite"),
        ("F16", &[0, 0x7C], "infinite"),
        ("BF16", &[0xC0, 0x7F], "not a number"),
        ("F64", &1e300_f64.to_le_bytes(), "infinite"), // in f32, which networks compute in
    ];
    for (dtype, value, what) in cases {
        let size = value.len() as u64;
        let entries = [entry("a", "F32", "[1]", 0, 4), entry("w", dtype, "[2]", 4, 4 + 2 * size)];
        let data = [&[0; 4][..], &vec![0; value.len()], value].concat();
        assert_eq!(refused_entries(&entries, &data), format!("w: element 1 of 2 is {what}"), "{dtype}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    std::fs::write(&path, file(&format!("{{{}}}", entry("w", "F32", "[1]", 0, 4)), &f32::NAN.to_le_bytes())).unwrap();
    let error = load_weights(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}: w: element 0 of 1 is not a number", path.display()));
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let whole = std::fs::read(fixture("discriminator.safetensors")).unwrap();
    assert_eq!(read_weights(&whole).unwrap().len(), 20);
    for end in (0..whole.len()).step_by(7) {
        assert!(read_weights(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["zero.safetensors", "zero.pth"] {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(load_weights(&path).unwrap_err().to_string(), format!("{}: not a regular file", path.display()));
    }
}
