//! `cargo xtask sweep GRID.toml`: trains recipes over several seeds, one run after the other, and sets their scores in one table.
//!
//! What is done is told by the runs' own directories, so a sweep that was stopped or killed at any point goes on when it is started again.

mod grid;
mod recipe;
mod run;
mod table;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use xshell::Shell;

use crate::program;
use grid::Grid;
use run::{Run, State};
use table::Line;

/// What the program ends with after SIGINT and SIGTERM, with the run saved.
const STOPPED: [i32; 2] = [128 + 2, 128 + 15];

#[derive(clap::Args)]
pub(crate) struct Sweep {
    /// The grid: a TOML file of recipes, seeds and settings
    #[arg(value_name = "GRID.toml")]
    grid: PathBuf,
    /// The data of all runs [default: the grid's, else the recipes' own]
    #[arg(long, value_name = "ROOT")]
    data: Option<String>,
    /// The split that the table is of: train, val or test
    #[arg(long, default_value = "val", value_parser = ["train", "val", "test"])]
    split: String,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long)]
    device: Option<String>,
    /// Where sweeps go, each into a folder of its name
    #[arg(long, value_name = "DIR", default_value = "runs/sweeps")]
    runs: PathBuf,
    /// Go on with and score runs although data, device or libraries have changed since
    #[arg(long)]
    allow_changes: bool,
    /// List what is done and what would be trained
    #[arg(long)]
    dry_run: bool,
}

impl Sweep {
    pub(crate) fn run(self, shell: &Shell) -> Result<ExitCode> {
        let grid = Grid::read(&self.grid)?;
        let runs = run::all(&grid, &self.runs.join(&grid.name))?;
        if self.dry_run {
            return self.list(&runs);
        }
        let program = program::build(shell, &program::features(&self.flags(&grid)))?;
        self.sweep(&program, &grid, &runs)
    }

    /// A line for each run: what is done, and what would be.
    fn list(&self, runs: &[Run]) -> Result<ExitCode> {
        let width = runs.iter().map(|run| run.name.len()).max().unwrap_or(0);
        let mut code = ExitCode::SUCCESS;
        for run in runs {
            let text = match run.state()? {
                State::New => "to train".to_owned(),
                State::Begun { epochs } => format!("to go on with, after epoch {epochs}"),
                State::Trained if run.is_scored(&self.split)? => "done".to_owned(),
                State::Trained => format!("trained; to score on {}", self.split),
                State::Changed { differences } => {
                    code = ExitCode::FAILURE;
                    format!("refused: {}", changed(&differences))
                }
            };
            println!("{:<width$}  {text}", run.name);
        }
        Ok(code)
    }

    /// Does what is to be done, run after run, and writes and prints the table. A run that fails is told, and the others go on.
    fn sweep(&self, program: &Path, grid: &Grid, runs: &[Run]) -> Result<ExitCode> {
        let (mut lines, mut failures) = (Vec::new(), Vec::new());
        for (row, seeds) in grid.rows.iter().zip(runs.chunks(grid.seeds.len())) {
            let mut line = Line { row, epochs: seeds[0].recipe.epochs(), outcomes: Vec::new() };
            for run in seeds {
                eprintln!("== {}", run.name);
                let end = self.one(program, grid, run);
                if let Ok(End::Stopped(code)) = end {
                    eprintln!("stopped; to go on, start the sweep again");
                    return Ok(ExitCode::from(code));
                }
                match end.and_then(|_| run.outcome(&self.split)) {
                    Ok(outcome) => line.outcomes.push(outcome),
                    Err(error) => {
                        eprintln!("error: {}: {error:#}", run.name);
                        failures.push(format!("{}: {error:#}", run.name));
                    }
                }
            }
            lines.push(line);
        }
        let folder = self.runs.join(&grid.name);
        let markdown = table::markdown(grid, &self.split, &lines);
        let json = serde_json::to_string_pretty(&table::json(grid, &self.split, &lines))?;
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (name, text) in [("table.md", &markdown), ("table.json", &format!("{json}\n"))] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        print!("{markdown}");
        for failure in &failures {
            println!("FAILED {failure}");
        }
        Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Trains a run to its end from where it is, and scores it.
    fn one(&self, program: &Path, grid: &Grid, run: &Run) -> Result<End> {
        let directory = run.directory.as_os_str();
        let mut arguments: Vec<OsString> = vec!["train".into()];
        match run.state()? {
            State::New => {
                arguments.push((&run.row.recipe).into());
                arguments.extend([format!("--set=seed={}", run.seed).into(), "--run".into(), directory.into()]);
                arguments.extend(run.row.settings.iter().map(|setting| format!("--set={setting}").into()));
            }
            State::Begun { .. } => {
                arguments.push(run.directory.join("config.toml").into());
                arguments.extend(["--resume".into(), "--run".into(), directory.into()]);
            }
            State::Trained => arguments.clear(),
            State::Changed { differences } => anyhow::bail!("{}", changed(&differences)),
        }
        if !arguments.is_empty() {
            arguments.extend(self.flags(grid));
            if let End::Stopped(code) = start(program, &arguments)? {
                return Ok(End::Stopped(code));
            }
        }
        if run.is_scored(&self.split)? {
            return Ok(End::Done);
        }
        let mut arguments: Vec<OsString> = vec!["evaluate".into(), directory.into()];
        arguments.extend(["--split".into(), (&self.split).into()]);
        arguments.extend(self.flags(grid));
        start(program, &arguments)
    }

    /// The flags that every call of the program takes.
    fn flags(&self, grid: &Grid) -> Vec<OsString> {
        let given = [("--data", self.data.as_ref().or(grid.data.as_ref())), ("--device", self.device.as_ref())];
        let pairs = given.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?.into()]));
        pairs.flatten().chain(self.allow_changes.then(|| "--allow-changes".into())).collect()
    }
}

/// How a run, or one call of the program for it, ended where it did not fail.
enum End {
    Done,
    /// By a signal, with this exit code.
    Stopped(u8),
}

fn changed(differences: &[String]) -> String {
    format!("was trained otherwise: {}; name it otherwise, or remove its directory", differences.join(", "))
}

/// Runs the program with its progress on this standard error stream. It hears of a Ctrl-C by itself, saves, and is waited for where this
/// process lives on.
fn start(program: &Path, arguments: &[OsString]) -> Result<End> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().with_context(|| format!("{}: cannot start", program.display()))?;
    let name = arguments.first().map_or_else(String::new, |name| name.display().to_string());
    match status.code() {
        Some(0) => Ok(End::Done),
        Some(code) if STOPPED.contains(&code) => Ok(End::Stopped(code as u8)),
        _ => anyhow::bail!("img2seg {name}: {status}"),
    }
}
