//! `cargo xtask`: what cargo alone cannot do. It builds the program with the features that the arguments ask for and
//! becomes it, fills in what a command leaves out, and runs the project's checks in their order.
//!
//! It links no crate of the workspace, so it compiles in seconds. The working directory stays the caller's.

mod bench;
mod ci;
mod compare;
mod parity;
mod program;
mod reproduce;
mod sweep;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use xshell::Shell;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Builds and runs img2seg, and checks it", disable_help_subcommand = true)]
enum Xtask {
    /// Train a recipe, `quickstart` if none is named: [RECIPE|FILE] [img2seg train's arguments]
    #[command(disable_help_flag = true)]
    Train(Forwarded),
    /// Try learning rates and suggest one, for `quickstart` if no recipe is named: [RECIPE|FILE] [img2seg find-lr's arguments]
    #[command(disable_help_flag = true)]
    FindLr(Forwarded),
    /// Score a run: RUN [img2seg evaluate's arguments]
    #[command(disable_help_flag = true)]
    Evaluate(Forwarded),
    /// Predict the label maps of photos: RUN INPUT... --out DIR
    #[command(disable_help_flag = true)]
    Predict(Forwarded),
    /// Take a step again at which a run diverged: DUMP
    #[command(disable_help_flag = true)]
    ReplayStep(Forwarded),
    /// Show, check or generate data: show|check|streets [img2seg data's arguments]
    #[command(disable_help_flag = true)]
    Data(Forwarded),
    /// List the recipes that the program carries
    #[command(disable_help_flag = true)]
    Recipes(Forwarded),
    /// Set runs side by side on one page
    Compare(compare::Compare),
    /// Compare our networks and layers with what PyTorch computed
    Parity(parity::Parity),
    /// Time training steps, inference, layers and the loader, beside PyTorch if there is one
    Bench(bench::Bench),
    /// Train again and compare: the smoke recipes with their golden traces, or a run with itself
    Reproduce(reproduce::Reproduce),
    /// Train and score every run of a grid, over several seeds, into one table
    Sweep(sweep::Sweep),
    /// Run every check: tests, format, lints, documentation
    Ci(ci::Ci),
}

/// Arguments that are the program's own.
#[derive(clap::Args)]
struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    run(Xtask::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(xtask: Xtask) -> Result<ExitCode> {
    let shell = Shell::new()?;
    match xtask {
        Xtask::Train(train) => program::run(&shell, "train", &program::with_recipe(train.arguments)),
        Xtask::FindLr(find) => program::run(&shell, "find-lr", &program::with_recipe(find.arguments)),
        Xtask::Evaluate(evaluate) => program::run(&shell, "evaluate", &evaluate.arguments),
        Xtask::Predict(predict) => program::run(&shell, "predict", &predict.arguments),
        Xtask::ReplayStep(step) => program::run(&shell, "replay-step", &step.arguments),
        Xtask::Data(data) => program::run(&shell, "data", &data.arguments),
        Xtask::Recipes(recipes) => program::run(&shell, "recipes", &recipes.arguments),
        Xtask::Compare(compare) => program::run(&shell, "compare", &compare.arguments()?),
        Xtask::Parity(parity) => parity.run(&shell),
        Xtask::Bench(bench) => bench.run(&shell),
        Xtask::Reproduce(reproduce) => reproduce.run(&shell),
        Xtask::Sweep(sweep) => sweep.run(&shell),
        Xtask::Ci(ci) => ci.run(&shell),
    }
}
