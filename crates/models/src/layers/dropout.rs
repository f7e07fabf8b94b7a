use candle_core::{Error, Result, Tensor};
use img2seg_ops as ops;

use crate::Parameters;

/// Drops elements in training (Srivastava et al. 2014). It has no parameters: its scope is its name, and which elements it drops is
/// drawn from (seed, name, [step](Parameters::set_step)). A second pass of the same step drops the same ones.
#[derive(Debug, Clone)]
pub struct Dropout {
    parameters: Parameters,
    probability: f64,
}

impl Dropout {
    /// The layer of this scope. Fails unless the probability is in [0, 1).
    pub fn new(parameters: &Parameters, probability: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&probability) {
            return Err(Error::Msg(format!("dropout {probability}: not a probability below 1")));
        }
        Ok(Self { parameters: parameters.clone(), probability })
    }

    /// Any shape to the same: with `train`, elements are dropped with the probability and the others scaled to keep the mean;
    /// otherwise nothing happens.
    pub fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if !train || self.probability == 0.0 {
            return Ok(x.clone());
        }
        let keep = self.parameters.keep_mask(x.shape(), self.probability)?;
        ops::dropout(x, &keep, self.probability)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn dropped(parameters: &Parameters, probability: f64, threads: usize) -> Vec<f32> {
        let ones = Tensor::ones((2, 3, 100, 101), DType::F32, &Device::Cpu).unwrap();
        let layer = Dropout::new(parameters, probability).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let y = pool.install(|| layer.forward_t(&ones, true)).unwrap();
        y.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_mask_depends_on_seed_name_and_step_alone() {
        let parameters = Parameters::new(1, &Device::Cpu);
        let layer = |name: &str| parameters.scope(name);
        let first = dropped(&layer("a"), 0.5, 1);
        assert!([2, 3, 8].iter().all(|&threads| dropped(&layer("a"), 0.5, threads) == first));
        assert!(dropped(&layer("b"), 0.5, 1) != first);
        assert!(dropped(&Parameters::new(2, &Device::Cpu).scope("a"), 0.5, 1) != first);
        let (scope, view) = (layer("a"), parameters.detached());
        parameters.set_step(7);
        assert_eq!([scope.step(), view.step()], [7, 7]);
        let seventh = dropped(&scope, 0.5, 1);
        assert!(seventh != first && dropped(&view.scope("a"), 0.5, 1) == seventh);
        view.set_step(0);
        assert!(dropped(&scope, 0.5, 1) == first);
    }

    #[test]
    fn as_many_are_dropped_as_asked_and_the_mean_stays() {
        for probability in [0.1, 0.5, 0.9] {
            let y = dropped(&Parameters::new(3, &Device::Cpu).scope("a"), probability, 2);
            let kept = (1.0 / (1.0 - probability)) as f32;
            assert!(y.iter().all(|y| [0.0, kept].contains(y)));
            let share = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
            assert!((share - probability).abs() < 0.01, "{share} for {probability}"); // five standard errors
        }
    }

    #[test]
    fn nothing_is_dropped_in_evaluation_and_no_probability_is_1() {
        let parameters = Parameters::new(1, &Device::Cpu);
        let x = Tensor::ones((1, 2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        let kept = |probability, train| {
            let y = Dropout::new(&parameters, probability).unwrap().forward_t(&x, train).unwrap();
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap() == [1.0; 24]
        };
        assert!(kept(0.9, false) && kept(0.0, true) && !kept(0.9, true));
        for probability in [1.0, -0.5, f64::NAN] {
            let error = Dropout::new(&parameters, probability).unwrap_err().to_string();
            assert!(error.ends_with(": not a probability below 1"), "{error}");
        }
    }
}
