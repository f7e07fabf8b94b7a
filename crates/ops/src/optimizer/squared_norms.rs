//! How long gradients are.

use candle_core::{DType, Result, Tensor};

use crate::kernel::{Gradients, chunks, dealt, has_kernel, sum_in_f64, values};

/// The sum of the squares of each tensor's elements: infinite or NaN if and only if one of the elements is.
///
/// The sums are taken in f64, whose range holds the square of every f32. On other devices than the CPU and those of CUDA they are taken in
/// f32: there a norm above 1.8e19 counts as infinite too.
pub fn squared_norms(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    #[cfg(feature = "cuda")]
    if let Some(stage) = tensors.first().and_then(|tensor| crate::cuda::Stage::of(tensor))
        && tensors.iter().all(|tensor| crate::cuda::Stage::of(tensor).is_some())
    {
        let tensors = tensors.iter().map(|tensor| tensor.detach().contiguous()).collect::<Result<Vec<_>>>()?;
        return crate::cuda::tensors::squared_norms(&stage, &tensors);
    }
    let norm = |tensor: &&Tensor| {
        if !has_kernel(tensor) {
            return Ok(None);
        }
        let tensor = tensor.detach().contiguous()?;
        let values = values(&tensor)?;
        Ok(Some(dealt(chunks(&values), |chunk| sum_in_f64(chunk, |value| value * value)).sum()))
    };
    let norms: Vec<Option<f64>> = dealt(tensors, norm).collect::<Result<_>>()?;
    if let Some(norms) = norms.into_iter().collect() {
        return Ok(norms);
    }
    let sums: Vec<Tensor> =
        tensors.iter().map(|tensor| tensor.detach().sqr()?.sum_all()?.to_dtype(DType::F32)).collect::<Result<_>>()?;
    // Read back at once: each reading waits for the device.
    let sums = Tensor::stack(&sums, 0)?.to_vec1::<f32>()?;
    Ok(sums.into_iter().map(f64::from).collect())
}

impl Gradients {
    /// The sum of the squares of each variable's gradient, as [`squared_norms`] says; 0 of one without a gradient. Those of some large kernels are
    /// known since they were computed, and not read again: what has been changed in place since then is not seen there.
    ///
    /// # Errors
    /// Those of [`squared_norms`].
    pub fn squared_norms(&self, variables: &[&Tensor]) -> Result<Vec<f64>> {
        let known = |variable: &&Tensor| self.known_squared_norm(variable);
        let others = variables.iter().filter(|variable| known(variable).is_none());
        let mut computed = squared_norms(&others.filter_map(|other| self.get(other)).collect::<Vec<_>>())?.into_iter();
        let norm =
            |variable| known(variable).or_else(|| self.get(variable).and_then(|_| computed.next())).unwrap_or(0.);
        Ok(variables.iter().map(norm).collect())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::verify::draw;
    use crate::{Conv2d, backward, conv2d};

    #[test]
    fn norms_are_those_of_a_plain_sum() {
        for dtype in [DType::F32, DType::F64] {
            let tensors: Vec<Tensor> =
                [1, 15, 16, 40_000].map(|size| draw(&[size, 2][..], size as u64).to_dtype(dtype).unwrap()).to_vec();
            let norms = squared_norms(&tensors.iter().collect::<Vec<_>>()).unwrap();
            for (tensor, norm) in tensors.iter().zip(norms) {
                let values = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                let expected: f64 = values.iter().map(|value| value * value).sum();
                assert!((norm / expected - 1.).abs() < if dtype == DType::F32 { 1e-12 } else { 1e-5 });
            }
        }
        assert!(squared_norms(&[]).unwrap().is_empty());
    }

    #[test]
    fn only_what_is_not_finite_has_no_finite_norm() {
        let tensor = |value: f32, at: usize| {
            let mut values = vec![3e38_f32; 100];
            values[at] = value;
            Tensor::from_vec(values, 100, &Device::Cpu).unwrap()
        };
        for at in [0, 17, 99] {
            let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|value| tensor(value, at));
            let norms = squared_norms(&bad.each_ref()).unwrap();
            assert!(norms.iter().all(|norm| !norm.is_finite()), "{norms:?}");
        }
        assert!(squared_norms(&[&tensor(-f32::MAX, 5)]).unwrap()[0].is_finite());
    }

    #[test]
    fn norms_of_gradients_are_those_of_sums() {
        let variable = |shape: &[usize], seed| Var::from_tensor(&draw(shape, seed)).unwrap();
        let (small, unused) = (variable(&[256, 3, 3, 3], 1), variable(&[5], 2));
        let [once, twice] = [3, 4].map(|seed| variable(&[256, 256, 4, 4], seed));
        let image = conv2d(&draw((1, 3, 32, 32), 5), &small, None, Conv2d::new(1, 1)).unwrap();
        let half = |x: Tensor, weight: &Var| conv2d(&x, weight, None, Conv2d::new(2, 1)).unwrap();
        let gradients = backward(half(half(half(image, &once), &twice), &twice)).unwrap();
        assert!(gradients.known_squared_norm(&once).is_some() && gradients.known_squared_norm(&twice).is_none());
        let norms = gradients.squared_norms(&[&unused, &twice, &once, &small]).unwrap();
        assert_eq!(norms[0].to_bits(), 0);
        for (variable, norm) in [&twice, &once, &small].into_iter().zip(&norms[1..]) {
            let expected = squared_norms(&[gradients.get(variable).unwrap()]).unwrap()[0];
            assert!(expected > 0. && (norm / expected - 1.).abs() < 1e-12, "{norm}, not {expected}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let tensor = draw(&[300_001][..], 1);
        let norm = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| squared_norms(&[&tensor]).unwrap()[0].to_bits())
        };
        assert!([2, 3, 8].iter().all(|&threads| norm(threads) == norm(1)));
    }
}
