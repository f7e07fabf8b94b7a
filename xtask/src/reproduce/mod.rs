//! `cargo xtask reproduce`: trains again what was trained before, and says where, if anywhere, it departs.

mod golden;
mod junit;
mod repetition;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::Shell;

use self::golden::{Golden, Machine};
use self::junit::Case;
use self::trace::Trace;
use crate::program::{self, workspace_root};

/// Recipes with golden traces; how far losses may lie from them on another kind of processor in the first step, as a share of
/// them; and by what that grows with every step. Measured: portable arithmetic, and direct convolutions, stay below a tenth of it.
const SMOKE: [(&str, f64, f64); 4] =
    [("smoke-unet", 1e-5, 1.5), ("smoke-cgan", 1e-5, 3.0), ("smoke-adversarial", 1e-5, 1.5), ("smoke-cvae", 1e-5, 1.5)];

/// Steps that a trace holds at most.
const STEPS: &str = "40";

/// Arithmetics of the program, each on processors that have those before it.
const ARITHMETICS: [&str; 3] = ["portable", "avx2", "avx512"];

#[derive(clap::Args)]
pub(crate) struct Reproduce {
    /// Recipes, and directories of runs to repeat; without any, the recipes that have golden traces
    #[arg(value_name = "RECIPE|RUN")]
    targets: Vec<String>,
    /// Write the golden traces of this machine anew instead of comparing with them
    #[arg(long, conflicts_with_all = ["repeat", "junit"])]
    bless: bool,
    /// Also train N times, with 1 to N threads, and compare the traces with each other
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: usize,
    /// Write a report that CI systems read, as `JUnit` writes it
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The data of a run to repeat, if not where it was
    #[arg(long, value_name = "ROOT")]
    data: Option<String>,
    /// Where the repetition of a run is kept
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Repeat a run although what made it has changed
    #[arg(long)]
    allow_changes: bool,
}

impl Reproduce {
    pub(crate) fn run(self, shell: &Shell) -> Result<ExitCode> {
        let targets = if self.targets.is_empty() {
            SMOKE.map(|(recipe, ..)| recipe.to_owned()).to_vec()
        } else {
            self.targets.clone()
        };
        let lab = Lab::new(shell, &targets)?;
        let mut cases = Vec::new();
        for target in &targets {
            let run = Path::new(target);
            if self.bless {
                lab.bless(target)?;
            } else if run.join("config.toml").is_file() {
                cases.push(case(target, || repetition::repeat(&lab, run, &self)));
            } else {
                lab.compare(target, self.repeat, &mut cases)?;
            }
        }
        if let Some(path) = &self.junit {
            fs::write(path, junit::report(&cases)).with_context(|| format!("{}: cannot write", path.display()))?;
        }
        let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for Case { name, time, outcome } in &cases {
            let (word, text) = match outcome {
                Ok(how) => ("equal", how),
                Err(why) => ("FAILED", why),
            };
            println!("{word:<6} {name:<width$}  {:>5.1} s  {text}", time.as_secs_f64());
        }
        let failed = cases.iter().any(Case::failed);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Times a comparison, and makes an error of it one that is told with the others.
fn case(name: &str, compare: impl FnOnce() -> Result<Result<String, String>>) -> Case {
    let start = Instant::now();
    let outcome = compare().unwrap_or_else(|error| Err(format!("{error:#}")));
    Case { name: name.to_owned(), time: start.elapsed(), outcome }
}

/// The program, and a folder in which it trains.
struct Lab {
    program: PathBuf,
    folder: xshell::TempDir,
    goldens: PathBuf,
}

/// What training left to be compared.
struct Traced {
    text: String,
    trace: Trace,
    machine: Machine,
}

impl Lab {
    /// Builds the program for the devices of the runs among the targets.
    fn new(shell: &Shell, targets: &[String]) -> Result<Self> {
        let mut features: Vec<String> = targets.iter().filter_map(|run| repetition::device(Path::new(run))).collect();
        features.retain(|device| ["cuda", "metal"].contains(&device.as_str()));
        let program = program::build(shell, &features)?;
        Ok(Self { program, folder: shell.create_temp_dir()?, goldens: workspace_root().join("tests/golden") })
    }

    /// Runs the program, which has to succeed.
    fn program(&self, arguments: &[&str], folder: Option<&Path>) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        if let Some(folder) = folder {
            // What is cached of data that is about to go would only be in the way.
            command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
        }
        let output = command.output().with_context(|| format!("{}: cannot start", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            bail!("img2seg {}: {last}", arguments[..2].join(" "));
        }
        Ok(())
    }

    /// Trains the first steps of a recipe in a directory of its own.
    fn train(&self, recipe: &str, flags: &[&str]) -> Result<Traced> {
        // A recipe's file is named from where the caller stands.
        let path = fs::canonicalize(recipe).ok().filter(|path| path.is_file());
        let given = path.as_deref().and_then(Path::to_str).unwrap_or(recipe);
        let name = format!("{}{}", name_of(recipe), flags.concat());
        let (run, file) = (format!("runs/{name}"), format!("{name}.txt"));
        let arguments = ["train", given, "--device", "cpu", "--run", &run, "--trace", &file, "--until", STEPS];
        self.program(&[&arguments[..], flags].concat(), Some(self.folder.path()))?;
        let read = |file: &str| {
            fs::read_to_string(self.folder.path().join(file)).with_context(|| format!("{file}: was not written"))
        };
        let text = read(&file)?;
        let trace = Trace::parse(&text).context(file)?;
        let manifest: Value = serde_json::from_str(&read(&format!("{run}/manifest.json"))?)?;
        Ok(Traced { text, trace, machine: Machine::of(&manifest) })
    }

    /// Compares a recipe with its golden traces, and its repetitions with each other.
    fn compare(&self, recipe: &str, repeat: usize, cases: &mut Vec<Case>) -> Result<()> {
        let goldens = golden::all_of(&self.goldens, name_of(recipe))?;
        ensure!(!goldens.is_empty() || repeat > 1, "{recipe}: has no golden trace; --repeat N or --bless does without");
        let mut first = None;
        let start = Instant::now();
        match self.train(recipe, &[]) {
            Ok(traced) => {
                if !goldens.is_empty() {
                    let name = format!("{recipe}, {}", traced.machine.arithmetic);
                    cases.push(Case { name, time: start.elapsed(), outcome: verdict(&goldens, &traced) });
                }
                first = Some(traced);
            }
            Err(error) => {
                cases.push(Case { name: recipe.to_owned(), time: start.elapsed(), outcome: Err(format!("{error:#}")) });
            }
        }
        let Some(first) = first else { return Ok(()) };
        for arithmetic in lesser(&first.machine.arithmetic) {
            let as_there = Machine { arithmetic: (*arithmetic).to_owned(), ..first.machine.clone() };
            if goldens.iter().any(|(_, golden)| golden.binds(&as_there)) {
                cases.push(case(&format!("{recipe}, {arithmetic}"), || {
                    Ok(verdict(&goldens, &self.train(recipe, &["--arithmetic", arithmetic])?))
                }));
            }
        }
        for threads in (1..=repeat).filter(|_| repeat > 1).map(|threads| threads.to_string()) {
            cases.push(case(&format!("{recipe}, --threads {threads}"), || {
                let again = self.train(recipe, &["--threads", &threads])?;
                Ok(bit_by_bit(&first.trace, &again.trace))
            }));
        }
        Ok(())
    }

    /// Writes a golden for each kind of bits that this machine's arithmetics give, in place of those there.
    fn bless(&self, recipe: &str) -> Result<()> {
        let best = self.train(recipe, &[])?;
        let runs = |arithmetic| self.train(recipe, &["--arithmetic", arithmetic]);
        let mut kinds: Vec<(Traced, Vec<String>)> = Vec::new();
        for &arithmetic in lesser(&best.machine.arithmetic) {
            kinds.push((runs(arithmetic)?, vec![arithmetic.to_owned()]));
        }
        let arithmetic = best.machine.arithmetic.clone();
        kinds.push((best, vec![arithmetic]));
        // The least of equals goes first, and takes the others in.
        let mut different: Vec<(Traced, Vec<String>)> = Vec::new();
        for (traced, arithmetics) in kinds {
            match different.iter_mut().find(|(other, _)| other.text == traced.text) {
                Some((_, names)) => names.extend(arithmetics),
                None => different.push((traced, arithmetics)),
            }
        }
        let recipe = name_of(recipe);
        fs::create_dir_all(&self.goldens).with_context(|| format!("{}: cannot write", self.goldens.display()))?;
        for (path, old) in golden::all_of(&self.goldens, recipe)? {
            let machine = &different[0].0.machine;
            if old.machine.os == machine.os && old.machine.architecture == machine.architecture {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        let smoke = SMOKE.iter().find(|(name, ..)| *name == recipe);
        let (tolerance, growth) = smoke.map_or((1e-5, 3.0), |&(_, tolerance, growth)| (tolerance, growth));
        for (traced, arithmetics) in different {
            let golden = Golden::new(recipe, &traced.machine, arithmetics, tolerance, growth, &traced.text)?;
            let path = self.goldens.join(golden.file_name(recipe));
            fs::write(&path, golden.to_text(recipe)).with_context(|| path.display().to_string())?;
            println!("{}: {} steps, {}", path.display(), golden.trace.taken(), golden.arithmetics.join(" "));
        }
        Ok(())
    }
}

/// The name of a recipe or of its file.
fn name_of(recipe: &str) -> &str {
    Path::new(recipe).file_stem().and_then(|name| name.to_str()).unwrap_or(recipe)
}

/// The arithmetics of a processor besides its best.
fn lesser(best: &str) -> &'static [&'static str] {
    let position = ARITHMETICS.iter().position(|&arithmetic| arithmetic == best);
    &ARITHMETICS[..position.unwrap_or(0)]
}

/// Compares with the golden that binds the machine, or within the first one's tolerance.
fn verdict(goldens: &[(PathBuf, Golden)], traced: &Traced) -> Result<String, String> {
    let Traced { trace, machine, .. } = traced;
    if let Some((_, golden)) = goldens.iter().find(|(_, golden)| golden.binds(machine)) {
        return bit_by_bit(&golden.trace, trace).map_err(|departure| departure + &golden.built_otherwise(machine));
    }
    let (path, golden) = goldens.first().ok_or("has no golden trace")?;
    let name = path.file_name().unwrap_or_default().display();
    match golden.trace.departure_beyond(trace, |step| golden.allowed(step)) {
        Some(departure) => Err(format!("{departure}, beside {name}{}", golden.built_otherwise(machine))),
        None => Ok(format!("{} steps within up to {:.1e} of {name}", trace.taken(), golden.most_allowed())),
    }
}

fn bit_by_bit(was: &Trace, is: &Trace) -> Result<String, String> {
    match was.departure(is) {
        Some(departure) => Err(departure),
        None => Ok(format!("bit by bit: {} steps, {} tensors", was.taken(), was.tensors.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_by_bits_here_and_by_tolerance_elsewhere() {
        let manifest = |arithmetic: &str| serde_json::json!({ "cpu": { "os": "linux", "arithmetic": arithmetic } });
        let text = "# losses mse\n# tensors a\n0 | a0\n1 0.5 | a1\n2 0.25 | a2\n";
        let traced = |text: &str, arithmetic: &str| Traced {
            text: text.to_owned(),
            trace: Trace::parse(text).unwrap(),
            machine: Machine::of(&manifest(arithmetic)),
        };
        let machine = Machine::of(&manifest("avx2"));
        let golden = Golden::new("x", &machine, vec!["avx2".into()], 1e-5, 3.0, text).unwrap();
        let goldens = [(PathBuf::from("golden/x.txt"), golden)];
        let off = text.replace("0.25 | a2", "0.250001 | xx");
        assert_eq!(verdict(&goldens, &traced(text, "avx2")).unwrap(), "bit by bit: 2 steps, 1 tensors");
        let departure = verdict(&goldens, &traced(&off, "avx2")).unwrap_err();
        assert_eq!(departure, "step 2: a differs; the loss mse is 0.250001 instead of 0.25");
        assert_eq!(verdict(&goldens, &traced(&off, "neon")).unwrap(), "2 steps within up to 3.0e-5 of x.txt");
        let far = text.replace("0.25 | a2", "0.26 | xx");
        let departure = verdict(&goldens, &traced(&far, "neon")).unwrap_err();
        assert!(departure.starts_with("step 2: the loss mse is 0.26 instead of 0.25: off by 4.0e-2"), "{departure}");
        assert!(verdict(&[], &traced(text, "avx2")).is_err());
    }

    #[test]
    fn lesser_arithmetics_are_known() {
        assert_eq!(lesser("avx512"), ["portable", "avx2"]);
        assert!(lesser("portable").is_empty() && lesser("unknown").is_empty());
    }
}
