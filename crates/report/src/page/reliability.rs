//! Reliability diagrams (Guo et al. 2017, figure 1): how often pixels are right that are so and so sure.

use std::fmt::Write;

use crate::chart::{AXIS, GRID, LETTERS, PALETTE, hex};
use crate::run::Calibration;

/// The side of the square that is drawn in, and what is left around it, in CSS pixels.
const SIDE: f64 = 240.0;
const LEFT: f64 = 66.0;
const TOP: f64 = 10.0;
const BELOW: f64 = 44.0;

/// A bar a bin, as high as its accuracy and as dark as its share of the pixels; a dot at its mean confidence and accuracy. On the diagonal a
/// network is right as often as it is sure.
pub(crate) fn reliability_svg(calibration: &Calibration, series: usize) -> String {
    let color = hex(PALETTE[series % PALETTE.len()].0);
    let (width, height) = (LEFT + SIDE + 26.0, TOP + SIDE + BELOW);
    let x = |share: f64| LEFT + SIDE * share.clamp(0.0, 1.0);
    let y = |share: f64| TOP + SIDE * (1.0 - share.clamp(0.0, 1.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n"
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (grid, letters) = (hex(GRID), hex(LETTERS));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\" stroke=\"{grid}\"/>\
             <text x=\"{2}\" y=\"{3}\" text-anchor=\"end\" font-size=\"12\" fill=\"{letters}\">{4} %</text>\
             <text x=\"{5}\" y=\"{6}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{letters}\">{4} %</text>",
            y(tick),
            x(1.0),
            LEFT - 6.0,
            y(tick) + 4.0,
            100.0 * tick,
            x(tick),
            TOP + SIDE + 18.0,
        );
    }
    let most = calibration.bins.iter().map(|bin| bin.pixels).max().unwrap_or(0).max(1) as f64;
    let wide = 1.0 / calibration.bins.len().max(1) as f64;
    for (index, bin) in calibration.bins.iter().enumerate() {
        let (Some(accuracy), Some(confidence)) = (bin.accuracy, bin.confidence) else { continue };
        // Bins of very few pixels stay in sight.
        let opacity = 0.15 + 0.75 * (bin.pixels as f64 / most).sqrt();
        let (left, top) = (x(index as f64 * wide), y(accuracy));
        let _ = writeln!(
            svg,
            "<rect x=\"{:.2}\" y=\"{top:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{color}\" fill-opacity=\"{opacity:.2}\"/>\
             <circle cx=\"{:.2}\" cy=\"{top:.2}\" r=\"3\" fill=\"{color}\"/>",
            left + 0.5,
            (SIDE * wide - 1.0).max(0.5),
            TOP + SIDE - top,
            x(confidence),
        );
    }
    let (axis, letters) = (hex(AXIS), hex(LETTERS));
    let _ = writeln!(
        svg,
        "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{3}\" stroke=\"{letters}\" stroke-dasharray=\"4 4\"/>\
         <line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{1}\" stroke=\"{axis}\"/>\
         <text x=\"{4}\" y=\"{5}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{letters}\">confidence</text>\
         <text x=\"12\" y=\"{6}\" text-anchor=\"middle\" font-size=\"12\" fill=\"{letters}\" transform=\"rotate(-90 12 {6})\">accuracy</text>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0),
        x(0.5),
        height - 8.0,
        y(0.5),
    );
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ReliabilityBin;

    #[test]
    fn bars_are_as_high_as_bins_are_right() {
        let bin = |pixels, value| ReliabilityBin { pixels, confidence: Some(value), accuracy: Some(0.5) };
        let empty = ReliabilityBin { pixels: 0, confidence: None, accuracy: None };
        let bins = vec![empty, bin(100, 0.4), empty, bin(1, 0.9)];
        let svg = reliability_svg(&Calibration { expected_error: Some(0.1), bins }, 0);
        assert_eq!((svg.matches("<rect").count(), svg.matches("<circle").count()), (2, 2));
        assert_eq!(svg.matches("height=\"120.00\"").count(), 2, "half of 240: {svg}");
        assert!(svg.contains("cx=\"162.00\"") && svg.contains("fill-opacity=\"0.90\""), "{svg}");
        // Numbers beyond the diagram stay in it.
        let wild = ReliabilityBin { pixels: u64::MAX, confidence: Some(-1e300), accuracy: Some(1e300) };
        let svg = reliability_svg(&Calibration { expected_error: None, bins: vec![wild] }, 9);
        assert!(svg.contains("height=\"240.00\"") && !svg.contains("NaN"), "{svg}");
    }
}
