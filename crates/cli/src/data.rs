//! `img2seg data`: show, check or generate data.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use img2seg_data::streets::StreetsConfig;
use img2seg_data::{
    ClassCounts, ClassTable, DataConfig, Dataset, Direction, FindingKind, Layout, Split, SplitReport, check, shown,
    streets,
};

use crate::table::percent;
use crate::{progress, recipes};

/// Show, check or generate data.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Draw some pairs, the class legend and the class frequencies into one picture
    Show(Show),
    /// Read every file and list what is broken, of odd size, or coloured off the class table
    Check(Check),
    /// Generate street scenes
    Streets(Streets),
}

/// How the data below a root is to be read.
#[derive(clap::Args)]
struct Source {
    /// The data's folder
    root: PathBuf,
    /// The class table: cityscapes, camvid or a TOML file
    #[arg(long, default_value = "cityscapes")]
    classes: String,
    /// Pairs have the label map in their left half
    #[arg(long)]
    label_left: bool,
}

/// Draw some pairs, the class legend and the class frequencies into one picture.
#[derive(clap::Args)]
pub(crate) struct Show {
    #[command(flatten)]
    source: Source,
    /// The split: train, val or test
    #[arg(long, default_value = "train")]
    split: Split,
    /// Pairs to draw
    #[arg(long, default_value_t = 6)]
    count: usize,
    /// The picture
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
}

/// Read every file and list what is broken, of odd size, or coloured off the class table.
#[derive(clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    source: Source,
}

/// Generate street scenes.
#[derive(clap::Args)]
pub(crate) struct Streets {
    /// Where the pairs go [default: data/streets/WIDTHxHEIGHT-TRAIN+VAL-seedSEED]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The recipe whose scenes are made; the other options change them
    #[arg(long, default_value = "quickstart")]
    recipe: String,
    /// Scenes to train on
    #[arg(long)]
    train: Option<usize>,
    /// Scenes to validate on
    #[arg(long)]
    val: Option<usize>,
    /// Rows of the photo
    #[arg(long)]
    height: Option<usize>,
    /// Columns of the photo
    #[arg(long)]
    width: Option<usize>,
    /// The seed
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Show(arguments) => show(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Check(arguments) => run_check(&arguments),
        Command::Streets(arguments) => run_streets(&arguments).map(|()| ExitCode::SUCCESS),
    }
}

impl Source {
    fn open(&self) -> anyhow::Result<(DataConfig, Arc<ClassTable>)> {
        let mut config = recipes::load("quickstart", &[])?.data;
        config.layout = Layout::Auto;
        config.direction = if self.label_left { Direction::LabelLeft } else { Direction::PhotoLeft };
        config.classes.clone_from(&self.classes);
        Ok((config, Arc::new(ClassTable::load(&self.classes)?)))
    }
}

fn show(arguments: &Show) -> anyhow::Result<()> {
    let (config, classes) = arguments.source.open()?;
    let dataset = Dataset::open(&arguments.source.root, arguments.split, &config, classes.clone())?;
    let bar = progress::counter("counting");
    let counts = ClassCounts::of(&dataset, &|done, total| bar.show(done, total))?;
    let mut frequencies = counts.frequencies();
    frequencies.push(counts.void_share());
    let drawn = img2seg_training::evaluate::evenly_spread(dataset.len(), arguments.count);
    let samples = drawn.into_iter().map(|index| dataset.sample(index)).collect::<Result<Vec<_>, _>>()?;
    let title = format!("{} {}: {} pairs", shown(&arguments.source.root), arguments.split, dataset.len());
    let sheet = img2seg_report::dataset_sheet(&samples, &classes, &frequencies, &title);
    sheet.save(&arguments.out).with_context(|| shown(&arguments.out))?;
    sayln!("{}", shown(&arguments.out));
    Ok(())
}

fn run_check(arguments: &Check) -> anyhow::Result<ExitCode> {
    let (config, classes) = arguments.source.open()?;
    let root = &arguments.source.root;
    let layout = Layout::detect(root)?;
    let splits = layout.splits(root)?;
    let bar = progress::counter("reading");
    let report = check(root, &splits, &config, &classes, &|_, done, total| bar.show(done, total));
    for split in &report.splits {
        print_split(split, &classes);
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_split(split: &SplitReport, classes: &ClassTable) {
    let mut sizes: Vec<_> = split.sizes.iter().collect();
    sizes.sort_by_key(|(_, files)| std::cmp::Reverse(**files));
    let sizes: Vec<String> =
        sizes.iter().take(3).map(|((height, width), files)| format!("{width}x{height} ({files})")).collect();
    sayln!("{}: {} files; sizes {}", split.split, split.files, sizes.join(", "));
    let mut shares: Vec<_> = classes.classes().iter().zip(split.counts.frequencies()).collect();
    shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    for (class, share) in shares.iter().filter(|(_, share)| *share > 0.0) {
        sayln!("  {:<22}{:>10}", class.name, percent(Some(*share)));
    }
    sayln!("  {:<22}{:>10}", "void", percent(Some(split.counts.void_share())));
    for finding in &split.findings {
        let kind = match finding.kind {
            FindingKind::Broken => "broken",
            FindingKind::Size => "size",
            FindingKind::Colors => "colours",
        };
        sayln!("  {kind}: {}", finding.text);
    }
}

fn run_streets(arguments: &Streets) -> anyhow::Result<()> {
    let recipe = recipes::load(&arguments.recipe, &[])?;
    let base = recipe.data.streets.with_context(|| format!("{}: has no streets", arguments.recipe))?;
    let config = StreetsConfig {
        train: arguments.train.unwrap_or(base.train),
        val: arguments.val.unwrap_or(base.val),
        height: arguments.height.unwrap_or(base.height),
        width: arguments.width.unwrap_or(base.width),
        seed: arguments.seed.unwrap_or(base.seed),
    };
    let root = arguments.out.as_deref().map_or_else(|| streets::default_root(&config), Path::to_owned);
    let bar = progress::counter("drawing streets");
    streets::ensure(&root, &config, &|done, total| bar.show(done, total))?;
    sayln!("{}", shown(&root));
    Ok(())
}
