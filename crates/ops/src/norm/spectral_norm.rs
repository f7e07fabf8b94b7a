//! Spectral normalisation of a weight, read as a matrix (out, everything else): divided by an estimate of its largest singular value.

use candle_core::{Result, Tensor, Var};

use crate::check::{self, refuse};
use crate::kernel::{by_candle, deal_each, dealt, has_kernel, lanes2, lend, map, node, sum2, values};

/// Columns that one piece of work adds up.
const COLUMNS: usize = 256;

/// Takes one step of the power method: `u = W v / |W v|`, then `v = W^T u / |W^T u|`, in place, where W is `weight` (out, ...) read
/// as a matrix and `u` (out) and `v` (the product of the other sizes) are the estimates of its first singular vectors (Miyato et
/// al. 2018, algorithm 1, begun with u as PyTorch's parametrization does). Norms below `epsilon` count as it. No gradient flows to `u` and `v`.
///
/// # Errors
/// Empty weights, and vectors that do not fit.
pub fn power_iteration(weight: &Tensor, u: &Var, v: &Var, epsilon: f64) -> Result<()> {
    let (rows, columns) = matrix("power_iteration", weight, u, v)?;
    let weight = weight.detach().contiguous()?;
    if !has_kernel(&weight) {
        let weight = weight.reshape((rows, columns))?;
        let unit = |vector: &Tensor| -> Result<Tensor> {
            let length = vector.sqr()?.sum_all()?.sqrt()?.maximum(epsilon)?;
            vector.broadcast_div(&length)
        };
        let straight = weight.matmul(&v.as_detached_tensor().reshape((columns, 1))?)?;
        u.set(&unit(&straight.reshape(rows)?)?)?;
        let turned = weight.t()?.matmul(&u.as_detached_tensor().reshape((rows, 1))?)?;
        return v.set(&unit(&turned.reshape(columns)?)?);
    }
    let weight = values(&weight)?;
    let straight = {
        let v = v.as_detached_tensor();
        rows_times(&weight, &values(&v)?)
    };
    write_unit(u, &straight, epsilon)?;
    let turned = {
        let u = u.as_detached_tensor();
        columns_times(&weight, &values(&u)?, columns)
    };
    write_unit(v, &turned, epsilon)
}

/// `weight / sigma` of the weight's shape, where `sigma = u^T W v` estimates the largest singular value; `u` and `v` are those that
/// [`power_iteration`] has moved last (Miyato et al. 2018). The gradient goes through sigma, with u and v as constants:
/// `dW = g / sigma - (sum of g W) / sigma^2 * u v^T`.
///
/// # Errors
/// Empty weights, and vectors that do not fit.
pub fn spectral_norm(weight: &Tensor, u: &Tensor, v: &Tensor) -> Result<Tensor> {
    const OP: &str = "spectral_norm";
    let (rows, columns) = matrix(OP, weight, u, v)?;
    let [u, v] = [u.detach().contiguous()?, v.detach().contiguous()?];
    if !has_kernel(weight) {
        // Copies: the vectors are moved in place before the way back.
        let [u, v] = [u.copy()?, v.copy()?];
        return by_candle(OP, &[weight], move |x| {
            let turned = x[0].reshape((rows, columns))?.matmul(&v.reshape((columns, 1))?)?;
            let sigma = turned.reshape(rows)?.mul(&u)?.sum_all()?;
            x[0].broadcast_div(&sigma)
        });
    }
    let weight = weight.contiguous()?;
    // Copies: the vectors are moved in place before the way back.
    let [u, v] = [values(&u)?.to_vec(), values(&v)?.to_vec()];
    let (y, sigma) = {
        let weight = values(&weight)?;
        let sigma: f64 = rows_times(&weight, &v).iter().zip(&u).map(|(row, &u)| row * f64::from(u)).sum();
        let divisor = sigma as f32;
        (map(&weight, move |weight| weight / divisor), sigma)
    };
    let input = weight.detach();
    node(OP, &[&weight], y, weight.shape(), move |pass| {
        let (weight, gradient) = (values(&input)?, values(pass.gradient)?);
        let share = sum2(&weight, &gradient, |weight, gradient| weight * gradient) / (sigma * sigma);
        let mut result = vec![0.; weight.len()];
        deal_each(result.chunks_mut(columns).zip(gradient.chunks(columns)).zip(&u), |((out, gradient), &u)| {
            let (factor, share) = ((1. / sigma) as f32, (share * f64::from(u)) as f32);
            for ((out, &gradient), &v) in out.iter_mut().zip(gradient).zip(&v) {
                *out = gradient * factor - share * v;
            }
        });
        Ok([Some(Tensor::from_vec(result, input.shape(), input.device())?), None, None])
    })
}

/// Rows and columns of a weight, whose vectors fit.
fn matrix(op: &str, weight: &Tensor, u: &Tensor, v: &Tensor) -> Result<(usize, usize)> {
    check::not_empty(op, "weight", weight)?;
    let Some(&rows) = weight.dims().first() else { refuse!("{op}: weight has shape [], not (out, ...)") };
    let columns = weight.elem_count() / rows;
    check::vector(op, "u", u, rows, weight)?;
    check::vector(op, "v", v, columns, weight)?;
    Ok((rows, columns))
}

/// `W v`, a row's products at a time.
fn rows_times(weight: &[f32], v: &[f32]) -> Vec<f64> {
    let product = |row: &[f32]| lanes2(row, v, |sum: &mut [f64; 1], a, b| sum[0] += f64::from(a) * f64::from(b))[0];
    dealt(weight.chunks(v.len()), product).collect()
}

/// `W^T u`, each column's products from the first row to the last.
fn columns_times(weight: &[f32], u: &[f32], columns: usize) -> Vec<f64> {
    let mut sums = vec![0.; columns];
    deal_each(sums.chunks_mut(COLUMNS).enumerate(), |(piece, sums)| {
        for (row, &u) in weight.chunks_exact(columns).zip(u) {
            for (sum, &weight) in sums.iter_mut().zip(&row[piece * COLUMNS..]) {
                *sum += f64::from(weight) * f64::from(u);
            }
        }
    });
    sums
}

/// Writes a vector's direction.
fn write_unit(to: &Var, vector: &[f64], epsilon: f64) -> Result<()> {
    let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt().max(epsilon);
    lend(to, |to| {
        to.iter_mut().zip(vector).for_each(|(to, value)| *to = (value / length) as f32);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};

    use super::{power_iteration, spectral_norm};
    use crate::verify::{self, draw, refusal};

    #[test]
    fn holds_everywhere() {
        for shape in [vec![3, 4, 2, 5], vec![2, 1], vec![1, 7], vec![5, 300, 2, 2]] {
            let weight = draw(shape, 1);
            let rows = weight.dims()[0];
            let [u, v] = [draw(rows, 2), draw(weight.elem_count() / rows, 3)];
            let of = |w: &[Tensor]| spectral_norm(&w[0], &u.to_dtype(w[0].dtype())?, &v.to_dtype(w[0].dtype())?);
            verify::assert_op_within(verify::FAST, &of, &[weight]);
        }
    }

    /// The step, the result and the gradient of `torch.nn.utils.parametrizations.spectral_norm` in f64.
    #[test]
    fn agrees_with_pytorch() {
        for dtype in [DType::F32, DType::F64] {
            let tensor = |values: &[f64], shape: &[usize]| {
                Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
            };
            let weight = tensor(&[1., 2., 0.5, -1., 0.25, 3.], &[2, 3, 1, 1]);
            let u = Var::from_tensor(&tensor(&[0., 0.], &[2])).unwrap();
            let v = Var::from_tensor(&tensor(&[0.6, 0.8, 0.], &[3])).unwrap();
            power_iteration(&weight, &u, &v, 1e-12).unwrap();
            let close = |what, actual: &Tensor, expected: &[f64]| {
                verify::assert_close(what, actual, &tensor(expected, actual.dims()), 1e-6);
            };
            close("u", &u, &[0.983_869_910_099_907_5, -0.178_885_438_199_983_15]);
            close("v", &v, &[0.517_316_910_057_570_3, 0.855_562_582_018_289_4, -0.019_896_804_232_983_418]);
            let cotangent = tensor(&[1., -1., 2., 0.5, 0., -0.25], &[2, 3, 1, 1]);
            let (y, gradients) = verify::differentiate(&|w| spectral_norm(&w[0], &u, &v), &[weight], &cotangent);
            let expected = [0.444_906_068, 0.889_812_136, 0.222_453_034, -0.444_906_068, 0.111_226_517, 1.334_718_204];
            close("output", &y, &expected);
            let expected = [
                0.570_839_495_8,
                -0.236_631_552_8,
                0.884_968_542_6,
                0.199_556_047_1,
                -0.037_868_093_7,
                -0.110_345_863_7,
            ];
            close("gradient", &gradients[0], &expected);
        }
    }

    /// Of a matrix of known singular values, and with the same bits in every thread pool.
    #[test]
    fn the_power_method_finds_the_largest_singular_value() {
        let (rows, columns) = (7, 600);
        let (left, right) = (draw(rows, 1), draw(columns, 2));
        let rank_one = left.reshape((rows, 1)).unwrap().matmul(&right.reshape((1, columns)).unwrap()).unwrap();
        let weight = (rank_one + (draw((rows, columns), 3) * 0.01).unwrap()).unwrap();
        let found = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let [u, v] = [draw(rows, 4), draw(columns, 5)].map(|x| Var::from_tensor(&x).unwrap());
                for _ in 0..10 {
                    power_iteration(&weight, &u, &v, 1e-12).unwrap();
                }
                verify::values(&spectral_norm(&weight, &u, &v).unwrap())
            })
        };
        let norm = |x: &Tensor| verify::values(x).iter().map(|x| x * x).sum::<f64>().sqrt();
        let (alone, sigma) = (found(1), norm(&left) * norm(&right));
        for (normed, weight) in alone.iter().zip(verify::values(&weight)) {
            assert!((normed * sigma - weight).abs() <= 0.02 * weight.abs() + 1e-3, "{normed} of {weight}");
        }
        assert!([2, 3, 8].iter().all(|&threads| found(threads) == alone));
    }

    /// What moves after the forward pass does not change the way back from it.
    #[test]
    fn the_vectors_of_the_forward_pass_are_kept() {
        let weight = Var::from_tensor(&draw((3, 4), 1)).unwrap();
        let vectors = || [draw(3, 2), draw(4, 3)].map(|x| Var::from_tensor(&x).unwrap());
        let gradient = |moves: bool| {
            let [u, v] = vectors();
            let y = spectral_norm(&weight, &u, &v).unwrap();
            if moves {
                power_iteration(&weight, &u, &v, 1e-12).unwrap();
            }
            verify::values(crate::backward(y).unwrap().get(&weight).unwrap())
        };
        assert_eq!(gradient(false), gradient(true));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |rows, columns| refusal(spectral_norm(&draw((2, 3, 2), 1), &draw(rows, 2), &draw(columns, 3)));
        assert_eq!(refused(3, 6), "spectral_norm: u has shape [3], not [2]");
        assert_eq!(refused(2, 3), "spectral_norm: v has shape [3], not [6]");
    }
}
