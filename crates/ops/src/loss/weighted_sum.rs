//! Losses of several terms.

use candle_core::{Result, Tensor};

use crate::check::{self, refuse};
use crate::kernel::{InputGradients, by_candle, has_kernel, node};

/// Far more than a loss of a paper has.
const MOST: usize = 8;

/// The sum of one to eight losses, numbers each, times their weights, added in their order.
///
/// # Errors
/// No terms or more than eight, and terms that are not single numbers of one kind.
pub fn weighted_sum(terms: &[(&Tensor, f64)]) -> Result<Tensor> {
    const OP: &str = "weighted_sum";
    let Some(&(first, _)) = terms.first() else { refuse!("{OP}: no terms") };
    if terms.len() > MOST {
        refuse!("{OP}: {} terms, more than {MOST}", terms.len());
    }
    for (at, (term, _)) in terms.iter().enumerate() {
        let name = format!("term {at}");
        if term.rank() != 0 {
            refuse!("{OP}: {name} has shape {:?}, not []", term.dims());
        }
        check::same_kind(OP, &name, term, first)?;
    }
    if terms.len() > 3 {
        // A node of candle's takes three inputs.
        let head = weighted_sum(&terms[..3])?;
        return weighted_sum(&[&[(&head, 1.)], &terms[3..]].concat());
    }
    let losses: Vec<&Tensor> = terms.iter().map(|&(term, _)| term).collect();
    #[cfg(feature = "cuda")]
    if crate::cuda::Stage::of(first).is_some() {
        return on_device(OP, &losses, terms.iter().map(|&(_, weight)| weight).collect());
    }
    if !has_kernel(first) {
        let weights: Vec<f64> = terms.iter().map(|&(_, weight)| weight).collect();
        return by_candle(OP, &losses, move |terms| {
            let mut terms = terms.iter().zip(&weights).map(|(term, &weight)| term * weight);
            let Some(first) = terms.next() else { refuse!("{OP}: no terms") };
            terms.try_fold(first?, |sum, term| sum + term?)
        });
    }
    let weights: Vec<f32> = terms.iter().map(|&(_, weight)| weight as f32).collect();
    let mut sum = 0.;
    for (loss, weight) in losses.iter().zip(&weights) {
        sum += loss.to_scalar::<f32>()? * weight;
    }
    node(OP, &losses, vec![sum], (), move |pass| {
        let gradient = pass.gradient.to_scalar::<f32>()?;
        let mut gradients: InputGradients = InputGradients::default();
        for (at, weight) in weights.iter().enumerate().filter(|&(at, _)| pass.needed[at]) {
            gradients[at] = Some(Tensor::new(gradient * weight, pass.gradient.device())?);
        }
        Ok(gradients)
    })
}

/// The numbers of losses stay on their device, on the way there and back.
#[cfg(feature = "cuda")]
fn on_device(op: &'static str, losses: &[&Tensor], weights: Vec<f64>) -> Result<Tensor> {
    let sum = |terms: &[Tensor]| {
        let mut terms = terms.iter().zip(&weights).map(|(term, &weight)| term * weight);
        let Some(first) = terms.next() else { refuse!("{op}: no terms") };
        terms.try_fold(first?, |sum, term| sum + term?)
    };
    let y = sum(&losses.iter().map(|loss| loss.detach()).collect::<Vec<_>>())?;
    node(op, losses, crate::kernel::Made::copy_of(&y)?, (), move |pass| {
        let mut gradients: InputGradients = InputGradients::default();
        for (at, &weight) in weights.iter().enumerate().filter(|&(at, _)| pass.needed[at]) {
            gradients[at] = Some((pass.gradient * weight)?);
        }
        Ok(gradients)
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::weighted_sum;
    use crate::verify::{self, draw, refusal, values};

    #[test]
    fn holds_everywhere() {
        let weights = [1., 0.5, -100., 3., -0.25, 7., 2., 1.5];
        for count in 1..=8 {
            let inputs: Vec<_> = (0..count).map(|seed| draw((), seed)).collect();
            let weighted = |inputs: &[Tensor]| weighted_sum(&inputs.iter().zip(weights).collect::<Vec<_>>());
            verify::assert_op(&weighted, &inputs);
        }
        let [x, y] = [draw((), 1), draw((), 2)];
        let expected = values(&x)[0] + 2. * values(&y)[0];
        assert!((values(&weighted_sum(&[(&x, 1.), (&y, 2.)]).unwrap())[0] - expected).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let x = draw((), 1);
        assert_eq!(refusal(weighted_sum(&[])), "weighted_sum: no terms");
        assert_eq!(refusal(weighted_sum(&[(&x, 1.); 9])), "weighted_sum: 9 terms, more than 8");
        assert_eq!(refusal(weighted_sum(&[(&x, 1.), (&draw(2, 1), 1.)])), "weighted_sum: term 1 has shape [2], not []");
    }
}
