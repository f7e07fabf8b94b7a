use rayon::prelude::*;

use crate::{DataError, Dataset};

/// Files that are read between two words of progress.
const STRIDE: usize = 16;

/// How many pixels each class has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Pixels by class id.
    pub counts: Vec<u64>,
    /// Pixels of no class.
    pub void: u64,
}

impl ClassCounts {
    /// No pixels, of `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self { counts: vec![0; classes], void: 0 }
    }

    /// Counts the pixels of all samples; `progress` is told (done, total) files.
    pub fn of(dataset: &Dataset, progress: &dyn Fn(usize, usize)) -> Result<Self, DataError> {
        let mut counts = Self::new(dataset.table().len());
        let total = dataset.len();
        for first in (0..total).step_by(STRIDE) {
            let last = (first + STRIDE).min(total);
            let labels: Vec<Result<_, DataError>> =
                (first..last).into_par_iter().map(|i| Ok(dataset.sample(i)?.labels)).collect();
            for labels in labels {
                counts.add(&labels?);
            }
            progress(last, total);
        }
        Ok(counts)
    }

    /// Adds labels; those of no class are void.
    pub fn add(&mut self, labels: &[u8]) {
        let mut by_value = [0_u64; 256];
        for &label in labels {
            by_value[usize::from(label)] += 1;
        }
        let classes = self.counts.len().min(by_value.len());
        for (count, add) in self.counts.iter_mut().zip(by_value) {
            *count += add;
        }
        self.void += by_value[classes..].iter().sum::<u64>();
    }

    /// Adds the counts of another, of as many classes.
    pub fn merge(&mut self, other: &Self) {
        for (count, add) in self.counts.iter_mut().zip(&other.counts) {
            *count += add;
        }
        self.void += other.void;
    }

    /// Each class's share of the pixels that are not void; 0 where there are none.
    pub fn frequencies(&self) -> Vec<f64> {
        let labelled = self.counts.iter().sum::<u64>().max(1) as f64;
        self.counts.iter().map(|&count| count as f64 / labelled).collect()
    }

    /// The share of void in all pixels; 0 where there are none.
    pub fn void_share(&self) -> f64 {
        self.void as f64 / (self.counts.iter().sum::<u64>() + self.void).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_by_class() {
        let mut counts = ClassCounts::new(3);
        counts.add(&[0, 2, 2, 255, 3]);
        assert_eq!(counts, ClassCounts { counts: vec![1, 0, 2], void: 2 });
        counts.merge(&counts.clone());
        assert_eq!(counts, ClassCounts { counts: vec![2, 0, 4], void: 4 });
        assert_eq!(counts.frequencies(), [1.0 / 3.0, 0.0, 2.0 / 3.0]);
        assert!((counts.void_share() - 0.4).abs() < 1e-12);
        assert_eq!((ClassCounts::new(1).frequencies(), ClassCounts::new(1).void_share()), (vec![0.0], 0.0));
    }
}
