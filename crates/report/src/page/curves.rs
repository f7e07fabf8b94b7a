//! How losses and scores went.

use std::collections::BTreeSet;

use super::Column;
use crate::ReportError;
use crate::chart::{Chart, Line, Stroke, Width};
use crate::run::{Epoch, Run, Scores};

/// A chart with what a reader needs beside it.
pub(super) struct Figure {
    pub(super) title: String,
    chart: Chart,
    pub(super) legend: Vec<Entry>,
    pub(super) note: String,
}

impl Figure {
    /// The chart as an SVG element, to stand in rows of three or of two.
    pub(super) fn svg(&self, three: bool) -> Result<String, ReportError> {
        self.chart.svg(if three { Width::Third } else { Width::Half })
    }
}

pub(super) struct Entry {
    pub(super) series: usize,
    /// The class that draws it in the style sheet.
    pub(super) stroke: &'static str,
    pub(super) text: String,
}

/// More steps than this are drawn as the extremes of as many groups.
const RAW_GROUPS: usize = 300;
const SMOOTH_POINTS: usize = 300;
/// The smoothed line looks back over this share of all steps.
const SMOOTHING: f64 = 0.04;

/// One figure for each loss of each run: losses of different runs need not be of one kind.
pub(super) fn losses(columns: &[Column]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for column in columns {
        for name in names(column.run) {
            if let Some(mut figure) = loss(column, &name) {
                figure.title = if columns.len() > 1 { format!("{}: {name}", column.name) } else { titled(&name) };
                figures.push(figure);
            }
        }
    }
    figures
}

/// A loss's name as the title of its chart.
fn titled(name: &str) -> String {
    if name == "loss" { "Loss".to_owned() } else { format!("Loss: {name}") }
}

/// The losses of steps in the order of their file, then those known only from epochs.
fn names(run: &Run) -> Vec<String> {
    let mut names = run.losses.names.clone();
    let more: BTreeSet<&String> =
        run.metrics.iter().flat_map(|epoch| epoch.losses.train.keys().chain(epoch.losses.val.keys())).collect();
    names.extend(more.into_iter().filter(|name| !run.losses.names.contains(name)).cloned());
    names
}

fn loss(column: &Column, name: &str) -> Option<Figure> {
    let (run, series) = (column.run, column.series);
    let position = run.losses.names.iter().position(|known| known == name);
    let raw: Vec<(u32, f64)> = position.map_or_else(Vec::new, |index| {
        let points = run.losses.steps.iter().map(|step| (clamp(step.step), f64::from(step.values[index])));
        points.filter(|point| point.1.is_finite()).collect()
    });
    let span = (SMOOTHING * raw.len() as f64).round().max(1.0);
    let smooth = thinned(&smoothed(&raw, span), SMOOTH_POINTS);
    let of_epochs = |pick: fn(&Epoch) -> &std::collections::BTreeMap<String, Option<f64>>| -> Vec<(u32, f64)> {
        let points = run.metrics.iter().filter_map(|epoch| Some((clamp(epoch.step), (*pick(epoch).get(name)?)?)));
        points.filter(|point| point.1.abs() <= f64::from(f32::MAX)).collect() // plotters never ends where a span overflows
    };
    let val = of_epochs(|epoch| &epoch.losses.val);
    let train = if raw.is_empty() { of_epochs(|epoch| &epoch.losses.train) } else { smooth };

    let y = range(&raw, &[&train, &val])?;
    let x_end = raw.iter().chain(&train).chain(&val).map(|point| point.0).max().unwrap_or(1);
    let (mut legend, mut lines) = (Vec::new(), Vec::new());
    let light = if raw.is_empty() { "train, mean of an epoch" } else { "train, smoothed" };
    legend.push(Entry { series, stroke: "light", text: light.to_owned() });
    if !raw.is_empty() {
        legend.push(Entry { series, stroke: "faint", text: "train, every step".to_owned() });
        lines.push(Line { series, stroke: Stroke::Faint, points: extremes(&raw, RAW_GROUPS) });
    }
    lines.push(Line { series, stroke: Stroke::Light, points: train });
    if !val.is_empty() {
        legend.push(Entry { series, stroke: "dotted", text: "val, once an epoch".to_owned() });
        lines.push(Line { series, stroke: Stroke::Dotted, points: val });
    }
    let chart = Chart { x_label: "step", x_end, y, percent: false, lines, rings: Vec::new() };
    let left_out = position.map_or(0, |_| run.losses.steps.len() - raw.len());
    let note = match left_out {
        0 => String::new(),
        1 => "The loss of one step was not finite and is not drawn.".to_owned(),
        count => format!("The losses of {count} steps were not finite and are not drawn."),
    };
    Some(Figure { title: String::new(), chart, legend, note })
}

/// Pixel accuracy and mean IoU over epochs, all runs in one figure each.
pub(super) fn scores(columns: &[Column]) -> Vec<Figure> {
    let accuracy = score(columns, "Pixel accuracy", |scores| scores.pixel_accuracy);
    let iou = score(columns, "Mean IoU", |scores| scores.mean_iou);
    accuracy.into_iter().chain(iou).collect()
}

fn score(columns: &[Column], title: &str, pick: fn(&Scores) -> Option<f64>) -> Option<Figure> {
    let (mut lines, mut legend, mut rings, mut notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for column in columns {
        let series = column.series;
        let points = |scores: fn(&Epoch) -> &Option<Scores>| -> Vec<(u32, f64)> {
            let points = column.run.metrics.iter().filter_map(|epoch| {
                let value = pick(scores(epoch).as_ref()?)?;
                Some((clamp(epoch.epoch), 100.0 * value.clamp(0.0, 1.0)))
            });
            points.collect()
        };
        let run = if columns.len() > 1 { format!("{}, ", column.name) } else { String::new() };
        let train = points(|epoch| &epoch.train);
        if !train.is_empty() {
            legend.push(Entry { series, stroke: "light", text: format!("{run}train") });
            lines.push(Line { series, stroke: Stroke::Light, points: train });
        }
        let val = points(|epoch| &epoch.val);
        if let Some(best) = val.iter().copied().reduce(|best, point| if point.1 > best.1 { point } else { best }) {
            let highest = if columns.len() > 1 { format!("{run}highest") } else { "Highest".to_owned() };
            notes.push(format!("{highest} on val: {:.2} % after epoch {}", best.1, best.0));
            let checkpoint = column.evaluation.map(|evaluation| clamp(evaluation.epoch));
            rings.extend(val.iter().filter(|point| Some(point.0) == checkpoint).map(|&point| (series, point)));
            legend.push(Entry { series, stroke: "dotted", text: format!("{run}val") });
            lines.push(Line { series, stroke: Stroke::Dotted, points: val });
        }
    }
    let values: Vec<(u32, f64)> = lines.iter().flat_map(|line| line.points.iter().copied()).collect();
    if values.is_empty() {
        return None;
    }
    let (low, high) =
        values.iter().fold((100.0f64, 0.0f64), |(low, high), point| (low.min(point.1), high.max(point.1)));
    // Whole tens around the values.
    let (low, high) = ((low / 10.0).floor() * 10.0, ((high / 10.0).ceil() * 10.0).min(100.0));
    let y = if high - low < 20.0 { (high - 20.0).max(0.0)..high.max(20.0) } else { low..high };
    let x_end = values.iter().map(|point| point.0).max().unwrap_or(1);
    if !rings.is_empty() {
        notes.push("a ring marks the checkpoint that was evaluated".to_owned());
    }
    let chart = Chart { x_label: "epoch", x_end, y, percent: true, lines, rings };
    let note = if notes.is_empty() { String::new() } else { notes.join("; ") + "." };
    Some(Figure { title: title.to_owned(), chart, legend, note })
}

/// Epochs and steps of any real run fit; a count that does not is drawn at the end.
fn clamp(count: u64) -> u32 {
    count.min(1_000_000_000) as u32
}

/// The exponential moving average that weighs `span` values about equally, free of the pull towards its start.
fn smoothed(points: &[(u32, f64)], span: f64) -> Vec<(u32, f64)> {
    let keep = 1.0 - 2.0 / (span + 1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let averages = points.iter().map(|&(x, y)| {
        sum = keep * sum + (1.0 - keep) * y;
        weight = keep * weight + (1.0 - keep);
        (x, sum / weight)
    });
    averages.collect()
}

/// At most about `count` points, the last among them.
fn thinned(points: &[(u32, f64)], count: usize) -> Vec<(u32, f64)> {
    let stride = points.len().div_ceil(count).max(1);
    let mut thinned: Vec<_> = points.iter().copied().step_by(stride).collect();
    thinned.extend(points.last().filter(|last| thinned.last() != Some(last)).copied());
    thinned
}

/// The lowest and the highest point of each of `groups` groups, in their order; all points where that is fewer.
fn extremes(points: &[(u32, f64)], groups: usize) -> Vec<(u32, f64)> {
    if points.len() <= 2 * groups {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(2 * groups);
    for group in points.chunks(points.len().div_ceil(groups)) {
        let lowest = group.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let highest = group.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1));
        let (Some(lowest), Some(highest)) = (lowest, highest) else { continue };
        let (first, second) = if lowest.0 <= highest.0 { (lowest, highest) } else { (highest, lowest) };
        kept.push(*first.1);
        kept.push(*second.1);
    }
    kept
}

/// Wide enough for the means and for all but the wildest hundredth of the raw values; from 0 where that is near.
fn range(raw: &[(u32, f64)], means: &[&[(u32, f64)]]) -> Option<std::ops::Range<f64>> {
    let mut sorted: Vec<f64> = raw.iter().map(|point| point.1).collect();
    sorted.sort_by(f64::total_cmp);
    let inner = sorted.len() / 100..(sorted.len() - sorted.len() / 100);
    let values = sorted[inner].iter().copied().chain(means.iter().flat_map(|line| line.iter().map(|point| point.1)));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    if low > high {
        return None;
    }
    // Means of equal values differ by rounding; an axis over that would say nothing.
    let varied = high - low > 1e-6 * high.abs().max(low.abs()).max(1e-6);
    let margin = if varied { 0.05 * (high - low) } else { 0.5 * high.abs().max(1e-6) };
    let low = if low >= 0.0 && low < 0.4 * high { 0.0 } else { low - margin };
    Some(low..high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_starts_at_the_first_value_and_keeps_constants() {
        let steps = |values: &[f64]| -> Vec<(u32, f64)> { (1..).zip(values.iter().copied()).collect() };
        assert_eq!(smoothed(&steps(&[4.0, 4.0, 4.0]), 9.0).last().map(|point| point.1), Some(4.0));
        let raw = steps(&[3.0, 1.0, 2.0]);
        assert_eq!(smoothed(&raw, 1.0), raw);
        let average = smoothed(&raw, 3.0);
        assert_eq!(average[0], (1, 3.0));
        assert!((average[1].1 - 5.0 / 3.0).abs() < 1e-12, "{average:?}");
    }

    #[test]
    fn many_steps_keep_their_extremes() {
        let raw: Vec<(u32, f64)> = (0..10_000).map(|x| (x, if x == 5_003 { 9.0 } else { f64::from(x % 7) })).collect();
        let kept = extremes(&raw, 300);
        assert!(kept.len() <= 600 && kept.contains(&(5_003, 9.0)));
        assert!(kept.is_sorted_by_key(|point| point.0));
        assert_eq!(extremes(&raw[..600], 300), raw[..600]);
        assert_eq!(thinned(&raw, 300).last(), raw.last());
    }

    #[test]
    fn ranges_ignore_a_wild_step_and_start_at_zero_when_near() {
        let mut raw: Vec<(u32, f64)> = (0..500).map(|x| (x, 1.0 + f64::from(x % 10) / 10.0)).collect();
        raw[0].1 = 1e9;
        let y = range(&raw, &[]).unwrap();
        assert!(y.start > 0.8 && y.end < 2.2, "{y:?}");
        assert_eq!(range(&[(0, 0.1), (1, 1.0)], &[]).map(|y| y.start), Some(0.0));
        assert_eq!(range(&[], &[&[(1, 2.0)]]), Some(1.0..3.0));
        assert_eq!(range(&[(1, 2.0)], &[&[(1, 2.0 + 4e-16)]]).map(|y| y.end - y.start > 1.9), Some(true));
        assert_eq!(range(&[], &[&[]]), None);
    }
}
