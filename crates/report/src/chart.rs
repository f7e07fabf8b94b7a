//! Line charts as SVG.

use std::ops::Range;

use plotters::prelude::*;

use crate::ReportError;

/// The colour of a run in every figure: on light paper, and on dark paper (style sheet).
pub(crate) const PALETTE: [([u8; 3], &str); 6] = [
    ([37, 99, 199], "#7aa7f7"),
    ([205, 92, 8], "#f59a4a"),
    ([14, 131, 98], "#45c698"),
    ([134, 78, 189], "#bd94ea"),
    ([190, 48, 95], "#f27da4"),
    ([112, 98, 60], "#c9b886"),
];
/// Of letters; the style sheet replaces it on dark paper by the very value, as it does with the next two.
pub(crate) const LETTERS: [u8; 3] = [91, 100, 114];
pub(crate) const GRID: [u8; 3] = [228, 231, 235];
pub(crate) const AXIS: [u8; 3] = [176, 183, 193];

/// Plotters rounds coordinates to whole numbers: a quarter of a CSS pixel each.
const FINE: u32 = 4;

/// How wide a chart is on the page; letters are the same on paper whatever the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// Of two in a row.
    Half,
    /// Of three in a row.
    Third,
}

impl Width {
    /// Width, height and letters in CSS pixels.
    fn size(self) -> (u32, u32, u32) {
        match self {
            Self::Half => (480, 280, 14),
            Self::Third => (350, 240, 13),
        }
    }
}

/// A colour as the SVG backend writes it.
pub(crate) fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// Full, with a dot on every point while these are few.
    Dotted,
    /// Half as strong.
    Light,
    /// Barely there: what other lines are drawn over.
    Faint,
}

pub(crate) struct Line {
    /// Position in the palette.
    pub(crate) series: usize,
    pub(crate) stroke: Stroke,
    /// In ascending order; all finite.
    pub(crate) points: Vec<(u32, f64)>,
}

pub(crate) struct Chart {
    pub(crate) x_label: &'static str,
    /// The last x; the first is 0.
    pub(crate) x_end: u32,
    /// Not empty, both ends finite. What lies outside is drawn at the edge.
    pub(crate) y: Range<f64>,
    /// y counts in percent.
    pub(crate) percent: bool,
    pub(crate) lines: Vec<Line>,
    /// Points with a ring around them, by series.
    pub(crate) rings: Vec<(usize, (u32, f64))>,
}

impl Chart {
    /// The chart as an SVG element.
    pub(crate) fn svg(&self, width: Width) -> Result<String, ReportError> {
        let mut svg = String::new();
        self.draw(&mut svg, width).map_err(|error| ReportError::Encoding {
            what: format!("a chart over {}s", self.x_label),
            message: error.to_string(),
        })?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String, width: Width) -> Result<(), Box<dyn std::error::Error>> {
        let (width, height, letters) = width.size();
        let area = SVGBackend::with_string(svg, (width * FINE, height * FINE)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(10 * FINE)
            .margin_right(16 * FINE)
            .x_label_area_size(42 * FINE)
            .y_label_area_size(48 * FINE)
            .build_cartesian_2d(0..self.x_end.max(1), self.y.clone())?;
        let letters = ("sans-serif", letters * FINE).into_font().color(&rgb(LETTERS));
        // Room for one more digit than the ten or so grid lines need.
        let digits = (1.0 - (self.y.end - self.y.start).log10()).ceil().clamp(0.0, 9.0) as usize;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_max_light_lines(0)
            .x_labels(6)
            .y_labels(6)
            .bold_line_style(rgb(GRID).stroke_width(FINE))
            .axis_style(rgb(AXIS).stroke_width(FINE))
            .label_style(letters.clone())
            .x_desc(self.x_label)
            .axis_desc_style(letters)
            .x_label_formatter(&|&x| thousands(x))
            .y_label_formatter(&|&y| if self.percent { format!("{y:.0} %") } else { format!("{y:.digits$}") })
            .draw()?;
        for line in &self.lines {
            let color = rgb(PALETTE[line.series % PALETTE.len()].0);
            let (opacity, width) = match line.stroke {
                Stroke::Dotted => (1.0, 2 * FINE),
                Stroke::Light => (0.5, 2 * FINE),
                Stroke::Faint => (0.22, FINE),
            };
            let style = color.mix(opacity).stroke_width(width);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            if line.stroke == Stroke::Dotted && line.points.len() <= 60 {
                chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3 * FINE, color.filled())))?;
            }
        }
        for &(series, point) in &self.rings {
            let color = rgb(PALETTE[series % PALETTE.len()].0);
            chart.draw_series([Circle::new(point, 7 * FINE, color.stroke_width(2 * FINE))])?;
        }
        drop(chart);
        area.present()?;
        Ok(())
    }
}

fn rgb([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}

fn thousands(count: u32) -> String {
    if count >= 10_000 { format!("{}k", f64::from(count) / 1000.0) } else { count.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_lines_rings_and_labels() {
        let line = |stroke| Line { series: 1, stroke, points: vec![(1, 20.0), (2, 45.0)] };
        let chart = Chart {
            x_label: "epoch",
            x_end: 2,
            y: 0.0..50.0,
            percent: true,
            lines: vec![line(Stroke::Dotted), line(Stroke::Faint)],
            rings: vec![(1, (2, 45.0))],
        };
        let svg = chart.svg(Width::Half).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.matches(&hex(PALETTE[1].0)).count() >= 5, "{svg}");
        assert!(svg.contains("epoch") && svg.contains("40 %"), "{svg}");
        assert_eq!(svg, chart.svg(Width::Half).unwrap());
        assert_ne!(svg, chart.svg(Width::Third).unwrap());
    }

    #[test]
    fn one_point_and_no_point_are_charts_too() {
        for points in [vec![], vec![(0, 0.5)]] {
            let lines = vec![Line { series: 7, stroke: Stroke::Dotted, points }];
            let chart = Chart { x_label: "step", x_end: 0, y: 0.0..1e-3, percent: false, lines, rings: vec![] };
            assert!(chart.svg(Width::Half).unwrap().contains("step"));
        }
        let lines = vec![Line { series: 0, stroke: Stroke::Light, points: vec![(1_000_000_000, 3e38)] }];
        let huge =
            Chart { x_label: "step", x_end: 1_000_000_000, y: -1e30..3e38, percent: false, lines, rings: vec![] };
        assert!(huge.svg(Width::Third).is_ok());
        assert_eq!(thousands(9999), "9999");
        assert_eq!(thousands(12_500), "12.5k");
    }
}
