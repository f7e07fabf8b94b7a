//! `img2seg train`: train the networks of a recipe, score them, and write the page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::Context as _;
use img2seg_data::{Split, shown, streets};
use img2seg_training::evaluation_files::Evaluating;
use img2seg_training::manifest;
use img2seg_training::{Outcome, Place, Requests, RunConfig, RunDir, TrainingError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::origin::origin;
use crate::{UsageError, device, evaluate, progress, recipes, table};

/// Train the networks of a recipe.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A built-in recipe (see `img2seg recipes`) or a TOML file
    recipe: String,
    /// The data: a folder, or hub:OWNER/NAME [default: generated streets, where the recipe has them]
    #[arg(long, value_name = "ROOT")]
    data: Option<String>,
    /// The run directory [default: runs/RECIPE]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Replace a key of the recipe, as in --set epochs=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long, default_value = "auto")]
    device: String,
    /// Begin with the weights of a .safetensors, .pt or .pth file
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    weights: Option<PathBuf>,
    /// Go on with the run where it was stopped
    #[arg(long)]
    resume: bool,
    /// Warn of what has changed since the run was made, instead of refusing
    #[arg(long)]
    allow_changes: bool,
    /// Repeat a run: refuse if what made it has changed
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    repeats: Option<PathBuf>,
    /// Stop after this many steps of the run, saved
    #[arg(long, value_name = "STEPS")]
    until: Option<u64>,
    /// Write hashes of every step's tensors to a file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = recipes::load(&arguments.recipe, &arguments.settings)?;
    let directory = arguments.run.clone().unwrap_or_else(|| Path::new("runs").join(&config.recipe));
    if arguments.resume {
        let saved = RunDir::open(&directory)?.config()?;
        if !arguments.settings.is_empty() {
            return Err(UsageError("--set: a run is resumed as it was started".to_owned()).into());
        }
        if !saved.settles(&config) {
            tracing::warn!(
                "{}: goes on with its own config.toml, which differs from {}",
                shown(&directory),
                shown(arguments.recipe.as_ref())
            );
        }
        config = saved;
    } else if RunDir::open(&directory).is_ok() {
        // Said before minutes are spent on data.
        return Err(TrainingError::RunExists { path: directory }.into());
    }
    let recorded = if arguments.resume { manifest::data_root(&RunDir::open(&directory)?) } else { None };
    let root = match (&arguments.data, recorded) {
        (None, Some(root)) => root,
        (given, _) => data_root(given.as_deref(), &config)?,
    };
    let (device, words) = device::open(&arguments.device, config.exactness)?;
    let origin = origin(&words);
    eprintln!("{} on {}, {} threads, data {}", config.recipe, origin.device, origin.threads, shown(&root));

    let signals = Signals::listen()?;
    let place = Place {
        root: &root,
        run: &directory,
        resume: arguments.resume,
        weights: arguments.weights.as_deref(),
        device: &device,
        until: arguments.until,
        trace: arguments.trace.as_deref(),
        repeats: arguments.repeats.as_deref(),
        allow_changes: arguments.allow_changes,
    };
    let (sender, events) = mpsc::channel();
    let outcome = thread::scope(|scope| {
        let epochs = config.epochs;
        scope.spawn(move || progress::show(&events, epochs));
        let outcome = img2seg_training::train(&config, place, &origin, &signals.requests, &sender);
        drop(sender);
        outcome
    });
    if let Err(TrainingError::Diverged { dump: Ok(dump), .. }) = &outcome {
        eprintln!("to take the step again: img2seg replay-step {}", shell_word(dump));
    }
    let outcome = outcome?;
    if outcome.interrupted {
        let (recipe, run) = (shell_word(Path::new(&arguments.recipe)), shell_word(&directory));
        let how = format!("img2seg train {recipe} --run {run} --resume");
        eprintln!("stopped after step {} and saved; to go on: {how}", outcome.progress.steps);
        return Ok(match signals.last.load(Ordering::Relaxed) {
            0 => ExitCode::SUCCESS, // as asked for by --until
            signal => ExitCode::from(128 + signal as u8),
        });
    }
    // The run is whole, and its scores and page can be made at any time: from here on the first signal ends the program.
    signals.requests.stop.store(true, Ordering::Relaxed);
    finish(&directory, &root, &arguments.device, &outcome)?;
    Ok(ExitCode::SUCCESS)
}

/// A path as a word that a shell reads back, on one line: names with control characters, or that are no text, need bash's `$'...'`.
fn shell_word(path: &Path) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=+,@%".contains(c);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_owned(),
        Some(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => format!("$'{}'", path.as_os_str().as_encoded_bytes().escape_ascii()),
    }
}

/// Scores the best checkpoint on train and val, writes the page, and prints both.
fn finish(directory: &Path, root: &Path, device: &str, outcome: &Outcome) -> anyhow::Result<()> {
    let run = RunDir::open(directory)?;
    let mut evaluations = Vec::new();
    for split in [Split::Train, Split::Val] {
        evaluations.push(evaluate::score(&run, Some(root.to_owned()), Evaluating::best(split), device, false)?);
    }
    let page = img2seg_report::write(directory)?;
    if let Some(best) = outcome.progress.best {
        sayln!("best checkpoint: epoch {}; training took {:.0} s", best.epoch, outcome.training_seconds);
    }
    let columns: Vec<_> = evaluations.iter().map(|evaluation| &evaluation.scores).collect();
    say!("{}", table::scores(&columns));
    sayln!("{}", shown(&page));
    Ok(())
}

/// Where the data is: as said, or the recipe's streets, generated where they are missing.
pub(crate) fn data_root(given: Option<&str>, config: &RunConfig) -> anyhow::Result<PathBuf> {
    match (given, &config.data.streets) {
        (Some(name), _) if name.starts_with("hub:") => from_hub(&name["hub:".len()..]),
        (Some(path), _) => Ok(PathBuf::from(path)),
        (None, Some(streets)) => {
            let root = streets::default_root(streets);
            let bar = progress::counter("drawing streets");
            streets::ensure(&root, streets, &|done, total| bar.show(done, total))?;
            Ok(root)
        }
        (None, None) => {
            Err(UsageError(format!("{}: the recipe brings no data; give --data ROOT", config.recipe)).into())
        }
    }
}

#[cfg(feature = "hub")]
fn from_hub(name: &str) -> anyhow::Result<PathBuf> {
    let name: img2seg_hub::DataSetName = name.parse()?;
    let root = name.default_root();
    let bar = progress::counter("unpacking");
    let summary = img2seg_hub::fetch(&name, &root, &|step| {
        if let img2seg_hub::Progress::Writing { done, total } = step {
            bar.show(done, total);
        }
    })?;
    if summary.val_from_train > 0 {
        eprintln!("{name}: has no validation split; the last {} pairs of train are held out", summary.val_from_train);
    }
    Ok(root)
}

#[cfg(not(feature = "hub"))]
fn from_hub(name: &str) -> anyhow::Result<PathBuf> {
    let text =
        format!("--data hub:{name}: this program was built without the feature hub (cargo xtask train turns it on)");
    Err(UsageError(text).into())
}

/// SIGINT and SIGTERM end the run after its present step; a second one ends it at once. SIGUSR1 saves it.
struct Signals {
    requests: Requests,
    last: Arc<AtomicUsize>,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let (stop, save, last) = (Arc::default(), Arc::default(), Arc::default());
        for signal in [SIGINT, SIGTERM] {
            // Actions run in this order: only a second signal finds the flag set.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop)).context("signals")?;
            flag::register_usize(signal, Arc::clone(&last), signal as usize).context("signals")?;
            flag::register(signal, Arc::clone(&stop)).context("signals")?;
        }
        // Slurm's habit, some time before it takes the machine away.
        #[cfg(unix)]
        flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&save)).context("signals")?;
        Ok(Self { requests: Requests { stop, save }, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        for (path, word) in
            [("runs/a-1", "runs/a-1"), ("my run", "'my run'"), ("it's", r"'it'\''s'"), ("", "''"), ("a;b", "'a;b'")]
        {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[cfg(unix)]
    #[test]
    fn words_are_one_line_that_bash_reads_back() {
        use std::os::unix::ffi::OsStrExt as _;
        for bytes in [&b"two\nlines"[..], b"it's \"$HOME\"\\\r\x1B[2J", b"\xFE 1", "é\u{85}1\t`a`".as_bytes(), b"$'a'"]
        {
            let word = shell_word(Path::new(std::ffi::OsStr::from_bytes(bytes)));
            assert!(!word.contains(char::is_control), "{word:?}");
            let script = format!("printf %s {word}");
            let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, bytes, "{word}");
        }
    }
}
