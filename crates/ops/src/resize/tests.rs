use candle_core::{Device, Tensor};

use crate::verify::{self, draw, refusal};
use crate::{Resize, resize};

#[test]
fn holds_everywhere() {
    for how in [Resize::Nearest, Resize::Bilinear] {
        for (shape, height, width) in [
            ((2, 3, 4, 5), 8, 10),
            ((1, 2, 7, 6), 3, 2),
            ((1, 1, 5, 3), 5, 7),
            ((2, 2, 1, 1), 3, 4),
            ((1, 1, 6, 9), 13, 4),
        ] {
            verify::assert_op(&|inputs| resize(&inputs[0], height, width, how), &[draw(shape, 1)]);
        }
    }
}

fn row(x: &[f32], width: usize, how: Resize) -> Vec<f64> {
    let x = Tensor::new(x, &Device::Cpu).unwrap().reshape((1, 1, 1, x.len())).unwrap();
    verify::values(&resize(&x, 1, width, how).unwrap())
}

#[test]
fn positions_are_those_of_interpolate() {
    assert_eq!(row(&[0., 1.], 4, Resize::Nearest), [0., 0., 1., 1.]);
    assert_eq!(row(&[0., 1.], 4, Resize::Bilinear), [0., 0.25, 0.75, 1.]);
    assert_eq!(row(&[0., 1., 2., 3., 4.], 2, Resize::Nearest), [0., 2.]);
    assert_eq!(row(&[0., 1., 2., 3.], 2, Resize::Bilinear), [0.5, 2.5]);
    assert_eq!(row(&[3., 8.], 2, Resize::Bilinear), [3., 8.]);
}

#[test]
fn nan_reaches_its_neighbours_only() {
    let nan: Vec<bool> = row(&[0., f32::NAN, 2., 3.], 8, Resize::Nearest).into_iter().map(f64::is_nan).collect();
    assert_eq!(nan, [false, false, true, true, false, false, false, false]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    assert_eq!(refusal(resize(&draw((1, 1, 2, 2), 1), 0, 3, Resize::Nearest)), "resize: size (0, 3) has a zero");
}
