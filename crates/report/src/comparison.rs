//! Several runs held against each other: whether that can be done, and what it says.

pub(crate) mod figure;
pub(crate) mod paired;

use std::fmt::Write;

use img2seg_data::shown;
use img2seg_metrics::bootstrap::Interval;
use serde_json::{Value, json};

use crate::ReportError;
use crate::page::details::{class_differences, disagreements, seeds};
use crate::page::scores::{comparison, cost, epochs, reading, set_name, train_seconds};
use crate::page::{Column, shared_split};
use crate::run::Run;
use crate::table::{escaped, percent};
use paired::{Paired, matched};

/// Evaluated runs with one class table.
pub(crate) struct Comparison<'a> {
    pub(crate) columns: Vec<Column<'a>>,
    /// What keeps the scores from meaning quite the same; empty where nothing does.
    pub(crate) notes: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// Each run by the evaluation of the split that all have, val before test, else by its own headline.
    ///
    /// # Errors
    /// [`ReportError::NoRuns`], [`ReportError::NotEvaluated`] and [`ReportError::DifferentClasses`], the last two naming all runs at fault.
    pub(crate) fn of(runs: &'a [Run]) -> Result<Self, ReportError> {
        let Some(first) = runs.first() else { return Err(ReportError::NoRuns) };
        let named = |at_fault: &dyn Fn(&Run) -> bool| -> Vec<String> {
            (0..runs.len()).filter(|&index| at_fault(&runs[index])).map(|index| name(runs, index)).collect()
        };
        let unevaluated = named(&|run| run.headline().is_none());
        if !unevaluated.is_empty() {
            return Err(ReportError::NotEvaluated { runs: unevaluated });
        }
        let different = named(&|run| run.classes.classes() != first.classes.classes());
        if !different.is_empty() {
            return Err(ReportError::DifferentClasses { reference: name(runs, 0), runs: different });
        }
        let common = ["val", "test"].into_iter().find(|split| runs.iter().all(|run| run.evaluation(split).is_some()));
        let columns = runs.iter().enumerate().map(|(series, run)| Column {
            name: name(runs, series),
            series,
            run,
            evaluation: common.map_or_else(|| run.headline(), |split| run.evaluation(split)),
        });
        let columns: Vec<Column> = columns.collect();
        Ok(Self { notes: notes(&columns), columns })
    }

    /// Who is ahead, in a sentence or two.
    pub(crate) fn lead(&self) -> String {
        let accuracy = |column: &Column| column.evaluation.and_then(|evaluation| evaluation.scores.pixel_accuracy);
        let iou = |column: &Column| column.evaluation.and_then(|evaluation| evaluation.scores.mean_iou);
        let mut ranked: Vec<&Column> = self.columns.iter().filter(|column| accuracy(column).is_some()).collect();
        ranked.sort_by(|a, b| accuracy(b).unwrap_or(0.0).total_cmp(&accuracy(a).unwrap_or(0.0)));
        let (Some(_), [first, second, ..]) = (shared_split(&self.columns), ranked.as_slice()) else {
            let each = self.columns.iter().map(|column| {
                let set = column.evaluation.map_or_else(String::new, |evaluation| set_name(&evaluation.scores.split));
                let (name, accuracy) = (&column.name, percent(accuracy(column)));
                format!("{name} labels {accuracy} % of the pixels of its {} correctly", set.to_lowercase())
            });
            return each.collect::<Vec<_>>().join("; ") + ".";
        };
        let lead = accuracy(first).unwrap_or(0.0) - accuracy(second).unwrap_or(0.0);
        let mut text = if lead > 0.0 {
            format!(
                "{} labels {} % of the pixels correctly, {:.2} points more than {}",
                first.name,
                percent(accuracy(first)),
                100.0 * lead,
                second.name
            )
        } else {
            format!(
                "{} and {} both label {} % of the pixels correctly",
                first.name,
                second.name,
                percent(accuracy(first))
            )
        };
        let best = self.columns.iter().max_by(|a, b| iou(a).unwrap_or(-1.0).total_cmp(&iou(b).unwrap_or(-1.0)));
        if let Some(best) = best.filter(|best| iou(best).is_some()) {
            let _ = write!(text, "; the highest mean IoU, {} %, is that of {}", percent(iou(best)), best.name);
        }
        text + ". Pixels without a label (void) do not count."
    }

    /// All runs after the first held against it, image by image; without those that were not scored on the same images.
    pub(crate) fn pairs(&self) -> Vec<Paired<'_>> {
        let Some((first, others)) = self.columns.split_first() else { return Vec::new() };
        others.iter().filter_map(|column| Paired::of(first, column)).collect()
    }

    /// What the pairs say, and the two best runs where neither is what the others are held against.
    pub(crate) fn verdicts(&self, pairs: &[Paired]) -> Vec<String> {
        let iou = |column: &Column| column.evaluation.and_then(|evaluation| evaluation.scores.mean_iou).unwrap_or(-1.0);
        let mut ranked: Vec<usize> = (0..self.columns.len()).collect();
        ranked.sort_by(|&a, &b| iou(&self.columns[b]).total_cmp(&iou(&self.columns[a])));
        let best = match ranked[..] {
            [best, second, _, ..] if best > 0 && second > 0 => Paired::of(&self.columns[second], &self.columns[best]),
            _ => None,
        };
        pairs.iter().chain(&best).map(Paired::verdict).collect()
    }

    /// Who is better, how sure that is, and at what cost: for a terminal.
    pub(crate) fn summary(&self, pairs: &[Paired]) -> String {
        let tables = std::iter::once(comparison(&self.columns)).chain(paired::table(pairs)).chain(seeds(&self.columns));
        let tables: Vec<String> = tables.chain([cost(&self.columns)]).map(|table| table.markdown()).collect();
        self.sentences(pairs) + &tables.join("\n")
    }

    /// The tables of the page that a text can hold.
    pub(crate) fn markdown(&self, pairs: &[Paired]) -> String {
        let columns = &self.columns;
        let more = [paired::table(pairs), seeds(columns), class_differences(columns), disagreements(columns)];
        let tables = std::iter::once(comparison(columns)).chain(more.into_iter().flatten()).chain([cost(columns)]);
        self.sentences(pairs) + &tables.map(|table| table.markdown()).collect::<Vec<_>>().join("\n")
    }

    fn sentences(&self, pairs: &[Paired]) -> String {
        let mut text = format!("{}\n\n", escaped(&self.lead()));
        for verdict in self.verdicts(pairs) {
            let _ = write!(text, "{}\n\n", escaped(&verdict));
        }
        for note in &self.notes {
            let _ = write!(text, "> {}\n\n", escaped(note));
        }
        text
    }

    /// All numbers at full precision, for programs.
    pub(crate) fn json(&self, pairs: &[Paired]) -> Value {
        let runs = self.columns.iter().map(|column| {
            let run = column.run;
            json!({
                "name": column.name,
                "recipe": run.recipe(),
                "checkpoint": column.evaluation.map(|evaluation| evaluation.checkpoint.clone()),
                "epoch": column.evaluation.map(|evaluation| evaluation.epoch),
                "epochs": epochs(run),
                "scores": column.evaluation.map(|evaluation| &evaluation.scores),
                "train": reading(run, "train").map(|reading| reading.scores),
                "images": column.evaluation.map(|evaluation| &evaluation.images),
                "parameters": run.manifest.entries.get("parameters"),
                "train_seconds": (!run.times.is_empty()).then(|| train_seconds(run)),
                "seconds_per_image": column.evaluation.and_then(|evaluation| evaluation.seconds_per_image),
            })
        });
        let interval = |interval: Option<Interval>| {
            interval
                .map(|Interval { difference, low, high }| json!({ "difference": difference, "low": low, "high": high }))
        };
        let pairs = pairs.iter().map(|pair| {
            json!({
                "reference": pair.reference.name,
                "run": pair.column.name,
                "mean_iou": interval(pair.mean_iou),
                "pixel_accuracy": interval(pair.pixel_accuracy),
                "boundary_f1": interval(pair.boundary_f1),
                "images": pair.images,
                "images_higher": pair.higher,
                "images_lower": pair.lower,
            })
        });
        let pairs: Vec<Value> = pairs.collect();
        json!({ "runs": runs.collect::<Vec<_>>(), "differences": pairs, "notes": self.notes })
    }
}

/// The run's name, with its directory where another run has the same.
fn name(runs: &[Run], index: usize) -> String {
    let run = &runs[index];
    if runs.iter().filter(|other| other.name == run.name).count() > 1 {
        format!("{} ({})", run.name, shown(&run.dir))
    } else {
        run.name.clone()
    }
}

fn notes(columns: &[Column]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, value: &dyn Fn(&Column) -> Option<String>| {
        let values: Vec<Option<String>> = columns.iter().map(value).collect();
        let known = || values.iter().flatten();
        if known().any(|value| Some(value) != known().next()) {
            let each = columns
                .iter()
                .zip(&values)
                .map(|(column, value)| format!("{} {}", column.name, value.as_deref().unwrap_or("unknown")));
            notes.push(format!("{what}: {}.", each.collect::<Vec<_>>().join(", ")));
        }
    };
    differ("The runs were evaluated on different splits, so their scores are not comparable", &|column| {
        Some(format!("on {}", column.evaluation?.scores.split))
    });
    differ("The runs used different data (by its digest), so their scores are not comparable", &|column| {
        column.run.manifest.text(&["data", "digest"]).map(str::to_owned)
    });
    differ("The runs were scored on different numbers of images", &|column| {
        Some(column.evaluation?.scores.images.to_string())
    });
    differ("The runs were scored on different numbers of pixels, as when their sizes differ", &|column| {
        Some(column.evaluation?.scores.pixels.to_string())
    });
    let images = |column: &Column| column.evaluation.map_or(0, |evaluation| evaluation.images.len());
    if let Some((first, others)) = columns.split_first()
        && notes.is_empty()
        && columns.iter().all(|column| images(column) > 0)
    {
        let apart = others.iter().filter(|column| matched(first, column).is_none()).map(|column| column.name.as_str());
        let apart: Vec<&str> = apart.collect();
        if !apart.is_empty() {
            let (names, first) = (apart.join(", "), &first.name);
            notes.push(format!("The runs were scored on different images, so they are not compared image by image: {names} and {first}."));
        }
    }
    notes
}
