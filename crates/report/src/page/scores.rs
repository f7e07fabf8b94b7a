//! The tables: how well, and at what cost.

use super::{Column, shared_split};
use crate::run::{ColorAgreement, Run, Scores};
use crate::table::{Cell, NOTHING, Row, Table};

/// The scores of a run on one split.
pub(crate) struct Reading<'a> {
    pub(crate) scores: &'a Scores,
    /// Which weights they were taken with.
    pub(crate) measured: String,
}

/// The scores on a split: of its evaluation, else those taken during training, after the evaluated or the last epoch.
pub(crate) fn reading<'a>(run: &'a Run, split: &str) -> Option<Reading<'a>> {
    if let Some(evaluation) = run.evaluation(split) {
        let measured = format!("checkpoint {}, epoch {}", evaluation.checkpoint, evaluation.epoch);
        return Some(Reading { scores: &evaluation.scores, measured });
    }
    let evaluated = run.headline().map(|evaluation| evaluation.epoch);
    let scores_of = |epoch: &'a crate::run::Epoch| match split {
        "train" => epoch.train.as_ref(),
        "val" => epoch.val.as_ref(),
        _ => None,
    };
    let with_scores = || run.metrics.iter().filter_map(|epoch| Some((epoch.epoch, scores_of(epoch)?)));
    let (epoch, scores) =
        with_scores().find(|&(epoch, _)| Some(epoch) == evaluated).or_else(|| with_scores().next_back())?;
    Some(Reading { scores, measured: format!("during training, epoch {epoch}") })
}

/// What a split is called in a table.
pub(crate) fn set_name(split: &str) -> String {
    match split {
        "train" => "Training set".to_owned(),
        "val" => "Validation set".to_owned(),
        "test" => "Test set".to_owned(),
        other => other.to_owned(),
    }
}

const SCORE_HEADS: [&str; 5] =
    ["Pixel-wise accuracy", "Class accuracy", "Mean IoU", "Frequency-weighted IoU", "Boundary F1"];

fn score_values(scores: &Scores) -> [Option<f64>; 5] {
    let Scores { pixel_accuracy, class_accuracy, mean_iou, frequency_weighted_iou, boundary_f1, .. } = *scores;
    [pixel_accuracy, class_accuracy, mean_iou, frequency_weighted_iou, boundary_f1]
}

/// One run on each of its splits.
pub(super) fn splits(column: &Column) -> Table {
    let mut splits: Vec<&str> = vec!["train", "val"];
    splits.extend(
        column.run.evaluations.iter().map(|e| e.scores.split.as_str()).filter(|s| !["train", "val"].contains(s)),
    );
    let rows = splits.into_iter().filter_map(|split| {
        let reading = reading(column.run, split)?;
        let mut cells: Vec<Cell> = score_values(reading.scores).map(Cell::percent).into();
        cells.push(Cell::new(reading.scores.images.to_string()));
        cells.push(Cell::new(reading.measured));
        Some(Row { name: set_name(split), series: None, cells })
    });
    Table {
        caption: format!("Scores of {} on the training and validation sets (%)", column.name),
        head: heads(&["Data set"], &SCORE_HEADS, &["Images", "Measured"]),
        rows: rows.collect(),
        note: String::new(),
    }
}

/// One run as the lab report has it: its pixel-wise accuracy on each set, and nothing else.
pub(super) fn accuracy(column: &Column) -> Table {
    let evaluated = column.evaluation.map_or("val", |evaluation| evaluation.scores.split.as_str());
    let rows = ["train", evaluated].map(|split| Row {
        name: set_name(split),
        series: None,
        cells: vec![Cell::percent(reading(column.run, split).and_then(|reading| reading.scores.pixel_accuracy))],
    });
    Table {
        caption: format!("Pixel-wise accuracy of {} on the training and validation sets", column.name),
        head: heads(&["Data set", "Pixel-wise accuracy (%)"], &[], &[]),
        rows: rows.into(),
        note: String::new(),
    }
}

/// All runs, a row each: the accuracy on the training set, then all scores on the evaluated one.
pub(crate) fn comparison(columns: &[Column]) -> Table {
    let split = shared_split(columns);
    let set = split.map_or_else(|| "evaluated set".to_owned(), |split| set_name(split).to_lowercase());
    let mut values = Vec::new();
    let mut rows = Vec::new();
    for column in columns {
        let train = reading(column.run, "train").and_then(|reading| reading.scores.pixel_accuracy);
        let evaluated = column.evaluation.map_or([None; 5], |evaluation| score_values(&evaluation.scores));
        let row: Vec<Option<f64>> = std::iter::once(train).chain(evaluated).collect();
        let mut cells: Vec<Cell> = row.iter().map(|&value| Cell::percent(value)).collect();
        cells.push(column.evaluation.map_or_else(Cell::default, |evaluation| Cell {
            detail: format!("epoch {} of {}", evaluation.epoch, epochs(column.run)),
            ..Cell::new(evaluation.checkpoint.clone())
        }));
        rows.push(Row { name: column.name.clone(), series: Some(column.series), cells });
        values.push(row);
    }
    let accuracy = ["Pixel-wise accuracy, training set".to_owned(), format!("Pixel-wise accuracy, {set}")];
    let mut head = vec!["Model".to_owned()];
    head.extend(accuracy);
    head.extend(heads(&SCORE_HEADS[1..], &["Checkpoint"], &[]));
    let mut table = Table { caption: "Comparison of the models (%)".to_owned(), head, rows, note: String::new() };
    if split.is_none() {
        "The evaluated sets differ, so no score is marked as the best.".clone_into(&mut table.note);
        return table;
    }
    for score in 0..=SCORE_HEADS.len() {
        table.mark_best(score, &values.iter().map(|row| row[score]).collect::<Vec<_>>());
    }
    table
}

/// What else "pixel accuracy" could mean, for the runs that draw colours; none where no run does.
pub(super) fn colors(columns: &[Column]) -> Option<Table> {
    let mut rows = Vec::new();
    for column in columns {
        let mut splits = vec!["train"];
        splits.extend(column.evaluation.map(|evaluation| evaluation.scores.split.as_str()));
        if column.evaluation.is_none() {
            splits.push("val");
        }
        for split in splits {
            let Some(reading) = reading(column.run, split) else { continue };
            let Some(agreement) = &reading.scores.rgb_agreement else { continue };
            let set = set_name(split);
            let mut cells = vec![Cell::percent(reading.scores.pixel_accuracy)];
            cells.extend(agreement_values(agreement).map(Cell::percent));
            let (name, series) = if columns.len() > 1 {
                cells.insert(0, Cell::new(set));
                (column.name.clone(), Some(column.series))
            } else {
                (set, None)
            };
            rows.push(Row { name, series, cells });
        }
    }
    (!rows.is_empty()).then(|| Table {
        caption: "Readings of pixel-wise accuracy on colours (%)".to_owned(),
        head: heads(
            if columns.len() > 1 { &["Model", "Data set"] } else { &["Data set"] },
            &["Nearest class", "Strongest channel", "Within 5", "Within 10", "Within 25"],
            &[],
        ),
        rows,
        note: String::new(),
    })
}

fn agreement_values(agreement: &ColorAgreement) -> [Option<f64>; 4] {
    [agreement.argmax, agreement.within_5, agreement.within_10, agreement.within_25]
}

/// Parameters and times.
pub(crate) fn cost(columns: &[Column]) -> Table {
    let rows = columns.iter().map(|column| {
        let run = column.run;
        let parameters = run.manifest.parameters();
        let networks: Vec<String> =
            parameters.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
        let total = parameters.iter().fold(0_u64, |total, (_, count)| total.saturating_add(*count));
        let seconds = train_seconds(run);
        let per_image = column.evaluation.and_then(|evaluation| evaluation.seconds_per_image);
        let rates: Vec<f64> = run.times.iter().filter_map(|time| time.images_per_second).collect();
        let known = |text: Option<String>| Cell::new(text.unwrap_or_else(|| NOTHING.to_owned()));
        let cells = vec![
            Cell {
                detail: if networks.len() > 1 { networks.join(", ") } else { String::new() },
                ..known((!parameters.is_empty()).then(|| grouped(total)))
            },
            known(Some(epochs(run).to_string())),
            known((!run.times.is_empty()).then(|| duration(seconds))),
            known(median(rates).map(|rate| format!("{rate:.1}"))),
            known(per_image.map(|seconds| format!("{:.1} ms", 1000.0 * seconds))),
            Cell {
                detail: run
                    .manifest
                    .entries
                    .get("threads")
                    .map_or_else(String::new, |threads| format!("{threads} threads")),
                ..known(run.manifest.text(&["device"]).map(str::to_owned))
            },
        ];
        Row { name: column.name.clone(), series: (columns.len() > 1).then_some(column.series), cells }
    });
    Table {
        caption: "Time and cost".to_owned(),
        head: heads(
            &["Model", "Trainable parameters", "Epochs", "Training time"],
            &["Images/s in training", "One image", "Device"],
            &[],
        ),
        rows: rows.collect(),
        note: "Training time is that of the steps, without scores; images per second are the median over epochs; one image is the \
               network alone, at the size that was scored."
            .to_owned(),
    }
}

fn heads(first: &[&str], then: &[&str], last: &[&str]) -> Vec<String> {
    [first, then, last].concat().into_iter().map(str::to_owned).collect()
}

/// How many epochs a run has finished.
pub(crate) fn epochs(run: &Run) -> u64 {
    run.metrics.last().map_or(0, |epoch| epoch.epoch)
}

/// Seconds spent on training steps.
pub(crate) fn train_seconds(run: &Run) -> f64 {
    run.times.iter().map(|time| time.train_seconds).sum()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A count in groups of three digits.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            // A narrow no-break space.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_read_well() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234), "1\u{202f}234");
        assert_eq!(grouped(31_043_651), "31\u{202f}043\u{202f}651");
        assert_eq!(duration(9.06), "9.1 s");
        assert_eq!(duration(272.4), "4 min 32 s");
        assert_eq!(duration(7_322.0), "2 h 2 min");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
