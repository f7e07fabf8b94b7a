//! The page: everything that the template shows, as texts.

mod curves;
pub(crate) mod details;
mod differences;
pub(crate) mod pictures;
mod reliability;
pub(crate) mod scores;

use askama::Template;
use img2seg_data::VOID;

use crate::ReportError;
use crate::chart::{AXIS, GRID, LETTERS, PALETTE, hex};
use crate::comparison::Comparison;
use crate::comparison::paired::{self, Paired};
use crate::error_map::{UNSCORED, WRONG};
use crate::run::{Evaluation, Run};
use crate::table::{Table, percent};
use curves::Figure;
use details::{Confusion, Reliability};
use pictures::Block;

/// One run on a page.
pub(crate) struct Column<'a> {
    /// Unique on the page.
    pub(crate) name: String,
    /// Its position in the palette, the same in every figure.
    pub(crate) series: usize,
    pub(crate) run: &'a Run,
    /// The evaluation that is shown.
    pub(crate) evaluation: Option<&'a Evaluation>,
}

/// The split that all columns show, where it is the same.
pub(crate) fn shared_split<'a>(columns: &[Column<'a>]) -> Option<&'a str> {
    let mut splits = columns.iter().map(|column| Some(column.evaluation?.scores.split.as_str()));
    let first = splits.next()??;
    splits.all(|split| split == Some(first)).then_some(first)
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    kind: &'static str,
    lead: String,
    facts: Vec<String>,
    headlines: Vec<Headline>,
    warnings: Vec<String>,
    /// What pairs of runs say, a sentence each.
    verdicts: Vec<String>,
    tables: Vec<Table>,
    class_tables: Vec<Table>,
    confusions: Vec<Confusion>,
    reliabilities: Vec<Reliability>,
    image_tables: Vec<Table>,
    cost: Table,
    has_colors: bool,
    curves: Vec<Figure>,
    /// Beside the curves where there are several runs, which have a loss or more each.
    losses: Vec<Figure>,
    several: bool,
    classes: Vec<ClassRow>,
    void_color: String,
    pictures: Vec<Block>,
    differences: Option<Table>,
    recipes: Vec<(String, String)>,
    manifests: Vec<(String, Vec<(String, String)>)>,
    palette: Vec<(String, &'static str)>,
    letters: String,
    grid: String,
    axis: String,
    wrong: String,
    unscored: [String; 2],
}

struct Headline {
    series: usize,
    name: String,
    /// What, how much in percent, and what stands below.
    numbers: Vec<(&'static str, String, String)>,
}

struct ClassRow {
    name: String,
    color: String,
    bars: Vec<Bar>,
}

struct Bar {
    series: usize,
    run: String,
    /// In percent; `None` for a class that is absent.
    iou: Option<String>,
}

/// The page of one run.
pub(crate) fn single(run: &Run) -> Result<String, ReportError> {
    let column = Column { name: run.name.clone(), series: 0, run, evaluation: run.headline() };
    let mut warnings = Vec::new();
    let lead = match (column.evaluation, run.metrics.last().and_then(|epoch| Some((epoch.epoch, epoch.val.as_ref()?))))
    {
        (Some(evaluation), _) => single_lead(&column, evaluation),
        (None, Some((epoch, scores))) => {
            warnings.push(format!("{} has not been evaluated yet: these are the scores of training.", run.name));
            format!(
                "{} has come as far as epoch {epoch}: by then it labels {} % of the pixels of the {} correctly, and its mean IoU is {} %.",
                run.name,
                percent(scores.pixel_accuracy),
                scores::set_name(&scores.split).to_lowercase(),
                percent(scores.mean_iou),
            )
        }
        (None, None) => {
            warnings.push(format!("{} has no scores yet.", run.name));
            format!("{} has just begun.", run.name)
        }
    };
    let columns = [column];
    let mut tables = vec![scores::splits(&columns[0])];
    tables.retain(|table| !table.rows.is_empty());
    page(&columns, run.name.clone(), "Report of a run", lead, warnings, (Vec::new(), tables))
}

impl Page {
    fn has_uncertainty(&self) -> bool {
        self.pictures.iter().any(Block::has_uncertainty)
    }
}

/// More runs than that have no tables of their own: three stand side by side.
const MOST_TABLES: usize = 3;

/// The page of several evaluated runs with one class table.
pub(crate) fn several(comparison: &Comparison, pairs: &[Paired]) -> Result<String, ReportError> {
    let columns = comparison.columns.as_slice();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    // The lab report has a table for each of its two networks. Of many, the comparison says the same at a glance.
    let with_their_own = if columns.len() > MOST_TABLES { &[] } else { columns };
    let mut tables: Vec<Table> = with_their_own.iter().map(scores::accuracy).collect();
    tables.push(scores::comparison(columns));
    tables.extend(paired::table(pairs));
    tables.extend(details::seeds(columns));
    let (lead, notes) = (comparison.lead(), comparison.notes.clone());
    page(columns, names.join(" · "), "Comparison of runs", lead, notes, (comparison.verdicts(pairs), tables))
}

fn page(
    columns: &[Column],
    title: String,
    kind: &'static str,
    lead: String,
    warnings: Vec<String>,
    (verdicts, mut tables): (Vec<String>, Vec<Table>),
) -> Result<String, ReportError> {
    let colors = scores::colors(columns);
    let has_colors = colors.is_some();
    tables.extend(colors);
    let (mut curves, mut losses) = (curves::scores(columns), curves::losses(columns));
    if columns.len() == 1 {
        losses.append(&mut curves);
        std::mem::swap(&mut curves, &mut losses);
    }
    let first = columns.first().ok_or(ReportError::NoRuns)?.run;
    let page = Page {
        title,
        kind,
        lead,
        facts: facts(first, columns.len() > 1),
        headlines: columns.iter().filter_map(|column| headline(column, columns.len() > 1)).collect(),
        warnings,
        verdicts,
        tables,
        class_tables: match columns {
            [column] => details::classes(column).into_iter().collect(),
            _ => details::class_differences(columns).into_iter().collect(),
        },
        confusions: details::confusions(columns)?,
        reliabilities: details::reliabilities(columns),
        image_tables: match columns {
            [column] => column.evaluation.map_or_else(Vec::new, details::extremes),
            _ => details::disagreements(columns).into_iter().collect(),
        },
        cost: scores::cost(columns),
        has_colors,
        curves,
        losses,
        several: columns.len() > 1,
        classes: classes(columns, first),
        void_color: hex(first.classes.color_of(VOID)),
        pictures: pictures::blocks(columns)?,
        differences: differences::differences(columns).filter(|_| columns.len() > 1),
        recipes: columns.iter().map(|column| (column.name.clone(), column.run.config.clone())).collect(),
        manifests: columns
            .iter()
            .map(|column| (column.name.clone(), column.run.manifest.flattened()))
            .filter(|(_, entries)| !entries.is_empty())
            .collect(),
        palette: PALETTE.iter().map(|&(light, dark)| (hex(light), dark)).collect(),
        letters: hex(LETTERS),
        grid: hex(GRID),
        axis: hex(AXIS),
        wrong: hex(WRONG),
        unscored: UNSCORED.map(hex),
    };
    page.render().map_err(|error| ReportError::Encoding { what: "the page".to_owned(), message: error.to_string() })
}

fn single_lead(column: &Column, evaluation: &Evaluation) -> String {
    let scores = &evaluation.scores;
    format!(
        "{} labels {} % of the pixels of the {} correctly and reaches a mean IoU of {} % over {} classes. Measured on {} images with \
         the {} checkpoint, written after epoch {} of {}; pixels without a label (void) do not count.",
        column.name,
        percent(scores.pixel_accuracy),
        scores::set_name(&scores.split).to_lowercase(),
        percent(scores.mean_iou),
        scores.class_iou.values().flatten().count(),
        scores.images,
        evaluation.checkpoint,
        evaluation.epoch,
        scores::epochs(column.run),
    )
}

/// What the page is about, in a few words each.
fn facts(run: &Run, several: bool) -> Vec<String> {
    let text = |path: &[&str]| run.manifest.text(path).map(str::to_owned);
    let images =
        |key: &str| run.manifest.entries.get("data").and_then(|data| data.get(key)).and_then(serde_json::Value::as_u64);
    let mut facts = Vec::new();
    if !several {
        facts.extend(run.recipe().map(|recipe| format!("recipe {recipe}")));
    }
    facts.extend(text(&["data", "root"]).map(|root| format!("data {root}")));
    if let (Some(train), Some(val)) = (images("train_images"), images("val_images")) {
        facts.push(format!("{} + {} images", scores::grouped(train), scores::grouped(val)));
    }
    facts.push(format!("class table {}", run.classes.name()));
    if !several {
        facts.extend(text(&["device"]));
        facts.extend(text(&["started"]).map(|started| format!("started {started}")));
    }
    facts
}

fn headline(column: &Column, several: bool) -> Option<Headline> {
    let reading_of = |split: &str| scores::reading(column.run, split);
    let split = column.evaluation.map_or("val", |evaluation| evaluation.scores.split.as_str());
    let reading = reading_of(split)?;
    let train = reading_of("train");
    let on_train = |value: Option<Option<f64>>| {
        value.flatten().map_or_else(String::new, |value| format!("{} on the training set", percent(Some(value))))
    };
    let (scores, train) = (reading.scores, train.as_ref().map(|train| train.scores));
    let mut numbers = vec![
        ("Pixel accuracy", percent(scores.pixel_accuracy), on_train(train.map(|train| train.pixel_accuracy))),
        ("Mean IoU", percent(scores.mean_iou), on_train(train.map(|train| train.mean_iou))),
    ];
    if !several {
        numbers.push((
            "Class accuracy",
            percent(scores.class_accuracy),
            on_train(train.map(|train| train.class_accuracy)),
        ));
        let weighted = on_train(train.map(|train| train.frequency_weighted_iou));
        numbers.push(("Frequency-weighted IoU", percent(scores.frequency_weighted_iou), weighted));
    }
    Some(Headline { series: column.series, name: column.name.clone(), numbers })
}

fn classes(columns: &[Column], run: &Run) -> Vec<ClassRow> {
    let rows = run.classes.classes().iter().map(|class| {
        let bars = columns.iter().filter_map(|column| {
            let split = column.evaluation.map_or("val", |evaluation| evaluation.scores.split.as_str());
            let iou = scores::reading(column.run, split)?.scores.class_iou.get(&class.name).copied().flatten();
            let iou = iou.map(|iou| format!("{:.1}", 100.0 * iou));
            Some(Bar { series: column.series, run: column.name.clone(), iou })
        });
        ClassRow { name: class.name.clone(), color: hex(class.color), bars: bars.collect() }
    });
    rows.collect()
}
