//! `img2seg compare`: which of several runs is better, by how much, how sure that is, and where.

use std::path::PathBuf;

use img2seg_data::{Split, shown};
use img2seg_training::RunDir;
use img2seg_training::evaluation_files::Evaluating;

use crate::evaluate;

/// Tell which of several runs is better, by how much, how sure that is, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run directories; the others are held against the first
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where the report goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The data that runs not yet scored are scored on, if not where they were trained
    #[arg(long, value_name = "ROOT")]
    data: Option<PathBuf>,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long, default_value = "auto")]
    device: String,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for path in &arguments.runs {
        let run = RunDir::open(path)?;
        for split in [Split::Train, Split::Val] {
            if !run.file("evaluation").join(split.to_string()).join("scores.json").is_file() {
                evaluate::score(&run, arguments.data.clone(), Evaluating::best(split), &arguments.device, false)?;
            }
        }
    }
    let compared = img2seg_report::compare(&arguments.runs, &arguments.out)?;
    say!("{}", compared.summary);
    sayln!("\n{}", shown(&compared.page));
    Ok(())
}
