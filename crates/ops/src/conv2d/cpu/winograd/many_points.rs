//! The transforms of seven and eight points. Each evaluates a polynomial at the points, or does the adjoint of that.
#![allow(clippy::inline_always, reason = "only what is inlined into the entry of a level is compiled for it")]
#![allow(clippy::needless_range_loop, reason = "closures would not be compiled for the level")]

use super::transform::{F4x3, LARGEST, Transform, Values};
use crate::kernel::Lanes;

/// Three taps, six results, eight products.
pub(super) struct F6x3;

/// Four taps, five results, eight products.
pub(super) struct F5x4;

/// Four taps, four results, seven products.
pub(super) struct F4x4;

/// The even powers of a polynomial of `count` coefficients (`odd` 0), or the odd ones less one x (`odd` 1).
#[inline(always)]
fn powers<V: Lanes>(c: &Values<V>, count: usize, odd: usize, square: f32) -> V {
    let mut at = (count - 1 - odd) / 2 * 2 + odd;
    let mut sum = c[at];
    while at >= 2 {
        at -= 2;
        sum = sum.mul_add(square, c[at]);
    }
    sum
}

/// A polynomial's values at x and -x, from its even powers and its odd ones less one x.
#[inline(always)]
fn pair<V: Lanes>(even: V, odd: V, x: f32) -> (V, V) {
    (odd.mul_add(x, even), odd.mul_add(-x, even))
}

#[inline(always)]
fn at_pair<V: Lanes>(c: &Values<V>, count: usize, x: f32) -> (V, V) {
    pair(powers(c, count, 0, x * x), powers(c, count, 1, x * x), x)
}

/// What a polynomial of `count` coefficients is worth at 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.
#[inline(always)]
fn evaluate<V: Lanes>(c: &Values<V>, count: usize) -> Values<V> {
    let (one, two, half) = (at_pair(c, count, 1.), at_pair(c, count, 2.), at_pair(c, count, 0.5));
    [c[0], one.0, one.1, two.0, two.1, half.0, half.1, c[count - 1]]
}

/// The adjoint of [`evaluate`].
#[inline(always)]
fn gather<V: Lanes>(
    [zero, one, minus_one, two, minus_two, half, minus_half, last]: Values<V>,
    count: usize,
) -> Values<V> {
    let even = [one.add(minus_one), two.add(minus_two), half.add(minus_half)];
    let odd = [one.sub(minus_one), two.sub(minus_two), half.sub(minus_half)];
    let mut coefficients = [V::splat(0.); LARGEST];
    let mut power = 1.;
    for k in 0..count {
        let [one, two, half] = if k % 2 == 0 { even } else { odd };
        coefficients[k] = half.mul_add(1. / power, two.mul_add(power, one));
        power *= 2.;
    }
    coefficients[0] = coefficients[0].add(zero);
    coefficients[count - 1] = coefficients[count - 1].add(last);
    coefficients
}

#[inline(always)]
fn scale<V: Lanes>(mut values: Values<V>, factors: [f32; LARGEST]) -> Values<V> {
    for i in 0..LARGEST {
        values[i] = values[i].mul(V::splat(factors[i]));
    }
    values
}

/// The products of `x - point` over all points but one, for each one: for the pairs, x and the two of x^2 - 1, x^2 - 4 and x^2 - 1/4 that
/// are not theirs, times x + point.
#[inline(always)]
fn products<V: Lanes>([a, b, c, d, e, f, g, h]: Values<V>) -> Values<V> {
    let one = pair(e.mul_add(-4.25, c.add(g)), d.mul_add(-4.25, b.add(f)), 1.);
    let two = pair(c.mul_add(0.25, e.mul_add(-1.25, g)), b.mul_add(0.25, d.mul_add(-1.25, f)), 2.);
    let half = pair(c.mul_add(4., e.mul_add(-5., g)), b.mul_add(4., d.mul_add(-5., f)), 0.5);
    let (zero, last) = (e.sub(c).mul_add(5.25, a.sub(g)), d.sub(f).mul_add(5.25, h.sub(b)));
    [zero, one.0, one.1, two.0, two.1, half.0, half.1, last]
}

/// The adjoint of [`products`].
#[inline(always)]
fn products_adjoint<V: Lanes>([zero, one, minus_one, two, minus_two, half, minus_half, last]: Values<V>) -> Values<V> {
    let (even, odd) = (one.add(minus_one), one.sub(minus_one));
    let (even2, odd2) = (two.add(minus_two), two.sub(minus_two).mul(V::splat(2.)));
    let (even_half, odd_half) = (half.add(minus_half), half.sub(minus_half).mul(V::splat(0.5)));
    [
        zero,
        odd2.mul_add(0.25, odd_half.mul_add(4., odd.sub(last))),
        zero.mul_add(-5.25, even2.mul_add(0.25, even_half.mul_add(4., even))),
        odd.mul_add(-4.25, odd2.mul_add(-1.25, odd_half.mul_add(-5., last.mul(V::splat(5.25))))),
        even.mul_add(-4.25, even2.mul_add(-1.25, even_half.mul_add(-5., zero.mul(V::splat(5.25))))),
        last.mul_add(-5.25, odd.add(odd2).add(odd_half)),
        even.add(even2).add(even_half).sub(zero),
        last,
    ]
}

/// Divides by the products of a point's differences to all others.
#[inline(always)]
fn divide<V: Lanes>(values: Values<V>) -> Values<V> {
    scale(values, [1., -2. / 9., -2. / 9., 1. / 90., 1. / 90., 32. / 45., 32. / 45., 1.])
}

/// Many tiles share a kernel: what is divided goes there.
impl Transform for F6x3 {
    const RESULTS: usize = 6;
    const TAPS: usize = 3;
    const POINTS: usize = 8;

    #[inline(always)]
    fn input<V: Lanes>(x: Values<V>) -> Values<V> {
        products(x)
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>(p: Values<V>) -> Values<V> {
        products_adjoint(p)
    }

    #[inline(always)]
    fn kernel<V: Lanes>(w: Values<V>) -> Values<V> {
        divide(evaluate(&w, 3))
    }

    #[inline(always)]
    fn output<V: Lanes>(m: Values<V>) -> Values<V> {
        gather(m, 6)
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>(y: Values<V>) -> Values<V> {
        evaluate(&y, 6)
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>(u: Values<V>) -> Values<V> {
        gather(divide(u), 3)
    }
}

impl Transform for F5x4 {
    const RESULTS: usize = 5;
    const TAPS: usize = 4;
    const POINTS: usize = 8;

    #[inline(always)]
    fn input<V: Lanes>(x: Values<V>) -> Values<V> {
        divide(products(x))
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>(p: Values<V>) -> Values<V> {
        products_adjoint(divide(p))
    }

    #[inline(always)]
    fn kernel<V: Lanes>(w: Values<V>) -> Values<V> {
        evaluate(&w, 4)
    }

    #[inline(always)]
    fn output<V: Lanes>(m: Values<V>) -> Values<V> {
        gather(m, 5)
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>(y: Values<V>) -> Values<V> {
        evaluate(&y, 5)
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>(u: Values<V>) -> Values<V> {
        gather(u, 4)
    }
}

impl F4x4 {
    /// [`evaluate`], without the point -1/2.
    #[inline(always)]
    fn evaluate<V: Lanes>(c: &Values<V>) -> Values<V> {
        let [zero, one, minus_one, two, minus_two, half, _, last] = evaluate(c, 4);
        [zero, one, minus_one, two, minus_two, half, last, V::splat(0.)]
    }

    #[inline(always)]
    fn gather<V: Lanes>([zero, one, minus_one, two, minus_two, half, last, _]: Values<V>) -> Values<V> {
        gather([zero, one, minus_one, two, minus_two, half, V::splat(0.), last], 4)
    }

    #[inline(always)]
    fn divide<V: Lanes>(values: Values<V>) -> Values<V> {
        scale(values, [-1. / 2., -1. / 3., 1. / 9., 1. / 36., -1. / 60., 32. / 45., 1., 1.])
    }
}

impl Transform for F4x4 {
    const RESULTS: usize = 4;
    const TAPS: usize = 4;
    const POINTS: usize = 7;

    /// The products of `x - point` over five points and infinity are those of F(4, 3), of which all but that of 1/2 take the factor
    /// `x - 1/2` besides.
    #[inline(always)]
    fn input<V: Lanes>([a, b, c, d, e, f, g, _]: Values<V>) -> Values<V> {
        let nothing = V::splat(0.);
        let of_half = b.mul_add(4., d.mul_add(-5., f));
        let (a, b, c) = (a.mul_add(-0.5, b), b.mul_add(-0.5, c), c.mul_add(-0.5, d));
        let (d, e, f) = (d.mul_add(-0.5, e), e.mul_add(-0.5, f), f.mul_add(-0.5, g));
        let [zero, one, minus_one, two, minus_two, last, ..] = F4x3::input([a, b, c, d, e, f, nothing, nothing]);
        Self::divide([zero, one, minus_one, two, minus_two, of_half, last, nothing])
    }

    #[inline(always)]
    fn input_adjoint<V: Lanes>(p: Values<V>) -> Values<V> {
        let nothing = V::splat(0.);
        let [zero, one, minus_one, two, minus_two, of_half, last, _] = Self::divide(p);
        let [a, b, c, d, e, f, ..] =
            F4x3::input_adjoint([zero, one, minus_one, two, minus_two, last, nothing, nothing]);
        [
            a.mul(V::splat(-0.5)),
            of_half.mul_add(4., b.mul_add(-0.5, a)),
            c.mul_add(-0.5, b),
            of_half.mul_add(-5., d.mul_add(-0.5, c)),
            e.mul_add(-0.5, d),
            of_half.add(f.mul_add(-0.5, e)),
            f,
            nothing,
        ]
    }

    #[inline(always)]
    fn kernel<V: Lanes>(w: Values<V>) -> Values<V> {
        Self::evaluate(&w)
    }

    #[inline(always)]
    fn output<V: Lanes>(m: Values<V>) -> Values<V> {
        Self::gather(m)
    }

    #[inline(always)]
    fn output_adjoint<V: Lanes>(y: Values<V>) -> Values<V> {
        Self::evaluate(&y)
    }

    #[inline(always)]
    fn kernel_adjoint<V: Lanes>(u: Values<V>) -> Values<V> {
        Self::gather(u)
    }
}
