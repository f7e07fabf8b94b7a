//! PyTorch files that no honest program writes.

use std::io::{Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

const STOP: &[u8] = b".";

/// An archive of a pickle and of storages by their names.
fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("archive/data.pkl", pickle);
    for (name, bytes) in storages {
        add(&format!("archive/{name}"), bytes);
    }
    zip.finish().unwrap().into_inner()
}

fn load(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    pth::state_dict(bytes)
}

fn refused(pickle: &[u8], storages: &[(&str, &[u8])]) -> String {
    load(&archive(pickle, storages)).unwrap_err().to_string()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A tuple of integers, each in the eight bytes of a LONG1.
fn sizes(values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| [&b"\x8A\x08"[..], &value.to_le_bytes()].concat()).collect();
    [b"(", &values[..], b"t"].concat()
}

/// The call that makes a tensor of a view of storage `key`.
fn tensor(class: &str, key: &str, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let offset = [&b"\x8A\x08"[..], &offset.to_le_bytes()].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage")[..],
        format!("ctorch\n{class}\n").as_bytes(),
        &text(key),
        &text("cpu"),
        b"K\x01tQ",
        &offset,
        &sizes(shape),
        &sizes(strides),
        b"\x89}tR",
    ]
    .concat()
}

/// A dict, with STOP behind it.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02}(", &entries[..], b"u."].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn views_of_storages_are_read_in_every_stride() {
    let data = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let pickle = dict(&[
        ("a", tensor("FloatStorage", "0", 1, &[2, 3], &[1, 2])),
        ("b", tensor("FloatStorage", "0", 6, &[], &[])),
    ]);
    let read: BTreeMap<_, _> = load(&archive(&pickle, &[("data/0", &data)])).unwrap().into_iter().collect();
    assert_eq!(read["a"].to_vec2::<f32>().unwrap(), [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]);
    assert_eq!(read["b"].reshape(1).unwrap().to_vec1::<f32>().unwrap(), [6.0]);
}

/// What pickles are feared for. `touch` would leave a file: Python, loading these bytes without care, does run it.
#[test]
fn nothing_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("executed");
    let command = text(&format!("touch {}", proof.display()));
    for (module, function) in
        [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("subprocess", "Popen")]
    {
        let call = [format!("c{module}\n{function}\n").as_bytes(), &command, b"\x85R"].concat();
        let alone = [b"\x80\x02", &call[..], STOP].concat();
        let weight = tensor("FloatStorage", "0", 0, &[1], &[1]);
        let beside = dict(&[("w", weight), ("a", call)]);
        for pickle in [alone, beside] {
            let path = folder.path().join("evil.pth");
            std::fs::write(&path, archive(&pickle, &[("data/0", &[0; 4])])).unwrap();
            let expected = format!(
                "{}: names \"{module}.{function}\", which is no part of weights; nothing was executed",
                path.display()
            );
            assert_eq!(load_weights(&path).unwrap_err().to_string(), expected);
            assert!(!proof.exists());
        }
    }
    // Known names stand for nothing but themselves.
    let odd = [b"\x80\x02ccollections\nOrderedDict\n", &command[..], b"\x85Rb."].concat();
    assert!(load(&archive(&odd, &[])).is_err());
    assert!(refused(b"ctorch\nevilStorage()\n.", &[]).contains("names \"torch.evilStorage()\""));
}

#[test]
fn claims_of_tensors_are_held_against_their_storage() {
    let storage: (&str, &[u8]) = ("data/0", &[0; 16]);
    let one = |call: Vec<u8>| refused(&dict(&[("w", call)]), &[storage]);
    let view = |offset, shape: &[i64], strides: &[i64]| one(tensor("FloatStorage", "0", offset, shape, strides));
    let beyond = "w: reaches beyond its storage of 16 bytes";
    assert_eq!(view(0, &[5], &[1]), beyond);
    assert_eq!(view(1, &[4], &[1]), beyond);
    assert_eq!(view(4, &[], &[]), beyond);
    assert_eq!(view(0, &[2, 2], &[3, 1]), beyond);
    assert_eq!(view(i64::MAX, &[1], &[1]), beyond);
    assert_eq!(view(0, &[2], &[i64::MAX]), beyond);
    assert_eq!(view(0, &[3], &[i64::MAX]), beyond);
    assert_eq!(view(-1, &[1], &[1]), "w: offset, shape or strides are no sizes");
    assert_eq!(view(0, &[-1], &[1]), "w: offset, shape or strides are no sizes");
    assert_eq!(view(0, &[1], &[1, 1]), "w: 1 sides and 2 strides");
    assert_eq!(view(0, &[1; 9], &[1; 9]), "w: 9 dimensions, at most 8 are read");
    let absurd = view(0, &[1 << 40, 1 << 40], &[0, 0]);
    assert_eq!(absurd, "w: shape [1099511627776, 1099511627776] is larger than any memory");
    // Strides of 0 make a large tensor of one number.
    assert_eq!(view(0, &[1 << 30], &[0]), "its tensors claim more bytes than the file has");
    assert_eq!(one(tensor("CharStorage", "0", 0, &[1], &[1])), "w: storage of class \"CharStorage\" is not read");
    assert_eq!(one(tensor("FloatStorage", "1", 0, &[1], &[1])), "w: archive/data/1: is not in the archive");
    assert!(one(tensor("FloatStorage", "../../../etc/passwd", 0, &[1], &[1])).ends_with("is not in the archive"));
    let without_storage =
        [&b"ctorch._utils\n_rebuild_tensor_v2\n(N"[..], b"K\x00", &sizes(&[1]), &sizes(&[1]), b"tR"].concat();
    assert_eq!(one(without_storage), "w: has no storage");
    assert_eq!(one(b"ctorch._utils\n_rebuild_tensor_v2\n)R".to_vec()), "w: too few arguments for a tensor");
}

#[test]
fn tensors_cannot_multiply_the_bytes_of_a_file() {
    let weight = tensor("FloatStorage", "0", 0, &[64, 64], &[64, 1]);
    let names: Vec<String> = (0..20).map(|i| format!("w{i}")).collect();
    let entries: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), weight.clone())).collect();
    assert_eq!(refused(&dict(&entries), &[("data/0", &[0; 16384])]), "its tensors claim more bytes than the file has");
    let twice =
        dict(&[("w", tensor("FloatStorage", "0", 0, &[1], &[1])), ("w", tensor("FloatStorage", "0", 0, &[1], &[1]))]);
    assert_eq!(refused(&twice, &[("data/0", &[0; 4])]), "w: is there twice");
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    let pickle = dict(&[("w", tensor("FloatStorage", "0", 0, &[2], &[1]))]);
    assert_eq!(refused(&pickle, &[("data/0", &floats(&[1.0, f32::NAN]))]), "w: element 1 of 2 is not a number");
}

#[test]
fn integers_are_no_weights_but_counters_are_passed_over() {
    let counter = ("bn.num_batches_tracked", tensor("LongStorage", "9", 0, &[], &[]));
    let pickle = dict(&[counter.clone(), ("w", tensor("FloatStorage", "0", 0, &[1], &[1]))]);
    assert_eq!(load(&archive(&pickle, &[("data/0", &[0; 4])])).unwrap().len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    let pickle = dict(&[("w", tensor("LongStorage", "0", 0, &[1], &[1]))]);
    std::fs::write(&path, archive(&pickle, &[("data/0", &[0; 8])])).unwrap();
    assert_eq!(
        load_weights(&path).unwrap_err().to_string(),
        format!("{}: w: i64 values are no weights", path.display())
    );
}

/// Each doubles the value before it: with copies, this is 2^200 lists.
#[test]
fn repetition_and_nesting_take_no_more_memory_than_their_bytes() {
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for _ in 0..200 {
        laughs.extend(b"h\x00h\x00\x86q\x00");
    }
    assert!(refused(&[&laughs, STOP].concat(), &[]).starts_with("no state dict found"));
    let deep = [b"\x80\x02N", &vec![0x85; 1_000_000][..], STOP].concat();
    assert!(refused(&deep, &[]).starts_with("no state dict found"));
    let itself = b"\x80\x02]q\x00h\x00a.";
    assert!(refused(itself, &[]).starts_with("no state dict found"));
    let in_itself = [b"\x80\x02}q\x00", &text("state_dict")[..], b"h\x00s."].concat();
    assert!(refused(&in_itself, &[]).starts_with("no state dict found"));
}

#[test]
fn broken_pickles_are_refused_where_they_break() {
    let cases: [(&[u8], &str); 18] = [
        (b"", "0 bytes before its end: ends early"),
        (b".", "0 bytes before its end: takes from an empty stack"),
        (b"X\xFF\xFF\xFF\xFFabc.", "4 bytes before its end: ends early"),
        (b"X\x01\x00\x00\x00\xFF.", "2 bytes before its end: holds a text that is not UTF-8"),
        (b"\x8A\xFFa.", "2 bytes before its end: ends early"),
        (b"ctorch\nSize", "4 bytes before its end: ends early"),
        (b"t.", "1 bytes before its end: closes what it never opened"),
        (b"h\x07.", "1 bytes before its end: recalls what it never said"),
        (b"q\x07.", "1 bytes before its end: takes from an empty stack"),
        (b"NN(R.", "1 bytes before its end: takes from an empty stack"),
        (b"N(R.", "1 bytes before its end: takes from an empty stack"),
        (b"N\x86.", "1 bytes before its end: takes from an empty stack"),
        (b"NNa.", "1 bytes before its end: appends to what is no list"),
        (b"NNNs.", "1 bytes before its end: sets an item of what is no dict"),
        (b"}(Nu.", "1 bytes before its end: sets an item that has no value"),
        (b"Nb.", "1 bytes before its end: takes from an empty stack"),
        (b"i", "0 bytes before its end: instruction 0x69 is not read"),
        (b"\x80", "0 bytes before its end: ends early"),
    ];
    for (pickle, text) in cases {
        assert_eq!(refused(pickle, &[]), format!("pickle, {text}"), "{pickle:?}");
    }
    // Integers of up to 255 bytes: candle's reader shifts them out of their 64 bits.
    let long = [b"\x8A\xFF", &[1; 255][..], STOP].concat();
    assert!(refused(&long, &[]).starts_with("no state dict found"));
}

#[test]
fn archives_are_neither_unpacked_nor_decompressed() {
    let pickle = dict(&[("w", tensor("FloatStorage", "0", 0, &[1], &[1]))]);
    let whole = archive(&pickle, &[("data/0", &[0; 4])]);
    assert!(load(&whole).is_ok());
    for end in 0..whole.len() {
        assert!(load(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
    }
    // Method 8, as every compressed file says in its own header (at 8) and in the directory (at 10).
    let mut deflated = whole.clone();
    for (signature, at) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        let entry = deflated.windows(4).position(|bytes| bytes == signature).unwrap();
        deflated[entry + at] = 8;
    }
    let error = load(&deflated).unwrap_err().to_string();
    assert_eq!(error, "archive/data.pkl: compressed; PyTorch stores weights as they are");
    // A stored file that claims 3 GB: in the directory, the sizes stand at 20 and 24.
    let mut bomb = whole.clone();
    let entry = bomb.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    for at in [20, 24] {
        bomb[entry + at..entry + at + 4].copy_from_slice(&3_000_000_000_u32.to_le_bytes());
    }
    assert_eq!(load(&bomb).unwrap_err().to_string(), "archive/data.pkl: 3000000000 bytes, at most 4194304 are read");
    let mut bomb = whole;
    let entry = bomb.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    for at in [20, 24] {
        bomb[entry + at..entry + at + 4].copy_from_slice(&3_000_000_000_u32.to_le_bytes());
    }
    let error = load(&bomb).unwrap_err().to_string();
    assert!(error.starts_with("w: archive/data/0: 3000000000 bytes, at most "), "{error}");
}

#[test]
fn archives_have_one_pickle_of_little_endian_numbers() {
    let pickle = dict(&[("w", tensor("FloatStorage", "0", 0, &[1], &[1]))]);
    assert_eq!(refused(&pickle, &[("data/0", &[0; 4]), ("byteorder", b"big")]), "big endian numbers are not read");
    assert_eq!(refused(&pickle, &[("b/data.pkl", b".")]), "holds more than one data.pkl");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("../../evil.pkl", SimpleFileOptions::default().compression_method(CompressionMethod::Stored))
        .unwrap();
    assert_eq!(load(&zip.finish().unwrap().into_inner()).unwrap_err().to_string(), "holds no data.pkl");
}
