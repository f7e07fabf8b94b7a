//! The `img2seg` program: reads the command line, calls the library crates, and shows what they say.

/// `print!`, but a reader that has gone away (`img2seg ... | head`) is no error.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($argument)*);
    }};
}

/// `println!`, likewise.
macro_rules! sayln {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

mod compare;
mod data;
mod device;
mod evaluate;
mod find_lr;
mod origin;
mod predict;
mod progress;
mod recipes;
mod replay_step;
mod table;
mod train;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use img2seg_ops::BySize;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

/// Training allocates and frees the same large tensors every step: their memory is kept for them, and the rest by an allocator that keeps
/// its pages, see [`with_environment`].
#[global_allocator]
static ALLOCATOR: BySize<MiMalloc> = BySize::new(MiMalloc);

/// Trains, evaluates and compares networks that translate a street photo into its semantic label map.
#[derive(Parser)]
#[command(name = "img2seg", version, arg_required_else_help = true)]
struct Arguments {
    /// Threads of the CPU to use [default: all]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Compute as a lesser processor would, to repeat what one has computed: portable or avx2 [default: with all there is]
    #[arg(long, global = true, value_name = "KIND")]
    arithmetic: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the networks of a recipe
    Train(train::Arguments),
    /// Try learning rates, and suggest one
    FindLr(find_lr::Arguments),
    /// Score a trained run on a split
    Evaluate(evaluate::Arguments),
    /// Label photos with a trained run
    Predict(predict::Arguments),
    /// Tell which of several runs is better, and where
    Compare(compare::Arguments),
    /// Take a step again at which a run diverged
    ReplayStep(replay_step::Arguments),
    /// Show, check or generate data
    #[command(subcommand)]
    Data(data::Command),
    /// List the built-in recipes, or print one
    Recipes(recipes::Arguments),
}

/// An error of the command line: exit code 2, as for those that clap finds.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

fn main() -> ExitCode {
    with_environment();
    let filter = EnvFilter::try_from_env("IMG2SEG_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .init();
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// What went wrong, and why. The libraries' errors end with their cause, which is not said twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Starts the program anew, in the same process, with what its libraries read from the environment and take from nowhere else. What the
/// user has set stays.
///
/// `CANDLE_NUM_THREADS=1` turns candle's own thread pool off. It adds gradients, and waits for its threads by spinning: on a busy machine
/// it takes the cores from our kernels (measured: half the images a second).
///
/// `MIMALLOC_PURGE_DELAY=-1` lets the allocator keep the pages that a step has freed. It gives them back to the system otherwise, and
/// the next step faults them in again (measured: 9000 faults in 20 steps instead of 300, a tenth of the time). Memory stays at its peak.
#[cfg(unix)]
fn with_environment() {
    use std::os::unix::process::CommandExt as _;
    let mut variables = vec![("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "-1")];
    variables.retain(|(name, _)| std::env::var_os(name).is_none());
    let mut arguments = std::env::args_os();
    if !variables.is_empty()
        && let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next())
    {
        // Returns only when it fails; the libraries then have their own ways.
        let _ = std::process::Command::new(program).arg0(name).args(arguments).envs(variables).exec();
    }
}

#[cfg(not(unix))]
fn with_environment() {}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    device::use_threads(arguments.threads)?;
    if let Some(arithmetic) = &arguments.arithmetic {
        device::limit_arithmetic(arithmetic)?;
    }
    match arguments.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::FindLr(arguments) => find_lr::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Evaluate(arguments) => evaluate::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::ReplayStep(arguments) => replay_step::run(&arguments),
        Command::Data(command) => data::run(command),
        Command::Recipes(arguments) => recipes::run(&arguments).map(|()| ExitCode::SUCCESS),
    }
}
