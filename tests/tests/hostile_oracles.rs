//! Oracle files that no honest script writes: refused before memory is taken or an op is run.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use img2seg_tests::parity;

/// What is said of a file of these settings and of tensors of ones of these shapes.
fn refused(settings: &[(&str, &str)], tensors: &[(&str, &[usize])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oracle.safetensors");
    let settings: HashMap<_, _> = settings.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    let tensors = tensors.iter().map(|&(name, shape)| (name, Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()));
    safetensors::serialize_to_file(tensors.collect::<Vec<_>>(), Some(settings), &path).unwrap();
    let error = format!("{:#}", parity::compare(&path).unwrap_err());
    error.strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned()
}

#[test]
fn widths_that_the_weights_do_not_bear_out_are_refused() {
    let image: (&str, &[usize]) = ("x", &[1, 3, 16, 16]);
    for (kind, loss, widest) in
        [("unet", "mse", "init.b.conv2.weight"), ("cgan", "bce", "init.generator.upSampling.0.weight")]
    {
        for base in ["1000000000", "1152921504606846976", "0", "2"] {
            let settings = [("kind", kind), ("base", base), ("loss", loss)];
            let error = refused(&settings, &[image, ("y", image.1), (widest, &[16, 16, 3, 3])]);
            assert_eq!(error, format!("metadata base = {base}: tensor {widest} is [16, 16, 3, 3]"));
        }
        let error = refused(&[("kind", kind), ("base", "1"), ("loss", loss)], &[image, ("y", image.1)]);
        assert_eq!(error, format!("tensor {widest}: missing"));
        // No bytes, and yet a billion channels.
        let empty: &[usize] = &[1, 1_000_000_000, 0, 16];
        assert_eq!(refused(&[("kind", kind)], &[("x", empty), ("y", image.1)]), "tensor x: is empty");
    }
}

/// The fuzzer changes what these say: they have to get beyond the checks for that to reach the networks.
#[test]
fn the_seeds_of_the_fuzzer_are_compared_to_their_end() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/oracle");
    for entry in std::fs::read_dir(&seeds).unwrap() {
        let path = entry.unwrap().path();
        let comparison = parity::compare(&path).unwrap();
        assert!(!comparison.quantities.is_empty(), "{}", path.display());
    }
}

#[test]
fn layers_of_absurd_sizes_are_refused() {
    let tensors: [(&str, &[usize]); 2] = [("c.x", &[1, 1, 2, 2]), ("c.weight", &[1, 1, 1, 1])];
    for op in [
        r#""conv2d","stride":1,"padding":1000000000"#,
        r#""conv2d","stride":1,"padding":0,"dilation":[1,1000000000]"#,
        r#""conv_transpose2d","stride":[1000000000,1],"padding":0"#,
        r#""conv_transpose2d","stride":1,"padding":0,"output_padding":1000000000"#,
        r#""resize","height":1000000000,"width":1,"how":"nearest""#,
    ] {
        let cases = format!(r#"[{{"name":"c","op":{op}}}]"#);
        let error = refused(&[("kind", "layers"), ("cases", &cases)], &tensors);
        assert!(error.starts_with("case c: (") && error.ends_with("): more than 64"), "{error}");
    }
    for op in [
        r#""conv2d","stride":0,"padding":0"#,
        r#""max_pool2d","kernel":0"#,
        r#""conv2d","stride":1,"padding":0,"groups":0"#,
        r#""resize","height":0,"width":1,"how":"bilinear""#,
    ] {
        let cases = format!(r#"[{{"name":"c","op":{op}}}]"#);
        assert!(refused(&[("kind", "layers"), ("cases", &cases)], &tensors).starts_with("case c: "), "{op}");
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oracle.safetensors");
    let quarter = 1_u64 << 62;
    let tensors: Vec<String> = (0..4)
        .map(|i| {
            let (begin, end) = (i * quarter, if i == 3 { u64::MAX - 3 } else { (i + 1) * quarter });
            format!(r#""t{i}":{{"dtype":"F32","shape":[{}],"data_offsets":[{begin},{end}]}}"#, (end - begin) / 4)
        })
        .collect();
    let header = format!("{{{}}}", tensors.join(","));
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat()).unwrap();
    let error = format!("{:#}", parity::compare(&path).unwrap_err());
    assert!(error.contains(": t0: bytes 0..4611686018427387904 of 16"), "{error}");
}
