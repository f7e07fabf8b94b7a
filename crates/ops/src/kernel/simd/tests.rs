use super::*;

struct Product<'a> {
    size: (usize, usize),
    panels: usize,
    a: &'a [f32],
    b: &'a [f32],
    c: &'a mut [f32],
    transposed: bool,
    accumulate: bool,
    next: Option<Next>,
}

impl Piece for Product<'_> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let (rows, depth) = self.size;
        let (row, column) = if self.transposed { (1, rows) } else { (depth, 1) };
        let a = Rows { start: self.a.as_ptr(), row, column };
        // SAFETY: the test makes slices of these sizes.
        unsafe {
            let b = Panels { start: self.b.as_ptr(), row: PANEL, panel: depth * PANEL };
            let c = Panels { start: self.c.as_mut_ptr(), row: self.panels * PANEL, panel: PANEL };
            I::product(self.size, self.panels, a, b, c, self.accumulate, self.next);
        }
    }
}

#[test]
fn products_of_every_level_are_exact_on_small_integers() {
    let number = |i: usize| ((i * 7 + 3) % 11) as f32 - 5.;
    for level in Level::all() {
        let small = (1..40).flat_map(|rows| (1..10).map(move |panels| (rows, rows % 9 + 1, panels)));
        let deep = [63, 64, 65, 150].into_iter().flat_map(|depth| [(7, depth, 4), (3, depth, 9)]);
        for (rows, depth, panels) in small.chain(deep) {
            // Where what comes next is does not matter to the result, be it outside of all memory.
            let far = Some(Next { a: 1 << 40, b: 1 << 41 });
            for (transposed, accumulate, next) in
                [(false, false, None), (true, true, None), (true, false, far), (true, true, far)]
            {
                let width = panels * PANEL;
                let a: Vec<f32> = (0..rows * depth).map(number).collect();
                let b: Vec<f32> = (0..depth * width).map(|i| number(i + 5)).collect();
                let mut c = vec![2.; rows * width];
                let mut expected = vec![if accumulate { 2. } else { 0. }; rows * width];
                for ((i, j), k) in (0..rows)
                    .flat_map(|i| (0..width).map(move |j| (i, j)))
                    .flat_map(|at| (0..depth).map(move |k| (at, k)))
                {
                    let a = if transposed { a[k * rows + i] } else { a[i * depth + k] };
                    expected[i * width + j] += a * b[(j / PANEL * depth + k) * PANEL + j % PANEL];
                }
                let work =
                    Product { size: (rows, depth), panels, a: &a, b: &b, c: &mut c, transposed, accumulate, next };
                run(level, work);
                assert_eq!(c, expected, "{level:?} {rows}x{depth}, {panels} panels");
            }
        }
    }
}

struct Columns {
    row: usize,
    narrow: Vec<f32>,
    wide: Vec<f32>,
}

impl Piece for &mut Columns {
    #[inline(always)]
    fn run<I: Isa>(self) {
        /// The four columns, one after the other, of a matrix of numbered elements.
        #[inline(always)]
        fn columns<L: Lanes>(row: usize) -> Vec<f32> {
            let values: Vec<f32> = (0..(L::LEN - 1) * row + 4).map(|i| i as f32).collect();
            let mut all = vec![0.; 4 * L::LEN];
            // SAFETY: there are four floats in the last row; a column is as long as a vector.
            unsafe {
                let columns = L::load_columns(values.as_ptr(), row);
                for (column, to) in columns.into_iter().zip(all.chunks_exact_mut(L::LEN)) {
                    column.store_apart(to.as_mut_ptr(), 8);
                }
            }
            all
        }
        (self.narrow, self.wide) = (columns::<I::V>(self.row), columns::<I::Wide>(self.row));
    }
}

#[test]
fn columns_of_every_level_are_those_of_the_matrix() {
    for (level, row) in Level::all().into_iter().flat_map(|level| [4, 9, 100].map(|row| (level, row))) {
        let mut columns = Columns { row, narrow: Vec::new(), wide: Vec::new() };
        run(level, &mut columns);
        let expected =
            |lanes: usize| -> Vec<f32> { (0..4).flat_map(|j| (0..lanes).map(move |i| (i * row + j) as f32)).collect() };
        assert_eq!(columns.narrow, expected(8), "{level:?}");
        assert_eq!(columns.wide, expected(if level.is_wide() { 16 } else { 8 }), "{level:?}");
    }
}

struct Shuffles(Vec<f32>);

impl Piece for &mut Shuffles {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
        // SAFETY: 64 values are 8 rows of 8.
        let rows = std::array::from_fn(|i| unsafe { I::V::load(values[8 * i..8 * i + 8].as_ptr()) });
        let columns = I::V::transpose(rows);
        let (even, odd) = I::V::split(rows[0], rows[1]);
        let (low, high) = I::V::join(even, odd);
        let all = columns.into_iter().chain([even, odd, low, high]);
        self.0 = vec![0.; 12 * 8];
        // SAFETY: as above.
        all.zip(self.0.chunks_exact_mut(8)).for_each(|(vector, to)| unsafe { vector.store(to.as_mut_ptr()) });
    }
}

struct Joined(Vec<f32>);

impl Piece for &mut Joined {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let len = I::Wide::LEN;
        let halves: Vec<f32> = (0..2 * len).map(|i| (2 * (i % len) + i / len) as f32).collect();
        self.0 = vec![0.; 2 * len];
        // SAFETY: both vectors have two vectors' floats.
        unsafe {
            let [even, odd] = [0, len].map(|at| I::Wide::load_apart(halves[at..].as_ptr(), 8));
            let (first, second) = I::Wide::join(even, odd);
            first.store_apart(self.0.as_mut_ptr(), 8);
            second.store_apart(self.0[len..].as_mut_ptr(), 8);
        }
    }
}

#[test]
fn wide_vectors_of_every_level_join_even_and_odd() {
    for level in Level::all() {
        let mut joined = Joined(Vec::new());
        run(level, &mut joined);
        let expected: Vec<f32> = (0..joined.0.len()).map(|i| i as f32).collect();
        assert_eq!(joined.0, expected, "{level:?}");
    }
}

#[test]
fn vectors_of_every_level_shuffle_alike() {
    let of = |level| {
        let mut shuffles = Shuffles(Vec::new());
        run(level, &mut shuffles);
        shuffles.0
    };
    let plain = of(Level::Portable);
    assert_eq!(plain[..3], [0., 8., 16.]);
    assert_eq!(plain[64..68], [0., 2., 4., 6.]);
    assert_eq!(plain[72..76], [1., 3., 5., 7.]);
    assert_eq!(plain[80..96], (0..16).map(|i| i as f32).collect::<Vec<_>>());
    for level in Level::all() {
        assert_eq!(of(level), plain, "{level:?}");
    }
}

struct Totals([f32; PANEL]);

impl Piece for &mut Totals {
    #[inline(always)]
    fn run<I: Isa>(self) {
        // Numbers of which each order of adding up has other bits.
        let rows = std::array::from_fn(|i| std::array::from_fn(|j| 1. / (1 + i * PANEL + j) as f32));
        self.0 = I::totals(&rows);
    }
}

#[test]
fn totals_of_every_level_have_the_same_bits() {
    let of = |level| {
        let mut totals = Totals([0.; PANEL]);
        run(level, &mut totals);
        totals.0.map(f32::to_bits)
    };
    let plain = of(Level::Portable);
    for (i, total) in plain.map(f32::from_bits).into_iter().enumerate() {
        let exact: f64 = (0..PANEL).map(|j| 1. / (1 + i * PANEL + j) as f64).sum();
        assert!((f64::from(total) / exact - 1.).abs() < 2e-7, "row {i}: {total}");
    }
    for level in Level::all() {
        assert_eq!(of(level), plain, "{level:?}");
    }
}
