use super::draws::{fnv1a, keep, normal, standard_normal, uniform};
use super::*;

const UNIFORM: Init = Init::Uniform { bound: 1.0 };

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn parameters() -> Parameters {
    let parameters = Parameters::new(1, &Device::Cpu);
    parameters.scope("conv").weight("weight", (2, 3), UNIFORM).unwrap();
    parameters.scope("bn").weight("weight", 2, Init::Constant(1.0)).unwrap();
    parameters.scope("bn").buffer("running_mean", 2, Init::Constant(0.0)).unwrap();
    parameters
}

/// A change here changes every seeded run: it needs new goldens everywhere. The values come from an implementation of `ChaCha8` and of
/// `draws.rs` in Python.
#[test]
fn draws_are_frozen() {
    let parameters = Parameters::new(42, &Device::Cpu);
    let weight = parameters.scope("en1.conv").weight("conv1.weight", 4, UNIFORM).unwrap();
    assert_eq!(values(&weight), [0.102_021_34, 0.009_750_247, -0.455_345_4, 0.350_911_02]);
    let weight = normal(42, "model.0.weight", 0.0, 0.02, 4);
    assert_eq!(weight, [-0.034_087_043, 0.017_282_939, 0.006_610_246, -0.016_902_91]);
    let mask = keep(42, "b.dropout.", 7, 0.5, 16);
    assert_eq!(mask, [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1].map(|bit: u8| f32::from(bit)));
    assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325); // published test vectors
    assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn a_draw_depends_on_seed_and_name_and_on_nothing_else() {
    let drawn = |seed, name: &str, before: &[&str]| {
        let parameters = Parameters::new(seed, &Device::Cpu);
        for name in before {
            parameters.weight(name, 5, UNIFORM).unwrap();
        }
        values(&parameters.weight(name, 100, UNIFORM).unwrap())
    };
    assert_eq!(drawn(1, "a", &[]), drawn(1, "a", &["b", "c"]));
    assert_ne!(drawn(1, "a", &[]), drawn(2, "a", &[]));
    assert_ne!(drawn(1, "a", &[]), drawn(1, "b", &[]));
}

#[test]
fn draws_fill_their_range_evenly() {
    let drawn = uniform(3, "weight", 0.5, 100_000);
    assert!(drawn.iter().all(|v| (-0.5..0.5).contains(v)));
    let mean = drawn.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e5;
    let variance = drawn.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 1e5;
    assert!(mean.abs() < 0.004, "mean {mean}"); // four standard errors
    assert!((variance - 1.0 / 12.0).abs() < 0.001, "variance {variance}");
}

/// Quantiles as `torch.special.ndtri` gives them in f64.
#[test]
fn normal_draws_are_quantiles() {
    for (word, expected) in [
        (0, -6.337_957_8),
        (1000, -5.039_851_1),
        (1 << 20, -3.487_104),
        (1 << 28, -1.534_120_5),
        (1 << 30, -0.674_489_75),
        (1 << 31, 2.918_e-10),
        (3 << 30, 0.674_489_75),
        (u32::MAX, 6.337_957_8),
    ] {
        let quantile = standard_normal(word);
        assert!((quantile - expected).abs() < 1e-6, "{word}: {quantile}");
    }
    let drawn = normal(3, "weight", 1.0, 0.02, 100_000);
    let mean = drawn.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e5;
    let deviation = (drawn.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 1e5).sqrt();
    assert!((mean - 1.0).abs() < 3e-4 && (deviation - 0.02).abs() < 2e-4, "{mean} {deviation}"); // four standard errors
    assert_ne!(normal(3, "weight", 0.0, 1.0, 1), normal(4, "weight", 0.0, 1.0, 1));
}

/// An element is that of its place, whichever piece of work draws it.
#[test]
fn a_longer_draw_begins_as_a_shorter_one() {
    let long = uniform(3, "weight", 0.5, 50_000);
    assert_eq!(uniform(3, "weight", 0.5, 20_000), long[..20_000]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| uniform(3, "weight", 0.5, 50_000)), long);
}

#[test]
fn names_are_full_ordered_and_scoped() {
    let parameters = parameters();
    let names = |vars: Vec<(String, Var)>| vars.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(parameters.trainable()), ["bn.weight", "conv.weight"]);
    assert_eq!(names(parameters.buffers()), ["bn.running_mean"]);
    assert_eq!(names(parameters.scope("bn").trainable()), ["bn.weight"]);
    assert_eq!((parameters.count(), parameters.scope("conv").count()), (8, 6));
    assert_eq!(parameters.tensors().into_keys().collect::<Vec<_>>(), ["bn.running_mean", "bn.weight", "conv.weight"]);
}

#[test]
fn a_name_asked_for_twice_is_one_tensor_of_one_shape_and_kind() {
    let parameters = parameters();
    let again = parameters.weight("conv.weight", (2, 3), Init::Constant(9.0)).unwrap();
    assert_eq!(again.id(), parameters.trainable()[1].1.id());
    let error = parameters.weight("conv.weight", (3, 2), UNIFORM).unwrap_err();
    assert_eq!(error.to_string(), "conv.weight: has shape [2, 3], not [3, 2]");
    assert!(parameters.buffer("conv.weight", (2, 3), UNIFORM).is_err());
    assert!(parameters.weight("bn.running_mean", 2, UNIFORM).is_err());
}

#[test]
fn a_detached_view_sees_updates_shares_buffers_and_receives_no_gradient() {
    let parameters = parameters();
    let (_, var) = parameters.trainable().pop().unwrap();
    let view = parameters.detached().scope("conv").weight("weight", (2, 3), UNIFORM).unwrap();
    let buffer = parameters.detached().buffer("bn.running_mean", 2, UNIFORM).unwrap();

    var.set(&Tensor::full(4f32, (2, 3), &Device::Cpu).unwrap()).unwrap();
    assert_eq!(values(&view), [4.0; 6]);
    buffer.set(&Tensor::full(5f32, 2, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(values(&parameters.buffers()[0].1), [5.0; 2]);

    let x = Var::from_vec(vec![1f32; 6], (2, 3), &Device::Cpu).unwrap();
    let gradients = (x.as_tensor() * view).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(values(gradients.get(&x).unwrap()), [4.0; 6]);
    assert!(gradients.get(&var).is_none());
}

#[test]
fn scopes_and_detached_views_are_as_exact() {
    let parameters = parameters();
    assert_eq!(parameters.exactness(), Exactness::Fast);
    let direct = parameters.with_exactness(Exactness::Direct);
    assert_eq!(direct.scope("conv").exactness(), Exactness::Direct);
    assert_eq!(direct.detached().exactness(), Exactness::Direct);
    parameters.set_step(3);
    assert_eq!(direct.step(), 3);
    let again = direct.weight("conv.weight", (2, 3), UNIFORM).unwrap();
    assert_eq!(again.id(), parameters.trainable()[1].1.id());
}

#[test]
fn loading_copies_every_tensor() {
    let (ours, theirs) = (parameters(), parameters());
    for (_, var) in theirs.trainable().into_iter().chain(theirs.buffers()) {
        var.set(&(var.as_detached_tensor() + 1.0).unwrap()).unwrap();
    }
    let mut tensors = theirs.tensors();
    let wide = tensors["conv.weight"].to_dtype(DType::F64).unwrap();
    tensors.insert("conv.weight".into(), wide);
    ours.load(&tensors).unwrap();
    ours.load(&ours.tensors()).unwrap(); // from its own storage
    for (name, tensor) in ours.tensors() {
        assert_eq!(values(&tensor), values(&theirs.tensors()[&name]), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_listed_and_nothing_changes() {
    let parameters = parameters();
    let before = values(&parameters.tensors()["conv.weight"]);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = BTreeMap::from([
        ("conv.weight".to_owned(), zeros(&[2, 3])),
        ("bn.weight".to_owned(), zeros(&[3])),
        ("bn.bias".to_owned(), zeros(&[2])),
    ]);
    let error = parameters.load(&tensors).unwrap_err().to_string();
    let expected = "weights do not fit: missing: bn.running_mean; unknown: bn.bias; \
                    of the wrong shape: bn.weight [3] instead of [2]";
    assert_eq!(error, expected);
    assert_eq!(values(&parameters.tensors()["conv.weight"]), before);

    let many = (0..20).map(|i| (format!("x{i:02}"), zeros(&[1]))).collect();
    let error = parameters.scope("conv").load(&many).unwrap_err().to_string();
    assert!(error.ends_with("unknown: x00, x01, x02, x03, x04, x05, x06, x07 and 12 more"), "{error}");
}
