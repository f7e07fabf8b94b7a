//! The nearest of a few colours, exactly and fast.

/// Cells of a side of the colour cube, each 8 levels wide.
const CELLS: usize = 32;

/// Finds the nearest of a list of colours: squared distance in RGB, the first in the list where several are equally near.
#[derive(Clone, Debug)]
pub(crate) struct NearestColor {
    colors: Vec<[u8; 3]>,
    /// For every cell of the colour cube, where its candidates begin in `candidates`, and at the end where the last ones end.
    begins: Vec<u32>,
    /// Indices into `colors`, ascending within a cell: those that are nearest for some colour of the cell, and maybe a few more.
    candidates: Vec<u16>,
}

impl NearestColor {
    /// `colors` has 1 to 65535 entries.
    pub(crate) fn new(colors: Vec<[u8; 3]>) -> Self {
        // Squared distances along one axis from a level to the nearest and to the farthest level of each cell.
        let axis = |level: u8| -> [(u32, u32); CELLS] {
            std::array::from_fn(|cell| {
                let (low, high) = (8 * cell as i32, 8 * cell as i32 + 7);
                let level = i32::from(level);
                let near = (low - level).max(level - high).max(0);
                let far = (level - low).max(high - level);
                ((near * near) as u32, (far * far) as u32)
            })
        };
        let axes: Vec<[_; 3]> = colors.iter().map(|&color| color.map(axis)).collect();
        let mut begins = vec![0];
        let mut candidates = Vec::new();
        let mut least = vec![0; colors.len()];
        for cell in 0..CELLS * CELLS * CELLS {
            let (r, g, b) = (cell / (CELLS * CELLS), cell / CELLS % CELLS, cell % CELLS);
            let mut bound = u32::MAX;
            for (axes, least) in axes.iter().zip(&mut least) {
                *least = axes[0][r].0 + axes[1][g].0 + axes[2][b].0;
                bound = bound.min(axes[0][r].1 + axes[1][g].1 + axes[2][b].1);
            }
            candidates.extend((0..colors.len()).filter(|&i| least[i] <= bound).map(|i| i as u16));
            begins.push(candidates.len() as u32);
        }
        Self { colors, begins, candidates }
    }

    /// Index of the nearest colour and its squared distance.
    pub(crate) fn find(&self, color: [u8; 3]) -> (usize, u32) {
        let [r, g, b] = color.map(|level| usize::from(level) / 8);
        let cell = (r * CELLS + g) * CELLS + b;
        let mut nearest = (0, u32::MAX);
        for &candidate in &self.candidates[self.begins[cell] as usize..self.begins[cell + 1] as usize] {
            let distance = squared_distance(color, self.colors[usize::from(candidate)]);
            if distance < nearest.1 {
                nearest = (usize::from(candidate), distance);
            }
        }
        nearest
    }
}

/// The squared distance of two colours in RGB, at most 3 * 255 * 255.
fn squared_distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter().zip(b).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed;

    #[test]
    fn finds_what_a_search_of_all_colors_finds() {
        for count in [1, 2, 12, 35, 300] {
            let mut draws = keyed::rng(1, "nearest", &[count as u64]);
            // Few levels make many ties.
            let levels = [0_u8, 7, 8, 64, 128, 129, 200, 255];
            let mut color = || std::array::from_fn(|_| levels[draws.below(levels.len())]);
            let colors: Vec<[u8; 3]> = (0..count).map(|_| color()).collect();
            let nearest = NearestColor::new(colors.clone());
            let mut queries: Vec<[u8; 3]> = (0..2000).map(|_| color()).collect();
            queries.extend((0..20_000).map(|_| std::array::from_fn(|_| draws.below(256) as u8)));
            for query in queries {
                let expected = (0..count)
                    .map(|i| (squared_distance(query, colors[i]), i))
                    .min()
                    .map(|(distance, i)| (i, distance));
                assert_eq!(Some(nearest.find(query)), expected, "{query:?} among {colors:?}");
            }
        }
    }
}
