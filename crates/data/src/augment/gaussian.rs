//! The bell curve from exactly rounded operations alone, so that blur and noise are the same on every machine.

/// Halvings of the exponent before the series, and squarings after it.
const HALVINGS: i32 = 10;

/// e^(-x^2 / 2) with a relative error below 1e-12; 0 from |x| = 37 on, and for NaN.
pub(super) fn bell(x: f64) -> f64 {
    if x.is_nan() || x.abs() >= 37.0 {
        return 0.0;
    }
    let exponent = -0.5 * x * x; // above -684.5
    let small = exponent / f64::from(1 << HALVINGS); // in (-0.67, 0]
    // Taylor's series: its term 16 is below 2^-53.
    let series = (1..=16).rev().fold(1.0, |sum, k| 1.0 + small * sum / f64::from(k));
    (0..HALVINGS).fold(series, |power, _| power * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_system() {
        for x in [0.0, 1e-9, 0.1, 0.5, 1.0, 2.0, 3.5, 8.0, 20.0, 36.9] {
            let expected = f64::exp(-0.5 * x * x);
            assert!((bell(x) - expected).abs() <= 1e-12 * expected, "{x}");
            assert_eq!(bell(-x).to_bits(), bell(x).to_bits());
        }
        assert!([37.0, f64::INFINITY, f64::NAN].iter().all(|&x| bell(x) == 0.0));
    }
}
