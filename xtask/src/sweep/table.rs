//! The table of a sweep: means over the seeds, with how far these lie apart.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::grid::{Grid, Row};
use super::run::{Outcome, SCORES};

/// A row with the outcomes of those of its seeds that have one.
pub(super) struct Line<'a> {
    pub(super) row: &'a Row,
    pub(super) epochs: Option<u64>,
    pub(super) outcomes: Vec<Outcome>,
}

/// What is averaged over the seeds.
struct Column {
    /// In `table.json`.
    key: &'static str,
    title: &'static str,
    value: fn(&Outcome) -> Option<f64>,
    percent: bool,
}

const COLUMNS: [Column; 2 + SCORES.len()] = [
    Column { key: "training_minutes", title: "training, min", value: |o| Some(o.training_minutes), percent: false },
    Column { key: "minutes", title: "with scoring, min", value: |o| Some(o.minutes), percent: false },
    score_column(0, |o| o.scores[0]),
    score_column(1, |o| o.scores[1]),
    score_column(2, |o| o.scores[2]),
];

const fn score_column(at: usize, value: fn(&Outcome) -> Option<f64>) -> Column {
    Column { key: SCORES[at].0, title: SCORES[at].1, value, percent: true }
}

/// The mean and the sample standard deviation, which a single value has not.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        (!values.is_empty()).then_some(Self { mean, deviation })
    }

    fn text(self, percent: bool) -> String {
        let (factor, unit) = if percent { (100.0, " %") } else { (1.0, "") };
        let deviation = self.deviation.map(|deviation| format!(" ± {:.2}", factor * deviation)).unwrap_or_default();
        format!("{:.2}{deviation}{unit}", factor * self.mean)
    }
}

impl Line<'_> {
    fn spread(&self, column: &Column) -> Option<Spread> {
        Spread::of(&self.outcomes.iter().filter_map(column.value).collect::<Vec<_>>())
    }
}

/// The table in Markdown. A column that no run has a value for is left out.
pub(super) fn markdown(grid: &Grid, split: &str, lines: &[Line]) -> String {
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|column| lines.iter().any(|line| line.spread(column).is_some())).collect();
    let mut cells: Vec<Vec<String>> = vec![["run", "recipe", "seeds", "epochs"].map(str::to_owned).to_vec()];
    cells[0].extend(columns.iter().map(|column| column.title.to_owned()));
    for line in lines {
        let seeds = match (line.outcomes.len(), grid.seeds.len()) {
            (done, all) if done == all => all.to_string(),
            (done, all) => format!("{done} of {all}"),
        };
        let epochs = line.epochs.map_or_else(|| "-".to_owned(), |epochs| epochs.to_string());
        let mut row = vec![line.row.name.clone(), format!("`{}`", line.row.recipe), seeds, epochs];
        let text =
            |column: &&Column| line.spread(column).map_or_else(|| "-".to_owned(), |spread| spread.text(column.percent));
        row.extend(columns.iter().map(text));
        cells.push(row);
    }
    let width = |at: usize| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    let mut text = format!(
        "# {}\n\nSplit {split}, the best checkpoint of each run; means over the seeds ± the sample standard deviation.\n\n",
        grid.name
    );
    for (number, row) in cells.iter().enumerate() {
        for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing into a String cannot fail. Names stand on the left, numbers on the right.
            let _ = if at < 2 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (at, &width) in widths.iter().enumerate() {
                let _ = write!(text, "|-{}{}", "-".repeat(width), if at < 2 { '-' } else { ':' });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The table as JSON: every run's numbers, and their means and deviations.
pub(super) fn json(grid: &Grid, split: &str, lines: &[Line]) -> Value {
    let run = |outcome: &Outcome| {
        let mut run = Map::new();
        run.insert("seed".into(), json!(outcome.seed));
        run.insert("run".into(), json!(outcome.directory));
        run.extend(COLUMNS.iter().map(|column| (column.key.to_owned(), json!((column.value)(outcome)))));
        Value::Object(run)
    };
    let row = |line: &Line| {
        let spreads = |value: fn(Spread) -> Option<f64>| -> Map<String, Value> {
            let of = |column: &Column| (column.key.to_owned(), json!(line.spread(column).and_then(value)));
            COLUMNS.iter().map(of).collect()
        };
        json!({
            "name": line.row.name,
            "recipe": line.row.recipe,
            "settings": line.row.settings,
            "epochs": line.epochs,
            "runs": line.outcomes.iter().map(run).collect::<Vec<_>>(),
            "mean": spreads(|spread| Some(spread.mean)),
            "deviation": spreads(|spread| spread.deviation),
        })
    };
    json!({ "name": grid.name, "split": split, "seeds": grid.seeds, "rows": lines.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let text = "name = \"g\"\nseeds = [0, 1, 2]\n[[run]]\nname = \"a\"\nrecipe = \"x\"\n[[run]]\nname = \"bc\"\nrecipe = \"y\"\n";
        Grid::parse(text, "g.toml").unwrap()
    }

    fn outcome(seed: u64, training_minutes: f64, accuracy: f64, iou: Option<f64>) -> Outcome {
        let scores = [Some(accuracy), iou, None];
        Outcome {
            seed,
            directory: format!("runs/{seed}").into(),
            training_minutes,
            minutes: 2.0 * training_minutes,
            scores,
        }
    }

    fn lines(grid: &Grid) -> Vec<Line<'_>> {
        let done = vec![outcome(0, 1.0, 0.5, Some(0.25)), outcome(1, 2.0, 0.6, Some(0.25)), outcome(2, 3.0, 0.7, None)];
        let part = vec![outcome(1, 4.0, 0.875, None)];
        let line = |at: usize, epochs, outcomes| Line { row: &grid.rows[at], epochs, outcomes };
        vec![line(0, Some(40), done), line(1, None, part)]
    }

    #[test]
    fn a_table_has_means_and_sample_deviations() {
        let grid = grid();
        let text = markdown(&grid, "val", &lines(&grid));
        let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with('|')).collect();
        assert_eq!(
            table,
            [
                "| run | recipe |  seeds | epochs | training, min | with scoring, min |  pixel accuracy |       mean IoU |",
                "|-----|--------|-------:|-------:|--------------:|------------------:|----------------:|---------------:|",
                "| a   | `x`    |      3 |     40 |   2.00 ± 1.00 |       4.00 ± 2.00 | 60.00 ± 10.00 % | 25.00 ± 0.00 % |",
                "| bc  | `y`    | 1 of 3 |      - |          4.00 |              8.00 |         87.50 % |              - |",
            ]
        );
        assert!(text.starts_with("# g\n\nSplit val, "), "{text}");
    }

    #[test]
    fn the_same_stands_in_json_with_every_run() {
        let grid = grid();
        let json = json(&grid, "test", &lines(&grid));
        assert_eq!((&json["name"], &json["split"], &json["seeds"]), (&json!("g"), &json!("test"), &json!([0, 1, 2])));
        let [row, part] = [&json["rows"][0], &json["rows"][1]];
        assert_eq!(row["runs"][2]["seed"], 2);
        assert_eq!(row["runs"][2]["mean_iou"], Value::Null);
        assert_eq!(row["mean"]["training_minutes"], 2.0);
        assert!((row["deviation"]["pixel_accuracy"].as_f64().unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(
            (&part["mean"]["pixel_accuracy"], &part["deviation"]["pixel_accuracy"]),
            (&json!(0.875), &Value::Null)
        );
        assert_eq!((&part["mean"]["boundary_f1"], &part["epochs"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn nothing_done_is_a_table_too() {
        let grid = grid();
        let lines: Vec<Line> =
            grid.rows.iter().map(|row| Line { row, epochs: Some(2), outcomes: Vec::new() }).collect();
        assert!(markdown(&grid, "val", &lines).ends_with("| bc  | `y`    | 0 of 3 |      2 |\n"));
        assert_eq!(Spread::of(&[]), None);
    }
}
