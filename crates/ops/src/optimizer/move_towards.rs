//! Exponential moving averages, in place.

use candle_core::{Result, Tensor, Var};

use crate::check;
use crate::kernel::{chunks, chunks_mut, deal_each, for_each, has_kernel, lend, values, vectorised};

/// Moves each average towards its value, of the same shape: `average = (1 - share) average + share value`, with `share` in 0..=1.
///
/// # Errors
/// Empty averages and mismatching shapes; nothing is moved then.
pub fn move_towards(averages: &[(&Var, &Tensor)], share: f64) -> Result<()> {
    for (average, value) in averages {
        check::same_shape("move_towards", "value", value, average)?;
        check::not_empty("move_towards", "value", value)?;
    }
    for_each(
        averages,
        |(average, _)| average,
        |(average, value)| {
            let value = value.detach().contiguous()?;
            if !has_kernel(average) {
                return average.set(&((average.as_detached_tensor() * (1. - share))? + (value * share)?)?);
            }
            let (value, [keep, take]) = (values(&value)?, [1. - share, share].map(|share| share as f32));
            lend(average, |average| {
                deal_each(chunks_mut(average).zip(chunks(&value)), |(average, value)| {
                    vectorised(|| {
                        for (average, value) in average.iter_mut().zip(value) {
                            *average = *average * keep + value * take;
                        }
                    });
                });
                Ok(())
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::move_towards;
    use crate::verify::{draw, refusal, values};

    #[test]
    fn averages_move_by_their_share() {
        for dtype in [DType::F32, DType::F64] {
            let shapes = [vec![2, 3], vec![40_000]];
            let start = shapes.clone().map(|shape| draw(shape, 1).to_dtype(dtype).unwrap());
            let value = shapes.map(|shape| draw(shape, 2).to_dtype(dtype).unwrap());
            let averages = start.clone().map(|start| Var::from_tensor(&start).unwrap());
            let pairs: Vec<_> = averages.iter().zip(&value).collect();
            move_towards(&pairs, 0.25).unwrap();
            for ((average, start), value) in averages.iter().zip(&start).zip(&value) {
                for ((average, start), value) in values(average).iter().zip(values(start)).zip(values(value)) {
                    assert!((average - (0.75 * start + 0.25 * value)).abs() < 1e-6);
                }
            }
            move_towards(&pairs, 1.).unwrap();
            assert_eq!(values(&averages[0]), values(&value[0]));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_moves_nothing() {
        let [first, second] = [1, 2].map(|seed| Var::from_tensor(&draw(3, seed)).unwrap());
        let (before, wrong) = (values(&first), draw(4, 1));
        let refused = refusal(move_towards(&[(&first, &draw(3, 5)), (&second, &wrong)], 0.5).map(|()| draw(1, 1)));
        assert_eq!(refused, "move_towards: value has shape [4], not [3]");
        assert_eq!(values(&first), before);
    }
}
