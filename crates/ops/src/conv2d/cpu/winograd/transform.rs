//! The transforms of Winograd's minimal filtering F(m x m, r x r): `y = A^T ((G w G^T) . (B^T x B)) A` (Lavin and Gray
//! 2016, section 4), one direction at a time. The matrices are those of Toom and Cook with the points 0, 1, -1, 2, -2, 1/2, -1/2
//! and infinity, as many as it takes.
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]

use std::marker::PhantomData;

use crate::kernel::Lanes;

/// The largest `m + r - 1`; smaller transforms leave the rest of an array alone.
pub(super) const LARGEST: usize = 8;

pub(super) type Values<V> = [V; LARGEST];

/// One F(m, r).
pub(super) trait Transform {
    /// m: results of one tile along one direction.
    const RESULTS: usize;
    /// r: taps of the kernel along one direction.
    const TAPS: usize;
    /// `m + r - 1`: values that a tile sees, and products that it takes.
    const POINTS: usize;

    /// `B^T`, from points to points.
    fn input<V: Lanes>(x: Values<V>) -> Values<V>;
    /// `B`, from points to points.
    fn input_adjoint<V: Lanes>(p: Values<V>) -> Values<V>;
    /// `G`, from taps to points.
    fn kernel<V: Lanes>(w: Values<V>) -> Values<V>;
    /// `A^T`, from points to results.
    fn output<V: Lanes>(m: Values<V>) -> Values<V>;
    /// `A`, from results to points.
    fn output_adjoint<V: Lanes>(y: Values<V>) -> Values<V>;
    /// `G^T`, from points to taps.
    fn kernel_adjoint<V: Lanes>(u: Values<V>) -> Values<V>;
}

/// Three taps, four results, six products.
pub(super) struct F4x3;

impl Transform for F4x3 {
    const RESULTS: usize = 4;
    const TAPS: usize = 3;
    const POINTS: usize = 6;

    #[inline(always)]
    fn input<V: Lanes>([a, b, c, d, e, f, ..]: Values<V>) -> Values<V> {
        let (even, odd) = (c.mul_add(-4., e), b.mul_add(-4., d));
        let (even2, odd2, zero) = (e.sub(c), d.sub(b), V::splat(0.));
        [
            a.mul_add(4., c.mul_add(-5., e)),
            even.add(odd),
            even.sub(odd),
            odd2.mul_add(2., even2),
            odd2.mul_add(-2., even2),
            b.mul_add(4., d.mul_add(-5., f)),
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>([a, b, c, d, e, f, ..]: Values<V>) -> Values<V> {
        let (sum, difference, sum2, difference2) = (b.add(c), b.sub(c), d.add(e), d.sub(e));
        let zero = V::splat(0.);
        [
            a.mul(V::splat(4.)),
            difference.mul_add(-4., difference2.mul_add(-2., f.mul(V::splat(4.)))),
            a.mul_add(-5., sum.mul_add(-4., zero.sub(sum2))),
            f.mul_add(-5., difference2.mul_add(2., difference)),
            a.add(sum).add(sum2),
            f,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn kernel<V: Lanes>([a, b, c, ..]: Values<V>) -> Values<V> {
        let outer = a.add(c).mul(V::splat(-1. / 6.));
        let outer2 = a.mul_add(1. / 24., c.mul(V::splat(1. / 6.)));
        let zero = V::splat(0.);
        [
            a.mul(V::splat(0.25)),
            b.mul_add(-1. / 6., outer),
            b.mul_add(1. / 6., outer),
            b.mul_add(1. / 12., outer2),
            b.mul_add(-1. / 12., outer2),
            c,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn output<V: Lanes>([a, b, c, d, e, f, ..]: Values<V>) -> Values<V> {
        let (sum, difference, sum2, difference2) = (b.add(c), b.sub(c), d.add(e), d.sub(e));
        let zero = V::splat(0.);
        [
            a.add(sum).add(sum2),
            difference2.mul_add(2., difference),
            sum2.mul_add(4., sum),
            difference2.mul_add(8., difference).add(f),
            zero,
            zero,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>([a, b, c, d, ..]: Values<V>) -> Values<V> {
        let (even, odd) = (a.add(c), b.add(d));
        let (even2, odd2, zero) = (c.mul_add(4., a), d.mul_add(4., b), V::splat(0.));
        [a, even.add(odd), even.sub(odd), odd2.mul_add(2., even2), odd2.mul_add(-2., even2), d, zero, zero]
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>([a, b, c, d, e, f, ..]: Values<V>) -> Values<V> {
        let (sum, difference, sum2, difference2) = (b.add(c), c.sub(b), d.add(e), d.sub(e));
        let (sum, zero) = (sum.mul(V::splat(-1. / 6.)), V::splat(0.));
        [
            a.mul_add(0.25, sum2.mul_add(1. / 24., sum)),
            difference.mul_add(1. / 6., difference2.mul(V::splat(1. / 12.))),
            sum2.mul_add(1. / 6., sum).add(f),
            zero,
            zero,
            zero,
            zero,
            zero,
        ]
    }
}

/// Two taps, four results, five products.
pub(super) struct F4x2;

impl Transform for F4x2 {
    const RESULTS: usize = 4;
    const TAPS: usize = 2;
    const POINTS: usize = 5;

    #[inline(always)]
    fn input<V: Lanes>([a, b, c, d, e, ..]: Values<V>) -> Values<V> {
        let (rise, zero) = (d.sub(b), V::splat(0.));
        [
            rise.mul_add(0.5, a.sub(c)),
            c.sub(d).mul_add(0.5, b),
            c.mul_add(-0.5, rise.mul_add(1. / 6., b.mul(V::splat(0.5)))),
            rise.mul(V::splat(1. / 6.)),
            rise.mul_add(-2., e.sub(c)),
            zero,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>([a, b, c, d, e, ..]: Values<V>) -> Values<V> {
        let zero = V::splat(0.);
        let rise = a.mul_add(0.5, c.add(d).mul_add(1. / 6., e.mul(V::splat(-2.))));
        [
            a,
            c.mul_add(0.5, b.sub(rise)),
            b.sub(c).mul_add(0.5, zero.sub(a).sub(e)),
            b.mul_add(-0.5, rise),
            e,
            zero,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn kernel<V: Lanes>([a, b, ..]: Values<V>) -> Values<V> {
        let zero = V::splat(0.);
        [a, a.add(b), b.sub(a), b.mul_add(2., a), b, zero, zero, zero]
    }

    #[inline(always)]
    fn output<V: Lanes>([a, b, c, d, e, ..]: Values<V>) -> Values<V> {
        let (sum, difference, zero) = (b.add(c), b.sub(c), V::splat(0.));
        let last = d.mul_add(8., difference).add(e);
        [a.add(sum).add(d), d.mul_add(2., difference), d.mul_add(4., sum), last, zero, zero, zero, zero]
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>([a, b, c, d, ..]: Values<V>) -> Values<V> {
        let (even, odd) = (a.add(c), b.add(d));
        let (odd2, zero) = (d.mul_add(4., b), V::splat(0.));
        [a, even.add(odd), even.sub(odd), odd2.mul_add(2., c.mul_add(4., a)), d, zero, zero, zero]
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>([a, b, c, d, e, ..]: Values<V>) -> Values<V> {
        let (zero, inner) = (V::splat(0.), b.add(d));
        let (first, last) = (inner.add(a.sub(c)), inner.add(c.add(d.add(e))));
        [first, last, zero, zero, zero, zero, zero, zero]
    }
}

/// Two taps, three results, four products.
pub(super) struct F3x2;

impl Transform for F3x2 {
    const RESULTS: usize = 3;
    const TAPS: usize = 2;
    const POINTS: usize = 4;

    #[inline(always)]
    fn input<V: Lanes>([a, b, c, d, ..]: Values<V>) -> Values<V> {
        let (half, zero) = (c.mul(V::splat(0.5)), V::splat(0.));
        [a.sub(c), b.mul_add(0.5, half), b.mul_add(-0.5, half), d.sub(b), zero, zero, zero, zero]
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>([a, b, c, d, ..]: Values<V>) -> Values<V> {
        let zero = V::splat(0.);
        [a, b.sub(c).mul_add(0.5, zero.sub(d)), b.add(c).mul_add(0.5, zero.sub(a)), d, zero, zero, zero, zero]
    }

    #[inline(always)]
    fn kernel<V: Lanes>([a, b, ..]: Values<V>) -> Values<V> {
        let zero = V::splat(0.);
        [a, a.add(b), a.sub(b), b, zero, zero, zero, zero]
    }

    #[inline(always)]
    fn output<V: Lanes>([a, b, c, d, ..]: Values<V>) -> Values<V> {
        let (sum, zero) = (b.add(c), V::splat(0.));
        [a.add(sum), b.sub(c), sum.add(d), zero, zero, zero, zero, zero]
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>([a, b, c, ..]: Values<V>) -> Values<V> {
        let (even, zero) = (a.add(c), V::splat(0.));
        [a, even.add(b), even.sub(b), c, zero, zero, zero, zero]
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>([a, b, c, d, ..]: Values<V>) -> Values<V> {
        let zero = V::splat(0.);
        [b.add(c).add(a), b.sub(c).add(d), zero, zero, zero, zero, zero, zero]
    }
}

/// One tap, one result: a plain matrix product over the channels.
pub(super) struct F1x1;

impl Transform for F1x1 {
    const RESULTS: usize = 1;
    const TAPS: usize = 1;
    const POINTS: usize = 1;

    #[inline(always)]
    fn input<V: Lanes>(x: Values<V>) -> Values<V> {
        x
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>(p: Values<V>) -> Values<V> {
        p
    }

    #[inline(always)]
    fn kernel<V: Lanes>(w: Values<V>) -> Values<V> {
        w
    }

    #[inline(always)]
    fn output<V: Lanes>(m: Values<V>) -> Values<V> {
        m
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>(y: Values<V>) -> Values<V> {
        y
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>(u: Values<V>) -> Values<V> {
        u
    }
}

/// One of a transform's matrices.
pub(super) trait Matrix {
    const COLUMNS: usize;
    const ROWS: usize;

    fn apply<V: Lanes>(x: Values<V>) -> Values<V>;
}

macro_rules! matrices {
    ($($name:ident: $method:ident, $columns:ident to $rows:ident;)*) => {$(
        pub(super) struct $name<T>(PhantomData<T>);

        impl<T: Transform> Matrix for $name<T> {
            const COLUMNS: usize = T::$columns;
            const ROWS: usize = T::$rows;

            #[inline(always)]
            fn apply<V: Lanes>(x: Values<V>) -> Values<V> {
                T::$method(x)
            }
        }
    )*};
}

matrices! {
    Input: input, POINTS to POINTS;
    InputAdjoint: input_adjoint, POINTS to POINTS;
    Taps: kernel, TAPS to POINTS;
    Output: output, POINTS to RESULTS;
    OutputAdjoint: output_adjoint, RESULTS to POINTS;
    TapsAdjoint: kernel_adjoint, POINTS to TAPS;
}

#[cfg(test)]
mod tests {
    use super::super::many_points::{F4x4, F5x4, F6x3};
    use super::*;

    type Plain = [f32; 8];

    fn values(numbers: &[f32]) -> Values<Plain> {
        std::array::from_fn(|i| [numbers.get(i).copied().unwrap_or(0.); 8])
    }

    fn first(values: Values<Plain>) -> [f64; LARGEST] {
        values.map(|v| f64::from(v[0]))
    }

    /// What the transforms compute along one direction, and that their adjoints are adjoint.
    fn check<T: Transform>() {
        let x = [3., -1., 4., 1., -5., 9., -2., 6.];
        let w = [2., 7., -1., 8.];
        let (x, w) = (&x[..T::POINTS], &w[..T::TAPS]);
        let [points, taps] = [T::input(values(x)), T::kernel(values(w))].map(first);
        let products: Vec<f32> = points.iter().zip(taps).map(|(a, b)| (a * b) as f32).collect();
        let y = first(T::output(values(&products)));
        for (i, y) in y.iter().enumerate().take(T::RESULTS) {
            let expected: f64 = w.iter().enumerate().map(|(k, w)| f64::from(w * x[i + k])).sum();
            assert!((y - expected).abs() < 1e-4, "result {i} of {}: {y}, not {expected}", T::RESULTS);
        }
        let dot = |a: [f64; LARGEST], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
        let given = &x[..T::RESULTS];
        let [forth, back] = [first(T::output(values(&products))), first(T::output_adjoint(values(given)))];
        assert!((dot(forth, given) - dot(back, &products[..T::POINTS])).abs() < 1e-2);
        let z = [7., 2., -3., 6., 1., -4., 8., 5.];
        let [forth, back] = [first(T::input(values(x))), first(T::input_adjoint(values(&z[..T::POINTS])))];
        assert!((dot(forth, &z[..T::POINTS]) - dot(back, x)).abs() < 1e-3, "B of {} results", T::RESULTS);
        let [forth, back] = [first(T::kernel(values(w))), first(T::kernel_adjoint(values(x)))];
        assert!((dot(forth, x) - dot(back, w)).abs() < 1e-4);
    }

    #[test]
    fn transforms_correlate() {
        check::<F6x3>();
        check::<F5x4>();
        check::<F4x4>();
        check::<F4x3>();
        check::<F4x2>();
        check::<F3x2>();
        check::<F1x1>();
    }
}
