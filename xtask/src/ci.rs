//! `cargo xtask ci`: every check of the project, in the order in which one wants to hear of a failure.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

use crate::program::workspace_root;

#[derive(clap::Args)]
pub(crate) struct Ci {
    /// Also the ops under an address sanitizer, and the checks of the release build: parity with PyTorch, golden traces, runs that are
    /// killed fifty times or take 20,000 steps, and a run of each smoke recipe, alone and in a sweep
    #[arg(long)]
    full: bool,
}

/// One check; `tool` is the cargo subcommand or program that has to be installed for it, where that is not certain.
struct Step<'a> {
    command: Cmd<'a>,
    tool: Option<&'static str>,
}

impl Ci {
    /// Runs the steps until one fails, and returns that one's exit code.
    pub(crate) fn run(&self, shell: &Shell) -> Result<ExitCode> {
        shell.change_dir(workspace_root());
        let runs = shell.create_temp_dir()?;
        let mut steps = every_time(shell);
        if self.full {
            steps.extend(sanitized(shell));
            steps.extend(release_build(shell, runs.path()));
        }

        let mut summary = Vec::new();
        for step in steps {
            let name = step.command.to_string();
            if let Some(tool) = step.tool
                && !installed(shell, tool)
            {
                println!("\n== SKIPPED: {name}: {tool} is not installed");
                summary.push(format!(" skipped  {name}"));
                continue;
            }
            println!("\n== {name}");
            let start = Instant::now();
            let status = Command::from(step.command).status().with_context(|| format!("cannot start {name}"))?;
            summary.push(format!("{:>8}  {name}", seconds(start.elapsed())));
            if !status.success() {
                print_summary(&summary);
                println!("FAILED: {name}");
                return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
            }
        }
        print_summary(&summary);
        println!("passed");
        Ok(ExitCode::SUCCESS)
    }
}

/// What has to hold at every commit.
fn every_time(shell: &Shell) -> Vec<Step<'_>> {
    // the program's feature `hub` is in no other step; lints and documentation share what they compile
    let hub = "--features=img2seg/hub";
    vec![
        needs(None, cmd!(shell, "cargo test")),
        needs(None, cmd!(shell, "cargo test --package img2seg-hub")),
        needs(None, cmd!(shell, "cargo fmt --all --check")),
        needs(None, cmd!(shell, "cargo clippy --workspace --all-targets {hub} -- -D warnings")),
        needs(None, cmd!(shell, "cargo doc --workspace --no-deps {hub}").env("RUSTDOCFLAGS", "-D warnings")),
        needs(Some("cargo-deny"), cmd!(shell, "cargo deny check")),
        needs(Some("mdbook"), cmd!(shell, "mdbook build docs")),
    ]
}

/// The tests of the crate with most unsafe code, where every access outside its memory ends the program. The compiler that the project
/// names has the sanitizer, and calls it unstable.
fn sanitized(shell: &Shell) -> Option<Step<'_>> {
    let target = "x86_64-unknown-linux-gnu";
    let test = cmd!(shell, "cargo test --package img2seg-ops --lib --target {target} --target-dir target/sanitizer");
    cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))
        .then(|| needs(None, test.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address")))
}

/// What takes the optimised program: it must compute what the tests have seen, and train from end to end.
fn release_build<'a>(shell: &'a Shell, runs: &Path) -> Vec<Step<'a>> {
    let [unet, cgan, comparison, sweeps] = ["unet", "cgan", "comparison", "sweeps"].map(|name| runs.join(name));
    vec![
        needs(None, cmd!(shell, "cargo xtask parity")),
        needs(None, cmd!(shell, "cargo xtask reproduce")),
        needs(None, cmd!(shell, "cargo test --release --package img2seg --test cli -- --ignored --nocapture")),
        needs(None, cmd!(shell, "cargo xtask train smoke-unet --run {unet}")),
        needs(None, cmd!(shell, "cargo xtask train smoke-cgan --run {cgan}")),
        needs(None, cmd!(shell, "cargo xtask compare {unet} {cgan} --out {comparison}")),
        needs(None, cmd!(shell, "cargo xtask sweep data/sweeps/smoke.toml --runs {sweeps}")),
    ]
}

fn needs<'a>(tool: Option<&'static str>, command: Cmd<'a>) -> Step<'a> {
    Step { command, tool }
}

fn installed(shell: &Shell, tool: &str) -> bool {
    cmd!(shell, "{tool} --version").quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

fn print_summary(lines: &[String]) {
    println!("\n== summary\n{}", lines.join("\n"));
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
