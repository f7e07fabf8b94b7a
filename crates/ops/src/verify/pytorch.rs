//! Layers of other shapes than those of networks, and steps of optimisers, against PyTorch's, in f32 and in f64.

use candle_core::{DType, Tensor, Var};

use super::{Case, EXACT, FAST, assert_close};
use crate::*;

fn cases(op: &str) -> Vec<Case> {
    Case::of("more-layers.safetensors", op)
}

fn pair(case: &Case, key: &str) -> (usize, usize) {
    serde_json::from_value(case.spec[key].clone()).unwrap()
}

#[test]
fn convolutions_agree() {
    for (exactness, bounds) in [(Exactness::Fast, FAST), (Exactness::Direct, EXACT)] {
        for case in cases("conv2d") {
            let [stride, padding, dilation] = ["stride", "padding", "dilation"].map(|key| pair(&case, key));
            let spec = Conv2d { stride, padding, dilation, groups: case.size("groups"), exactness };
            let op = |x: &[Tensor]| conv2d(&x[0], &x[1], Some(&x[2]), spec);
            case.check_within(bounds, &["x", "weight", "bias"], &op);
        }
        for case in cases("conv_transpose2d") {
            let [stride, padding, output_padding, dilation] =
                ["stride", "padding", "output_padding", "dilation"].map(|key| pair(&case, key));
            let groups = case.size("groups");
            let spec = ConvTranspose2d { stride, padding, output_padding, dilation, groups, exactness };
            let op = |x: &[Tensor]| conv_transpose2d(&x[0], &x[1], Some(&x[2]), spec);
            case.check_within(bounds, &["x", "weight", "bias"], &op);
        }
    }
}

#[test]
fn norms_pools_sizes_and_activations_agree() {
    let (of_norm, none) = (["x", "weight", "bias"], Activation::None);
    for case in cases("instance_norm") {
        case.check(&of_norm, &|x| instance_norm(&x[0], x.get(1), x.get(2), case.number("eps"), none));
    }
    for case in cases("group_norm") {
        let groups = case.size("groups");
        case.check(&of_norm, &|x| group_norm(&x[0], groups, &x[1], &x[2], case.number("eps"), none));
    }
    for case in cases("max_pool2d") {
        case.check(&["x"], &|x| max_pool2d(&x[0], case.size("kernel")));
    }
    for case in cases("resize") {
        let how = if case.spec["how"] == "nearest" { Resize::Nearest } else { Resize::Bilinear };
        case.check(&["x"], &|x| resize(&x[0], case.size("height"), case.size("width"), how));
    }
    for case in cases("leaky_relu") {
        case.check(&["x"], &|x| leaky_relu(&x[0], case.number("slope")));
    }
    for (op, of) in [("relu", relu as fn(&Tensor) -> _), ("tanh", tanh), ("sigmoid", sigmoid)] {
        for case in cases(op) {
            case.check(&["x"], &|x| of(&x[0]));
        }
    }
}

#[test]
fn losses_agree() {
    for case in Case::of_losses("cross_entropy") {
        let labels = case.labels();
        case.check(&["logits"], &|x| {
            let weights = case.tensor("class_weights").map(|weights| weights.to_dtype(x[0].dtype()));
            cross_entropy(&x[0], &labels, weights.transpose()?.as_ref())
        });
    }
    for case in Case::of_losses("bce_with_logits") {
        case.check(&["logits"], &|x| bce_with_logits(&x[0], case.number("target")));
    }
    for (op, of) in [("mse", mse as fn(&Tensor, &Tensor) -> _), ("l1", l1)] {
        for case in Case::of_losses(op) {
            case.check(&["prediction", "target"], &|x| of(&x[0], &x[1]));
        }
    }
}

#[test]
fn steps_agree() {
    let all = ["adam", "sgd"].map(|op| Case::of("steps.safetensors", op)).into_iter().flatten();
    for (case, dtype) in all.flat_map(|case| [DType::F32, DType::F64].map(|dtype| (case.clone(), dtype))) {
        let [before, gradients, after] =
            ["before", "gradients", "after"].map(|name| case.tensor(name).unwrap().to_dtype(dtype).unwrap());
        let [parameter, first, second] = [before.clone(), before.zeros_like().unwrap(), before.zeros_like().unwrap()]
            .map(|x| Var::from_tensor(&x).unwrap());
        let (learning_rate, weight_decay) = (case.number("lr"), case.number("weight_decay"));
        for (step, at) in (1..).zip(0..gradients.dim(0).unwrap()) {
            let gradient = gradients.get(at).unwrap();
            if case.spec["op"] == "sgd" {
                let nesterov = case.spec["nesterov"].as_bool().unwrap();
                let momentum = case.number("momentum");
                let settings = SgdStep { learning_rate, momentum, nesterov, weight_decay, gradient_factor: 1. };
                let of = SgdParameter { parameter: &parameter, gradient: &gradient, velocity: &first, decays: true };
                sgd_steps(&[of], &settings).unwrap();
            } else {
                let (beta1, beta2): (f64, f64) = serde_json::from_value(case.spec["betas"].clone()).unwrap();
                let epsilon = case.number("eps");
                let settings = AdamStep { learning_rate, beta1, beta2, epsilon, weight_decay, gradient_factor: 1. };
                adam_step(&parameter, &gradient, &first, &second, step, &settings).unwrap();
            }
        }
        assert_close(&format!("{} {dtype:?}", case.name), &parameter, &after, 3e-7);
    }
}
