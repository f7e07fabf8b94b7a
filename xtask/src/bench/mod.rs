//! `cargo xtask bench`: how long our steps take, and how long PyTorch takes for the same, in turns within one run.
//!
//! Each case has processes of its own, one a side: `tests/benches/worker` and `tests/pytorch/bench.py`. So their peaks of memory are the case's.

mod case;
mod row;
mod worker;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::program::workspace_root;
use case::Case;
use row::{Row, Side};
use worker::Worker;

/// Untimed steps: allocators and caches fill, and what is compiled is compiled.
const WARM_UP: usize = 3;

/// What a turn lasts at least, as many steps as that takes.
const TURN_MS: f64 = 200.0;

/// After it, the threads that wait for work by spinning have gone to sleep.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Only cases whose names contain one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// A Python with torch (and torchvision for the loader), which takes turns with us
    #[arg(long, value_name = "PYTHON")]
    pytorch: Option<PathBuf>,
    /// Also a row of PyTorch's compiled networks; wants a C++ compiler
    #[arg(long, requires = "pytorch")]
    compile: bool,
    /// Threads of each side [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// Also ours with one thread, in the same turns
    #[arg(long)]
    one_thread: bool,
    /// What computes; cuda-fastest measures cuDNN's algorithms and takes the fastest, as PyTorch's side does on any GPU
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "cuda", "cuda-fastest"])]
    device: String,
    /// What convolutions may round, on both sides; on a GPU `fast` is TF32 and `direct` full f32
    #[arg(long, default_value = "fast", value_parser = ["fast", "direct", "bf16"])]
    exactness: String,
    /// Turns that each side takes
    #[arg(long, default_value = "15", value_name = "N", value_parser = at_least_one)]
    rounds: usize,
    /// Where the rows go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a number".to_owned()),
    }
}

/// Who takes turns, and how they are started.
struct Sides {
    program: PathBuf,
    python: Option<PathBuf>,
    compile: bool,
    one_thread: bool,
    device: String,
    exactness: String,
    threads: usize,
}

impl Bench {
    pub(crate) fn run(self, shell: &Shell) -> Result<ExitCode> {
        let cases = case::select(case::all(&self.device), &self.filters)?;
        let threads = match self.threads {
            Some(threads) => threads,
            None => thread::available_parallelism()?.get(),
        };
        let mut sides = Sides {
            program: PathBuf::new(),
            python: self.pytorch,
            compile: self.compile,
            one_thread: self.one_thread,
            device: self.device,
            exactness: self.exactness,
            threads,
        };
        if sides.python.is_some() {
            sides.start_pytorch(&["check"])?;
        }
        if let Some(path) = &self.json {
            write_json(path, &[])?; // said before minutes are spent
        }
        sides.program = build(shell, &sides.device)?;

        let mut rows = Vec::new();
        for case in &cases {
            let measured = sides.measure(shell, case, self.rounds).with_context(|| case.name.clone())?;
            for row in &measured {
                eprintln!("{}", row.line());
            }
            rows.extend(measured);
            if let Some(path) = &self.json {
                write_json(path, &rows)?;
            }
        }
        print!("{}", row::table(&rows));
        Ok(ExitCode::SUCCESS)
    }
}

fn write_json(path: &Path, rows: &[Row]) -> Result<()> {
    fs::write(path, row::json(rows)).with_context(|| path.display().to_string())
}

/// Builds our worker, optimised, and says where it is.
fn build(shell: &Shell, device: &str) -> Result<PathBuf> {
    let manifest = workspace_root().join("Cargo.toml");
    let features = if device == "cpu" { "" } else { "cuda" };
    let messages = cmd!(
        shell,
        "cargo build --release --manifest-path {manifest} --package img2seg-tests --bench worker --features {features}
         --message-format=json-render-diagnostics"
    );
    worker::executable(&messages.quiet().read()?).context("cargo build: made no worker")
}

impl Sides {
    /// Ours beside PyTorch's, and beside PyTorch's compiled. A case that only PyTorch fails keeps our column.
    fn measure(&self, shell: &Shell, case: &Case, rounds: usize) -> Result<Vec<Row>> {
        let folder = case.loads().then(|| shell.create_temp_dir()).transpose()?;
        let mut words: Vec<String> = case.words.clone();
        words.extend(folder.as_ref().map(|folder| folder.path().display().to_string()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();

        let mut ours = vec![self.start_ours(&words, self.threads)?];
        if self.one_thread {
            ours.push(self.start_ours(&words, 1)?);
        }
        let mut theirs = Vec::new();
        if self.python.is_some() {
            theirs.push((case.name.clone(), self.start_pytorch(&words)));
        }
        if self.compile && case.has_networks() {
            let words = [&["compile"], &words[..]].concat();
            theirs.push((format!("{} (compiled)", case.name), self.start_pytorch(&words)));
        }
        for worker in theirs.iter().filter_map(|(_, worker)| worker.as_ref().ok()) {
            ensure!(
                worker.size == ours[0].size,
                "{} trained numbers or images, PyTorch has {}: not the same case",
                ours[0].size,
                worker.size
            );
        }

        let mut fastest = f64::INFINITY;
        for _ in 0..WARM_UP {
            fastest = take_turns(&mut ours, &mut theirs, 1)?;
        }
        let steps = (TURN_MS / fastest).ceil().clamp(1.0, 1000.0) as usize;
        for worker in ours.iter_mut().chain(theirs.iter_mut().filter_map(|(_, worker)| worker.as_mut().ok())) {
            worker.times.clear();
        }
        for _ in 0..rounds {
            take_turns(&mut ours, &mut theirs, steps)?;
        }

        let on_device = self.device != "cpu";
        let memory = |worker: &mut Worker| if on_device { worker.device_mib() } else { Ok(worker.peak_mib()) };
        let sides = ours.iter_mut().map(|worker| memory(worker).map(|mib| Side::of(&worker.times, mib)));
        let mut sides = sides.collect::<Result<Vec<_>>>()?.into_iter();
        let (ours, alone) = (sides.next().context("no side of ours")?, sides.next());
        let row =
            |case, pytorch| Row { case, threads: self.threads, ours: ours.clone(), alone: alone.clone(), pytorch };
        if theirs.is_empty() {
            return Ok(vec![row(case.name.clone(), None)]);
        }
        let side = |mut worker: Worker| {
            // What the loader's processes share cannot be told apart.
            let mib = if case.loads() { None } else { memory(&mut worker)? };
            Ok(Side::of(&worker.times, mib))
        };
        let pytorch = |worker: Result<Worker>| worker.and_then(side).map_err(|error| format!("{error:#}"));
        Ok(theirs.into_iter().map(|(name, worker)| row(name, Some(pytorch(worker)))).collect())
    }

    /// With the threads and the allocator that the program has, by the variables that it sets itself (`crates/cli/src/main.rs`).
    fn start_ours(&self, words: &[&str], threads: usize) -> Result<Worker> {
        let mut command = Command::new(&self.program);
        command.args([&self.device, &self.exactness]).args(words);
        command.env("RAYON_NUM_THREADS", threads.to_string());
        for (name, value) in [("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "-1")] {
            if env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        Worker::start(command)
    }

    /// With an allocator that keeps its pages, and asks for huge ones, as ours does.
    fn start_pytorch(&self, words: &[&str]) -> Result<Worker> {
        let python = self.python.as_ref().context("no Python")?;
        // PyTorch's side takes the fastest algorithms in any case.
        let device = if self.device == "cpu" { "cpu" } else { "cuda" };
        let mut command = Command::new(python);
        command.arg(workspace_root().join("tests/pytorch/bench.py")).args([device, &self.exactness]).args(words);
        command.env("OMP_NUM_THREADS", self.threads.to_string());
        command.env("MALLOC_MMAP_THRESHOLD_", (4_u64 << 30).to_string());
        command.env("MALLOC_TRIM_THRESHOLD_", (8_u64 << 30).to_string());
        if env::var_os("GLIBC_TUNABLES").is_none() {
            command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
        }
        Worker::start(command)
    }
}

/// `steps` of each of ours, then of each of theirs that has not failed; the fewest milliseconds of one step.
fn take_turns(ours: &mut [Worker], theirs: &mut [(String, Result<Worker>)], steps: usize) -> Result<f64> {
    let mut fastest = f64::INFINITY;
    for worker in ours {
        fastest = fastest.min(worker.run(steps)?);
        thread::sleep(PAUSE);
    }
    for (_, theirs) in theirs {
        let Ok(worker) = theirs else { continue };
        match worker.run(steps) {
            Ok(milliseconds) => fastest = fastest.min(milliseconds),
            Err(error) => *theirs = Err(error),
        }
        thread::sleep(PAUSE);
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn parsed(words: &str) -> Result<Bench, String> {
        let words = std::iter::once("bench").chain(words.split_whitespace());
        Line::try_parse_from(words).map(|line| line.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_line_asks_for_is_understood() {
        let bench =
            parsed("train infer --pytorch py --compile --threads 3 --rounds 9 --one-thread --json rows.json").unwrap();
        assert_eq!((bench.filters.len(), bench.threads, bench.rounds), (2, Some(3), 9));
        assert!(bench.compile && bench.one_thread && bench.pytorch == Some("py".into()));
        let bench = parsed("").unwrap();
        assert_eq!((&*bench.device, &*bench.exactness, bench.rounds), ("cpu", "fast", 15));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (words, name) in [
            ("--threads 0", "--threads <N>': must be at least 1"),
            ("--rounds many", "--rounds <N>': not a number"),
            ("--compile", "--pytorch <PYTHON>"),
            ("--device tpu", "--device <DEVICE>"),
            ("--exactness exact", "--exactness <EXACTNESS>"),
            ("--thread 2", "--thread"),
        ] {
            let error = parsed(words).err().unwrap();
            assert!(error.contains(name), "{words}: {error}");
        }
        let missing = Path::new("no/such/folder/rows.json");
        assert_eq!(write_json(missing, &[]).unwrap_err().to_string(), missing.display().to_string());
    }
}
