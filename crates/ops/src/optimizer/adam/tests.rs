use candle_core::{DType, Device, Tensor, Var};

use super::composed;
use crate::verify::{assert_close, draw, refusal, values};
use crate::{AdamParameter, AdamStep, adam_step, adam_steps};

const SETTINGS: AdamStep =
    AdamStep { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1, gradient_factor: 0.5 };

fn variables(shape: &[usize], dtype: DType) -> [Var; 3] {
    let zeros = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let start = draw(shape, 1).to_dtype(dtype).unwrap();
    [start, zeros.clone(), zeros].map(|x| Var::from_tensor(&x).unwrap())
}

/// The formula of PyTorch's `AdamW`, one element at a time in f64.
fn reference(start: &[f64], gradients: &[Vec<f64>], s: &AdamStep) -> Vec<f64> {
    let (mut parameter, mut m, mut v) = (start.to_vec(), vec![0.; start.len()], vec![0.; start.len()]);
    for (step, gradient) in (1..).zip(gradients) {
        for i in 0..start.len() {
            let gradient = s.gradient_factor * gradient[i];
            parameter[i] *= 1. - s.learning_rate * s.weight_decay;
            m[i] = s.beta1 * m[i] + (1. - s.beta1) * gradient;
            v[i] = s.beta2 * v[i] + (1. - s.beta2) * gradient * gradient;
            let denominator = v[i].sqrt() / (1. - s.beta2.powi(step)).sqrt() + s.epsilon;
            parameter[i] -= s.learning_rate / (1. - s.beta1.powi(step)) * m[i] / denominator;
        }
    }
    parameter
}

#[test]
fn steps_are_those_of_adamw() {
    for shape in [vec![3, 5], vec![20_000]] {
        for dtype in [DType::F32, DType::F64] {
            let [parameter, m, v] = variables(&shape, dtype);
            let start = values(&parameter);
            let gradients: Vec<Tensor> = (2..7).map(|seed| draw(&shape[..], seed).to_dtype(dtype).unwrap()).collect();
            for (step, gradient) in (1..).zip(&gradients) {
                adam_step(&parameter, gradient, &m, &v, step, &SETTINGS).unwrap();
            }
            let gradients: Vec<Vec<f64>> = gradients.iter().map(values).collect();
            let expected =
                Tensor::from_vec(reference(&start, &gradients, &SETTINGS), &shape[..], &Device::Cpu).unwrap();
            assert_close("parameter", &parameter, &expected, 2e-7);
        }
    }
}

#[test]
fn many_parameters_step_as_each_alone() {
    let plain = AdamStep { weight_decay: 0., ..SETTINGS };
    let shapes: Vec<Vec<usize>> = (1..40).map(|i| if i % 8 == 0 { vec![i * 3000] } else { vec![i, 3] }).collect();
    let together: Vec<[Var; 3]> = shapes.iter().map(|shape| variables(shape, DType::F32)).collect();
    let alone: Vec<[Var; 3]> = shapes.iter().map(|shape| variables(shape, DType::F32)).collect();
    for step in 1..3 {
        let gradients: Vec<Tensor> = shapes.iter().map(|shape| draw(&shape[..], step)).collect();
        let parameters = together.iter().zip(&gradients).enumerate().map(|(at, ([p, m, v], gradient))| AdamParameter {
            parameter: p,
            gradient,
            first_moment: m,
            second_moment: v,
            decays: at % 2 == 0,
        });
        adam_steps(&parameters.collect::<Vec<_>>(), step, &SETTINGS).unwrap();
        for (at, ([p, m, v], gradient)) in alone.iter().zip(&gradients).enumerate() {
            adam_step(p, gradient, m, v, step, if at % 2 == 0 { &SETTINGS } else { &plain }).unwrap();
        }
    }
    for (together, alone) in together.iter().flatten().zip(alone.iter().flatten()) {
        assert_eq!(values(together), values(alone));
    }
    let [p, m, v] = &together[0];
    let twice = AdamParameter { parameter: p, gradient: p, first_moment: m, second_moment: v, decays: true };
    assert!(adam_steps(&[twice; 2], 1, &SETTINGS).is_err());
}

#[test]
fn kernel_and_composed_path_agree() {
    let [a, b] = [(); 2].map(|()| variables(&[7, 11], DType::F32));
    for step in 1..4 {
        // Any memory order of the gradient.
        let gradient = draw((11, 7), step).t().unwrap();
        adam_step(&a[0], &gradient, &a[1], &a[2], step, &SETTINGS).unwrap();
        composed::adam_step(&b[0], &gradient, &b[1], &b[2], &SETTINGS.factors(step)).unwrap();
    }
    for (a, b) in a.iter().zip(&b) {
        assert_close("variable", a, b, 1e-6);
    }
}

#[test]
fn the_variable_is_changed_in_place() {
    let [parameter, m, v] = variables(&[4], DType::F32);
    let view = parameter.as_detached_tensor();
    adam_step(&parameter, &draw(4, 2), &m, &v, 1, &SETTINGS).unwrap();
    assert_eq!(values(&view), values(&parameter));
}

#[test]
fn nan_stays_in_its_element() {
    let [parameter, m, v] = variables(&[3], DType::F32);
    let gradient = Tensor::new(&[1f32, f32::NAN, 1.], &Device::Cpu).unwrap();
    adam_step(&parameter, &gradient, &m, &v, 1, &SETTINGS).unwrap();
    assert_eq!(values(&parameter).into_iter().map(f64::is_nan).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let [parameter, m, v] = variables(&[3], DType::F32);
    let gradient = draw(3, 1);
    let refused = |gradient: &Tensor, m: &Var, step| refusal(adam_step(&parameter, gradient, m, &v, step, &SETTINGS));
    assert_eq!(refused(&draw(4, 1), &m, 1), "adam_step: gradient has shape [4], not [3]");
    assert_eq!(refused(&gradient, &m, 0), "adam_step: steps count from 1");
    assert_eq!(
        refused(&gradient, &v, 1),
        "adam_step: parameter, first_moment and second_moment are not three variables"
    );
}
