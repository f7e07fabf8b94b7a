//! Where a run is good and where it is not: by class and by image.

use super::Column;
use super::reliability::reliability_svg;
use super::scores::reading;
use crate::ReportError;
use crate::comparison::paired::{matched, signed};
use crate::confusion::confusion_png;
use crate::run::{Evaluation, ImageScore, Scores};
use crate::table::{Cell, NOTHING, Row, Table, percent};

/// Images of a table.
const IMAGES: usize = 10;

/// A run's confusion matrix as a picture.
pub(super) struct Confusion {
    pub(super) run: String,
    pub(super) uri: String,
}

/// How sure a run is, and how often right.
pub(super) struct Reliability {
    pub(super) run: String,
    pub(super) svg: String,
    pub(super) note: String,
}

fn scores<'a>(column: &Column<'a>) -> Option<&'a Scores> {
    let split = column.evaluation.map_or("val", |evaluation| evaluation.scores.split.as_str());
    reading(column.run, split).map(|reading| reading.scores)
}

/// All scores of the classes of one run; none where only the IoU is known, which the bars show.
pub(super) fn classes(column: &Column) -> Option<Table> {
    let scores = scores(column).filter(|scores| !scores.confusion.is_empty())?;
    let row_pixels = |row: &Vec<u64>| row.iter().sum::<u64>();
    let all: u64 = scores.confusion.iter().map(row_pixels).sum();
    let rows = column.run.classes.classes().iter().zip(&scores.confusion).map(|(class, row)| {
        let of = |by_name: &std::collections::BTreeMap<String, Option<f64>>| {
            Cell::percent(by_name.get(&class.name).copied().flatten())
        };
        let share = (all > 0).then(|| row_pixels(row) as f64 / all as f64);
        let values = [&scores.class_iou, &scores.class_recall, &scores.class_precision, &scores.class_boundary_f1];
        let mut cells: Vec<Cell> = values.map(of).into();
        cells.push(Cell::percent(share));
        Row { name: class.name.clone(), series: None, cells }
    });
    Some(Table {
        caption: format!("Classes of {} (%)", column.name),
        head: ["Class", "IoU", "Accuracy", "Precision", "Boundary F1", "Share of pixels"].map(str::to_owned).into(),
        rows: rows.collect(),
        note: String::new(),
    })
}

/// The IoU of each class in every run, with what it is more or less than the first run's.
pub(crate) fn class_differences(columns: &[Column]) -> Option<Table> {
    let (first, others) = columns.split_first()?;
    let iou = |column: &Column, class: &str| scores(column)?.class_iou.get(class).copied().flatten();
    let mut table = Table {
        caption: format!("IoU by class (%), and how it differs from that of {}", first.name),
        head: std::iter::once("Class".to_owned()).chain(columns.iter().map(|column| column.name.clone())).collect(),
        ..Table::default()
    };
    for class in first.run.classes.classes() {
        let reference = iou(first, &class.name);
        let values: Vec<Option<f64>> = columns.iter().map(|column| iou(column, &class.name)).collect();
        let best = values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let varied = values.iter().flatten().any(|&value| value < best);
        let cells = values.iter().enumerate().map(|(index, &value)| {
            let difference = value.zip(reference).map(|(value, first)| signed(value - first));
            let difference = difference.filter(|text| index > 0 && text != "0.00");
            Cell { text: percent(value), detail: difference.unwrap_or_default(), best: varied && value == Some(best) }
        });
        table.rows.push(Row { name: class.name.clone(), series: None, cells: cells.collect() });
    }
    (!others.is_empty()).then_some(table)
}

/// The confusion matrices of the evaluations that are shown.
pub(super) fn confusions(columns: &[Column]) -> Result<Vec<Confusion>, ReportError> {
    let filed = columns.iter().filter_map(|column| Some((column, column.evaluation?)));
    filed
        .filter(|(_, evaluation)| !evaluation.scores.confusion.is_empty())
        .map(|(column, evaluation)| {
            let file = confusion_png(&evaluation.scores.confusion, &column.run.classes)?;
            Ok(Confusion { run: column.name.clone(), uri: super::pictures::data_uri("image/png", &file) })
        })
        .collect()
}

/// The reliability diagrams of the runs that say how sure they are.
pub(super) fn reliabilities(columns: &[Column]) -> Vec<Reliability> {
    let diagram = |column: &Column| {
        let calibration = column.evaluation?.scores.calibration.as_ref()?;
        Some(Reliability {
            run: column.name.clone(),
            svg: reliability_svg(calibration, column.series),
            note: format!("Expected calibration error: {} %.", percent(calibration.expected_error)),
        })
    };
    columns.iter().filter_map(diagram).collect()
}

/// The images that a run scores lowest and highest on.
pub(super) fn extremes(evaluation: &Evaluation) -> Vec<Table> {
    let mut images: Vec<(f64, &ImageScore)> =
        evaluation.images.iter().filter_map(|image| Some((image.mean_iou?, image))).collect();
    images.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    let row = |&(_, image): &(f64, &ImageScore)| Row {
        name: image.name.clone(),
        series: None,
        cells: [image.mean_iou, image.pixel_accuracy, image.boundary_f1].map(Cell::percent).into(),
    };
    let table = |which: &str, rows: Vec<Row>| Table {
        caption: format!("Images of the {which} mean IoU (%)"),
        head: ["Image", "Mean IoU", "Pixel-wise accuracy", "Boundary F1"].map(str::to_owned).into(),
        rows,
        note: String::new(),
    };
    let count = IMAGES.min(images.len());
    let lowest = table("lowest", images[..count].iter().map(row).collect());
    let highest = table("highest", images[images.len() - count..].iter().rev().map(row).collect());
    match images.len() {
        0 => Vec::new(),
        // All of them are in one table.
        all if all <= IMAGES => vec![lowest],
        _ => vec![lowest, highest],
    }
}

/// How far apart the runs are on each image, the furthest first: the distance of the highest mean IoU from the lowest. Images that
/// some run was not scored on are left out.
pub(crate) fn spreads(columns: &[Column]) -> Vec<(String, f64, Vec<Option<f64>>)> {
    let Some((first, others)) = columns.split_first() else { return Vec::new() };
    let matches: Option<Vec<_>> = others.iter().map(|column| matched(first, column)).collect();
    let (Some(matches), Some(evaluation)) = (matches, first.evaluation) else { return Vec::new() };
    let mut spreads: Vec<_> = evaluation
        .images
        .iter()
        .enumerate()
        .filter_map(|(index, image)| {
            let mut values = vec![image.mean_iou];
            values.extend(matches.iter().map(|pairs| pairs[index][1].mean_iou));
            let known = || values.iter().flatten().copied();
            let spread = known().reduce(f64::max)? - known().reduce(f64::min)?;
            Some((image.name.clone(), spread, values))
        })
        .collect();
    spreads.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    spreads
}

/// The images on which the runs differ most.
pub(crate) fn disagreements(columns: &[Column]) -> Option<Table> {
    let spreads = spreads(columns);
    let mut table = Table {
        caption: "Images on which the models differ most (mean IoU, %)".to_owned(),
        head: std::iter::once("Image".to_owned()).chain(columns.iter().map(|column| column.name.clone())).collect(),
        ..Table::default()
    };
    for (name, _, values) in spreads.into_iter().take(IMAGES) {
        let best = values.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let varied = values.iter().flatten().any(|&value| value < best);
        let cell = |value: Option<f64>| Cell { best: varied && value == Some(best), ..Cell::percent(value) };
        table.rows.push(Row { name, series: None, cells: values.into_iter().map(cell).collect() });
    }
    (columns.len() > 1 && !table.rows.is_empty()).then_some(table)
}

/// Runs whose recipes differ by their seed alone, as one model: mean and standard deviation of their scores. None where no two do.
pub(crate) fn seeds(columns: &[Column]) -> Option<Table> {
    let recipe = |column: &Column| {
        let mut settings = column.run.settings.clone();
        settings.remove("seed");
        settings
    };
    let mut groups: Vec<(toml::Table, Vec<&Column>)> = Vec::new();
    for column in columns {
        let settings = recipe(column);
        match groups.iter_mut().find(|(known, _)| *known == settings) {
            Some((_, group)) => group.push(column),
            None => groups.push((settings, vec![column])),
        }
    }
    let cell = |group: &[&Column], value: fn(&Scores) -> Option<f64>| {
        let values: Vec<f64> = group.iter().filter_map(|column| value(&column.evaluation?.scores)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        match values.len() {
            0 => Cell::new(NOTHING),
            1 => Cell::percent(Some(mean)),
            _ => Cell::new(format!("{:.2} \u{b1} {:.2}", 100.0 * mean, 100.0 * (squares / (count - 1.0)).sqrt())),
        }
    };
    let rows: Vec<Row> = groups
        .iter()
        .map(|(_, group)| Row {
            name: group.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", "),
            series: None,
            cells: vec![
                Cell::new(group.len().to_string()),
                cell(group, |scores| scores.mean_iou),
                cell(group, |scores| scores.pixel_accuracy),
                cell(group, |scores| scores.boundary_f1),
            ],
        })
        .collect();
    (rows.len() < columns.len()).then(|| Table {
        caption: "Seeds of one recipe: mean \u{b1} standard deviation over runs (%)".to_owned(),
        head: ["Runs", "Seeds", "Mean IoU", "Pixel-wise accuracy", "Boundary F1"].map(str::to_owned).into(),
        rows,
        note: String::new(),
    })
}
