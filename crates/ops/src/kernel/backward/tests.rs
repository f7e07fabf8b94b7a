use std::sync::{Arc, Mutex, Weak};

use candle_core::{DType, Device, Tensor, Var};

use super::super::node::{Source, node};
use crate::verify::{assert_close, draw, values};
use crate::{
    Activation, Conv2d, ConvTranspose2d, add, backward, batch_norm_train, cat, conv_transpose2d, conv2d, leaky_relu,
    max_pool2d, mse, relu, sigmoid, tanh, weighted_sum,
};

fn variable(seed: u64) -> Var {
    Var::from_tensor(&draw((2, 3, 5, 7), seed)).unwrap()
}

#[test]
fn an_input_of_many_uses_gets_the_sum_in_a_fixed_order() {
    let x = variable(1);
    let loss = || {
        let shared = tanh(&x).unwrap();
        let uses = [relu(&shared).unwrap(), leaky_relu(&shared, 0.2).unwrap(), cat(&[&shared, &shared]).unwrap()];
        let target = draw((2, 3, 5, 7), 2);
        let both = [mse(&uses[0], &target).unwrap(), mse(&uses[1], &shared).unwrap()];
        let third = mse(&uses[2], &cat(&[&target, &target]).unwrap()).unwrap();
        weighted_sum(&[(&both[0], 1.), (&both[1], 2.), (&third, 3.)]).unwrap()
    };
    let theirs = loss().backward().unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let ours = pool.install(|| backward(loss()).unwrap());
        assert!(!ours.through_candle());
        values(ours.get(&x).unwrap())
    };
    let ours = run(1);
    for (ours, theirs) in ours.iter().zip(values(theirs.get(&x).unwrap())) {
        assert!((ours - theirs).abs() < 1e-7);
    }
    for threads in [2, 3, 8] {
        assert_eq!(ours, run(threads));
    }
}

/// Its pooling adds to the gradient that is there in place, if it comes second on the way back, and gives one of its own, if first.
#[test]
fn a_pooled_image_gets_the_sum_of_its_uses() {
    let x = Var::from_tensor(&draw((2, 3, 11, 14), 1)).unwrap();
    for (kernel, pooled_first) in [(2, true), (2, false), (3, true), (3, false)] {
        let loss = || {
            let image = tanh(&x).unwrap();
            let direct = || mse(&relu(&image).unwrap(), &image).unwrap();
            let pooled = || {
                let y = max_pool2d(&image, kernel).unwrap();
                mse(&y, &y.zeros_like().unwrap()).unwrap()
            };
            let uses = if pooled_first { [pooled(), direct()] } else { [direct(), pooled()] };
            weighted_sum(&[(&uses[0], 2.), (&uses[1], 3.)]).unwrap()
        };
        let theirs = loss().backward().unwrap();
        let ours = backward(loss()).unwrap();
        assert!(!ours.through_candle());
        let theirs = theirs.get(&x).unwrap().to_dtype(DType::F64).unwrap();
        assert_close("gradient", ours.get(&x).unwrap(), &theirs, 1e-6);
    }
}

/// They are computed by whichever thread is free; those of a parameter of several uses are added up in the order of these.
#[test]
fn gradients_of_parameters_come_beside_the_passes() {
    let [x, twice, up, below, bias] = [
        draw((2, 16, 20, 24), 1),
        draw((16, 16, 3, 3), 2),
        draw((16, 16, 2, 2), 3),
        draw((16, 32, 3, 3), 4),
        draw(16, 5),
    ]
    .map(|x| Var::from_tensor(&x).unwrap());
    let variables = [&x, &twice, &up, &below, &bias];
    let spec = Conv2d { padding: (1, 1), ..Conv2d::default() };
    let doubled = ConvTranspose2d { stride: (2, 2), ..ConvTranspose2d::default() };
    let loss = || {
        let conv = |x: &Tensor| tanh(&conv2d(x, &twice, Some(&bias), spec).unwrap()).unwrap();
        let fine = conv(&x);
        let coarse = conv(&max_pool2d(&fine, 2).unwrap());
        let back = conv_transpose2d(&coarse, &up, Some(&bias), doubled).unwrap();
        let y = conv2d([&fine, &back], &below, None, spec).unwrap();
        mse(&conv(&y), &fine.detach()).unwrap()
    };
    let theirs = loss().backward().unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let ours = pool.install(|| backward(loss()).unwrap());
        assert!(!ours.through_candle());
        variables.map(|variable| ours.get(variable).unwrap().clone())
    };
    let ours = run(1);
    for (ours, variable) in ours.iter().zip(variables) {
        assert_close("gradient", ours, &theirs.get(variable).unwrap().to_dtype(DType::F64).unwrap(), 1e-6);
    }
    for threads in [2, 3, 8] {
        assert_eq!(ours.each_ref().map(values), run(threads).each_ref().map(values));
    }
}

#[test]
fn what_fails_beside_the_passes_fails_the_way_back() {
    let (x, weight) = (variable(1), variable(2));
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let result = relu(&x).unwrap();
        let y = node("test", &[&result, &weight], vec![0.; x.elem_count()], x.shape(), |pass| {
            let of_weight = pass.beside(1, Box::new(|| candle_core::bail!("no memory is left")));
            assert_eq!(of_weight.is_some(), rayon::current_num_threads() == 1);
            let [of_weight, _] = of_weight.map_or(Ok([None, None]), |of| of())?;
            Ok([Some(pass.gradient.clone().into()), of_weight, None])
        })
        .unwrap();
        let error = pool.install(|| backward(y)).unwrap_err();
        assert!(error.to_string().contains("no memory is left"), "{error}");
    }
}

#[test]
fn a_gradient_is_written_over_unless_candle_has_it_too() {
    let (x, other) = (variable(1), draw((2, 3, 5, 7), 2));
    let left = Arc::new(Mutex::new(Vec::new()));
    let leave = left.clone();
    let y = node("test", &[&x], vec![0.; x.elem_count()], x.shape(), move |pass| {
        let (gradient, ()) = pass.overwritten(&other, |gradient, _| gradient.fill(7.))?;
        leave.lock().unwrap().push(values(pass.gradient));
        Ok([Some(gradient), None, None])
    })
    .unwrap();
    let theirs = y.backward().unwrap();
    let ours = backward(y).unwrap();
    let [ones, sevens] = [1., 7.].map(|value| vec![value; x.elem_count()]);
    for gradient in [theirs.get(&x), ours.get(&x)] {
        assert_eq!(values(gradient.unwrap()), sevens);
    }
    assert_eq!(*left.lock().unwrap(), [ones, sevens]);
}

/// Sums hand their gradient on to one summand; what writes over it must not change the other's.
#[test]
fn what_is_written_over_is_nobody_elses() {
    let [x, weight, bias] = [draw((2, 3, 5, 7), 1), draw(3, 2), draw(3, 3)].map(|x| Var::from_tensor(&x).unwrap());
    let loss = || {
        let norm = |x: &Tensor| batch_norm_train(x, &weight, &bias, 1e-5, Activation::Relu).unwrap().0;
        let a = tanh(&x).unwrap();
        let b = add(&norm(&a), &leaky_relu(&a, 0.2).unwrap(), Activation::LeakyRelu(0.1)).unwrap();
        let c = add(&b, &sigmoid(&b).unwrap(), Activation::None).unwrap();
        let d = add(&norm(&c), &c, Activation::Relu).unwrap();
        mse(&add(&d, &a, Activation::None).unwrap(), &a.detach()).unwrap()
    };
    let theirs = loss().backward().unwrap();
    let ours = backward(loss()).unwrap();
    assert!(!ours.through_candle());
    for variable in [&x, &weight, &bias] {
        let theirs = theirs.get(variable).unwrap().to_dtype(DType::F64).unwrap();
        assert_close("gradient", ours.get(variable).unwrap(), &theirs, 1e-6);
    }
}

#[test]
fn only_variables_have_gradients() {
    let [x, y] = [variable(1), variable(2)];
    let constant = y.as_detached_tensor();
    let loss = mse(&relu(&x).unwrap(), &relu(&constant).unwrap()).unwrap();
    let gradients = backward(loss).unwrap();
    assert_eq!(gradients.len(), 1);
    assert!(gradients.get(&x).is_some() && gradients.get(&y).is_none() && gradients.get(&constant).is_none());
    assert!(!gradients.get(&x).unwrap().track_op());
    assert!(backward(mse(&constant, &constant).unwrap()).unwrap().is_empty());
    let own = backward(x.as_tensor().clone()).unwrap();
    assert_eq!(values(own.get(&x).unwrap()), vec![1.; x.elem_count()]);
}

#[test]
fn an_op_of_candles_on_the_way_leaves_all_to_candle() {
    let x = variable(1);
    let target = draw((2, 3, 5, 7), 2);
    let loss = |scaled: bool| {
        let y = relu(&x).unwrap();
        let y = if scaled { (y * 3.).unwrap() } else { leaky_relu(&y, 3.).unwrap() };
        mse(&sigmoid(&y).unwrap(), &target).unwrap()
    };
    let expected = loss(true).backward().unwrap();
    let gradients = backward(loss(true)).unwrap();
    assert!(gradients.through_candle() && !backward(loss(false)).unwrap().through_candle());
    assert_eq!(gradients.len(), 1);
    assert_eq!(values(gradients.get(&x).unwrap()), values(expected.get(&x).unwrap()));
    // On a constant it stands in nobody's way.
    let gradients = backward(mse(&relu(&x).unwrap(), &(target * 2.).unwrap()).unwrap()).unwrap();
    assert!(!gradients.through_candle());
}

#[test]
fn other_dtypes_are_candles() {
    let x = Var::from_tensor(&draw(3, 1).to_dtype(DType::F64).unwrap()).unwrap();
    let gradients = backward(relu(&x).unwrap()).unwrap();
    assert!(gradients.through_candle());
    assert!(values(gradients.get(&x).unwrap()).iter().all(|&g| g == 0. || (g - 1.).abs() < 1e-12));
}

#[test]
fn a_tensor_of_any_shape_is_summed() {
    let x = variable(1);
    let weight = Var::from_tensor(&draw((4, 3, 1, 1), 2)).unwrap();
    let y = conv2d(&x, &weight, None, Conv2d::default()).unwrap();
    let expected = y.backward().unwrap();
    let gradients = backward(y).unwrap();
    for x in [&x, &weight] {
        assert_eq!(values(gradients.get(x).unwrap()), values(expected.get(x).unwrap()));
    }
}

#[test]
fn a_loss_can_be_gone_back_from_twice() {
    let x = variable(1);
    let y = tanh(&x).unwrap();
    let [first, second] = [(); 2].map(|()| backward(y.clone()).unwrap());
    assert_eq!(values(first.get(&x).unwrap()), values(second.get(&x).unwrap()));
}

/// What later ops saved is gone when earlier ones take their turn.
#[test]
fn what_is_saved_is_freed_on_the_way() {
    let x = variable(1);
    let alive = Arc::new(Mutex::new(Vec::new()));
    let saved: Vec<Arc<()>> = (0..4).map(|_| Arc::new(())).collect();
    let weak: Vec<Weak<()>> = saved.iter().map(Arc::downgrade).collect();
    let mut y = x.as_tensor().clone();
    for saved in saved {
        let (alive, weak) = (alive.clone(), weak.clone());
        y = node("test", &[&y], vec![0.; x.elem_count()], x.shape(), move |pass| {
            assert_eq!(Arc::strong_count(&saved), 1);
            alive.lock().unwrap().push(weak.iter().filter(|saved| saved.strong_count() > 0).count());
            Ok([Some(pass.gradient.clone()), None, None])
        })
        .unwrap();
    }
    backward(y).unwrap();
    assert_eq!(*alive.lock().unwrap(), [4, 3, 2, 1]);
}

#[test]
fn records_last_as_long_as_their_tensors() {
    let x = variable(1);
    let y = relu(&x).unwrap();
    assert!(matches!(Source::of(&y), Source::Record(_)));
    let id = y.id();
    assert!(super::super::node::is_recorded(id));
    drop(y);
    assert!(!super::super::node::is_recorded(id));
    let constant = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
    assert!(matches!(Source::of(&relu(&constant).unwrap()), Source::Constant));
}
