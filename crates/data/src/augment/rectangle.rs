/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Rectangle {
    /// A rectangle of about the given (height, width), cut down to the image's size `within`, at a place that runs from top and left
    /// (0) to bottom and right (1, excluded).
    pub(super) fn placed(size: [f64; 2], within: [usize; 2], place: [f64; 2]) -> Self {
        let [height, width] = [0, 1].map(|axis| (size[axis].round() as usize).min(within[axis]));
        let from = |axis: usize, side: usize| (place[axis] * (within[axis] - side + 1) as f64) as usize;
        Self { top: from(0, height), left: from(1, width), height, width }
    }

    /// Where its rows lie in an image of rows of `stride` values, `values` of them a pixel.
    pub(super) fn rows(self, stride: usize, values: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (self.top..self.top + self.height).map(move |row| {
            let from = row * stride + values * self.left;
            from..from + values * self.width
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside_and_reaches_every_place() {
        let tops: std::collections::BTreeSet<usize> =
            (0..100).map(|k| Rectangle::placed([3.0, 9.6], [5, 8], [f64::from(k) / 100.0, 0.0]).top).collect();
        assert_eq!(tops.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        let whole = Rectangle::placed([3.4, 9.6], [5, 8], [0.999, 0.999]);
        assert_eq!(whole, Rectangle { top: 2, left: 0, height: 3, width: 8 });
        let small = Rectangle::placed([1.6, 2.0], [4, 5], [0.999, 0.5]);
        assert_eq!(small.rows(15, 3).collect::<Vec<_>>(), [36..42, 51..57]);
        assert_eq!(Rectangle::placed([0.4, 3.0], [4, 5], [0.0; 2]).rows(15, 3).count(), 0);
    }
}
