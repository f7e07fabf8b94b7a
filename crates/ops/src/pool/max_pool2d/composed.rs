//! Max-pooling as a tournament between the pixels of a window, in row order.

use candle_core::{Result, Tensor};

use crate::taps;

pub(super) fn max_pool2d(x: &Tensor, kernel: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let size = (h / kernel, w / kernel);
    // Taps reach up to kernel - 1 pixels behind the last window, and never use what they find there.
    let image = taps::pad(x, (0, kernel - 1), (0, kernel - 1))?;
    let mut best = taps::tap(&image, (0, 0), (kernel, kernel), size)?;
    for tap in 1..kernel * kernel {
        let rival = taps::tap(&image, (tap / kernel, tap % kernel), (kernel, kernel), size)?;
        // `>` lets the first of equals win. A NaN always wins, and differs from itself.
        let wins = (rival.gt(&best)? + rival.ne(&rival)?)?;
        best = wins.where_cond(&rival, &best)?;
    }
    Ok(best)
}
