//! `cargo xtask compare`: finds the finished runs where none are named.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where runs lie, seen from the caller's folder.
const RUNS: &str = "runs";

#[derive(clap::Args)]
pub(crate) struct Compare {
    /// Run directories; without any, every finished run under `runs`
    runs: Vec<PathBuf>,
    /// Where the comparison goes
    #[arg(long, default_value = "runs/comparison")]
    out: PathBuf,
    /// The data that runs not yet scored are scored on, if not where they were trained
    #[arg(long, value_name = "ROOT")]
    data: Option<OsString>,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long)]
    device: Option<OsString>,
}

impl Compare {
    /// The arguments of `img2seg compare`.
    pub(crate) fn arguments(self) -> Result<Vec<OsString>> {
        let runs = if self.runs.is_empty() { finished_runs(Path::new(RUNS))? } else { self.runs };
        let mut arguments: Vec<OsString> = runs.into_iter().map(OsString::from).collect();
        arguments.extend(["--out".into(), self.out.into()]);
        for (flag, value) in [("--data", self.data), ("--device", self.device)] {
            arguments.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
        }
        Ok(arguments)
    }
}

/// The directories in `folder` that hold a run with its evaluation, in name order.
fn finished_runs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}: cannot list runs", folder.display()))?;
    let mut runs = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    runs.retain(|run| run.join("config.toml").is_file() && run.join("evaluation").is_dir());
    ensure!(!runs.is_empty(), "{}: no finished run here", folder.display());
    runs.sort();
    Ok(runs)
}
