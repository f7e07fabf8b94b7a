use candle_core::{Error, Result};

/// Refuses an image unless both its sides are multiples of `step` and at least `least`, itself a multiple of `step`. The error
/// names the nearest smaller and larger size that would do.
pub(crate) fn check(network: &str, height: usize, width: usize, step: usize, least: usize) -> Result<()> {
    let fits = |side: usize| side >= least && side.is_multiple_of(step);
    if fits(height) && fits(width) {
        return Ok(());
    }
    let below = |side: usize| least.max(side / step * step);
    let above = |side: usize| least.max(side.div_ceil(step) * step);
    let smaller = format!("{}x{}", below(width), below(height));
    let larger = format!("{}x{}", above(width), above(height));
    let nearest =
        if smaller == larger { format!("size is {larger}") } else { format!("sizes are {smaller} and {larger}") };
    let multiples = if step > 1 { format!("multiples of {step}, ") } else { String::new() };
    Err(Error::Msg(format!(
        "{width}x{height} image: {network} takes sides that are {multiples}at least {least}: the nearest {nearest}"
    )))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn multiples_from_the_least_on_are_taken() {
        for (height, width) in [(64, 64), (64, 80), (1024, 2048)] {
            assert!(check("the network", height, width, 16, 64).is_ok());
        }
    }

    #[test]
    fn other_sizes_are_refused_with_the_nearest() {
        let refusal = |height, width, step, least| check("U-Net", height, width, step, least).unwrap_err().to_string();
        assert_eq!(
            refusal(300, 500, 16, 16),
            "500x300 image: U-Net takes sides that are multiples of 16, at least 16: \
             the nearest sizes are 496x288 and 512x304"
        );
        assert!(refusal(32, 72, 16, 64).ends_with("the nearest sizes are 64x64 and 80x64"));
        assert!(refusal(0, 16, 16, 16).ends_with("the nearest size is 16x16"));
        assert_eq!(
            refusal(10, 100, 1, 64),
            "100x10 image: U-Net takes sides that are at least 64: the nearest size is 100x64"
        );
    }
}
