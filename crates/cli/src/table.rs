//! Scores as text for a terminal.

use std::fmt::Write as _;

use img2seg_training::Scores;

/// A column a split, a row a score.
pub(crate) fn scores(columns: &[&Scores]) -> String {
    let mut text = format!("{:<24}", "");
    for scores in columns {
        let _ = write!(text, "{:>10}", scores.split);
    }
    text.push('\n');
    let mut row = |name: &str, value: &dyn Fn(&Scores) -> Option<f64>| {
        if columns.iter().any(|scores| value(scores).is_some()) {
            let _ = write!(text, "{name:<24}");
            for scores in columns {
                let _ = write!(text, "{:>10}", percent(value(scores)));
            }
            text.push('\n');
        }
    };
    row("pixel accuracy", &|scores| scores.pixel_accuracy);
    row("class accuracy", &|scores| scores.class_accuracy);
    row("mean IoU", &|scores| scores.mean_iou);
    row("frequency-weighted IoU", &|scores| scores.frequency_weighted_iou);
    row("colours: argmax", &|scores| scores.rgb_agreement?.argmax);
    row("colours: within 5", &|scores| scores.rgb_agreement?.within_5);
    row("colours: within 10", &|scores| scores.rgb_agreement?.within_10);
    row("colours: within 25", &|scores| scores.rgb_agreement?.within_25);
    text
}

/// IoU by class, one line each; absent classes say so.
pub(crate) fn class_iou(scores: &Scores) -> String {
    let mut text = String::new();
    for (name, value) in &scores.class_iou {
        let _ = writeln!(text, "  {name:<22}{:>10}", percent(value.as_f64()));
    }
    text
}

/// A fraction as a percentage.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| format!("{:.2} %", 100.0 * value))
}
