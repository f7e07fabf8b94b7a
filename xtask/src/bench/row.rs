//! What came out: a line a case, a table, JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// A case, measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) case: String,
    pub(super) threads: usize,
    pub(super) ours: Side,
    /// Ours with one thread, if it took turns.
    pub(super) alone: Option<Side>,
    /// PyTorch's, if there is one; the text says why it failed.
    pub(super) pytorch: Option<Result<Side, String>>,
}

/// One side's turns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Side {
    /// Milliseconds of a step.
    median: f64,
    minimum: f64,
    /// Peak memory: resident on the host or, where a GPU computes, in tensors and workspaces there.
    mib: Option<f64>,
}

impl Side {
    pub(super) fn of(times: &[f64], mib: Option<f64>) -> Self {
        Self { median: median(times), minimum: times.iter().copied().fold(f64::INFINITY, f64::min), mib }
    }
}

/// The middle value, or the mean of the middle two.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

impl Row {
    fn pytorch(&self) -> Option<&Side> {
        self.pytorch.as_ref()?.as_ref().ok()
    }

    /// How many times as fast we are: the medians' ratio, for a loader that of images a second.
    fn ratio(&self) -> Option<f64> {
        Some(self.pytorch()?.median / self.ours.median)
    }

    /// How many times as fast as one thread the others make us.
    fn speedup(&self) -> Option<f64> {
        Some(self.alone.as_ref()?.median / self.ours.median)
    }

    fn failure(&self) -> Option<&str> {
        self.pytorch.as_ref()?.as_ref().err().map(String::as_str)
    }

    /// The row as it is told while others are still measured.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{}: {:.2} ms", self.case, self.ours.median);
        if let (Some(pytorch), Some(ratio)) = (self.pytorch(), self.ratio()) {
            let _ = write!(line, ", PyTorch {:.2} ms, ratio {ratio:.2}", pytorch.median);
        }
        if let (Some(alone), Some(speedup)) = (&self.alone, self.speedup()) {
            let _ = write!(line, ", one thread {:.2} ms, ratio {speedup:.2}", alone.median);
        }
        if let Some(failure) = self.failure() {
            let _ = write!(line, ", PyTorch failed: {failure}");
        }
        line
    }
}

/// Rows under a heading; PyTorch's columns where it took part.
pub(super) fn table(rows: &[Row]) -> String {
    let beside = rows.iter().any(|row| row.pytorch.is_some());
    let width = rows.iter().map(|row| row.case.len()).max().unwrap_or(0);
    let (ratio, speedup) = ("PyTorch / ours", "one / ours");
    let mut table = format!("{:width$}  {:>10}  {:>10}  {:>9}", "ms a step", "ours", "minimum", "MiB");
    if rows.iter().any(|row| row.alone.is_some()) {
        let _ = write!(table, "  {:>10}  {:>10}  {:>9}  {speedup}", "one thread", "minimum", "MiB");
    }
    if beside {
        let _ = write!(table, "  {:>10}  {:>10}  {:>9}  {ratio}", "PyTorch", "minimum", "MiB");
    }
    table.push('\n');
    for row in rows {
        let _ = write!(table, "{:width$}{}", row.case, columns(&row.ours));
        if let (Some(alone), Some(value)) = (&row.alone, row.speedup()) {
            let _ = write!(table, "{}  {value:>1$.2}", columns(alone), speedup.len());
        }
        if let (Some(pytorch), Some(value)) = (row.pytorch(), row.ratio()) {
            let _ = write!(table, "{}  {value:>1$.2}", columns(pytorch), ratio.len());
        }
        if let Some(failure) = row.failure() {
            let _ = write!(table, "  failed: {failure}");
        }
        table.push('\n');
    }
    table
}

fn columns(Side { median, minimum, mib }: &Side) -> String {
    let mib = mib.map_or("-".to_owned(), |mib| format!("{mib:.0}"));
    format!("  {median:>10.2}  {minimum:>10.2}  {mib:>9}")
}

/// An array of rows, one a line; what is not there is null.
pub(super) fn json(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.iter().map(|row| format!("  {}", json_row(row))).collect();
    if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
}

fn json_row(row: &Row) -> Value {
    let rounded = |value: f64| (value * 1e3).round() / 1e3;
    let mut value = json!({
        "case": row.case,
        "threads": row.threads,
        "ours_ms": rounded(row.ours.median),
        "pytorch_ms": row.pytorch().map(|side| rounded(side.median)),
        "ratio": row.ratio().map(rounded),
        "ours_mib": row.ours.mib.map(rounded),
        "pytorch_mib": row.pytorch().and_then(|side| side.mib).map(rounded),
    });
    if let (Some(alone), Some(speedup)) = (&row.alone, row.speedup()) {
        value["one_thread_ms"] = rounded(alone.median).into();
        value["speedup"] = rounded(speedup).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 3] {
        let side = |median, mib| Side { median, minimum: median - 1.0, mib };
        let row = |case: &str, pytorch| Row {
            case: case.to_owned(),
            threads: 2,
            ours: side(50.0, Some(100.5)),
            alone: None,
            pytorch,
        };
        [
            row("train", Some(Ok(side(60.0, Some(400.0))))),
            row("train (compiled)", Some(Err("no C++ compiler".to_owned()))),
            row("load", Some(Ok(side(100.0, None)))),
        ]
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "exact by construction")]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn a_ratio_above_one_says_that_we_are_faster() {
        assert_eq!(rows().map(|row| row.ratio()), [Some(1.2), None, Some(2.0)]);
    }

    #[test]
    fn json_has_nulls_where_there_is_nothing() {
        assert_eq!(
            json(&rows()),
            concat!(
                "[\n",
                r#"  {"case":"train","threads":2,"ours_ms":50.0,"pytorch_ms":60.0,"ratio":1.2,"ours_mib":100.5,"pytorch_mib":400.0},"#,
                "\n",
                r#"  {"case":"train (compiled)","threads":2,"ours_ms":50.0,"pytorch_ms":null,"ratio":null,"ours_mib":100.5,"pytorch_mib":null},"#,
                "\n",
                r#"  {"case":"load","threads":2,"ours_ms":50.0,"pytorch_ms":100.0,"ratio":2.0,"ours_mib":100.5,"pytorch_mib":null}"#,
                "\n]\n",
            )
        );
        assert_eq!(json(&[]), "[]\n");
    }

    #[test]
    fn one_thread_has_columns_where_it_took_turns() {
        let [first, ..] = rows();
        let alone = Some(Side { median: 90.0, minimum: 89.0, mib: Some(70.0) });
        let beside = Row { case: "train-unet".to_owned(), alone, ..first };
        assert_eq!(
            beside.line(),
            "train-unet: 50.00 ms, PyTorch 60.00 ms, ratio 1.20, one thread 90.00 ms, ratio 1.80"
        );
        let row = json(std::slice::from_ref(&beside));
        assert!(row.contains(r#""pytorch_mib":400.0,"one_thread_ms":90.0,"speedup":1.8}"#), "{row}");
        let text = table(&[Row { pytorch: None, ..beside.clone() }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), lines[1].len());
        assert!(lines[1].ends_with("90.00       89.00         70        1.80"), "{text}");
        let text = table(&[beside]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), lines[1].len(), "{text}");
    }

    #[test]
    fn lines_and_tables_say_what_failed() {
        let [first, second, _] = rows();
        assert_eq!(first.line(), "train: 50.00 ms, PyTorch 60.00 ms, ratio 1.20");
        assert_eq!(second.line(), "train (compiled): 50.00 ms, PyTorch failed: no C++ compiler");
        let text = table(&rows());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), lines[1].len());
        assert!(lines[1].ends_with("60.00       59.00        400            1.20"), "{text}");
        assert!(lines[2].ends_with("failed: no C++ compiler"), "{text}");
        let alone = table(&[Row { pytorch: None, ..first }]);
        assert!(!alone.contains("PyTorch"), "{alone}");
    }
}
