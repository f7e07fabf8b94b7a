//! A process that takes the steps of one case when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{fs, str};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One side of a case.
pub(super) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What both sides must agree on.
    pub(super) size: usize,
    /// Milliseconds of one step, a value a turn.
    pub(super) times: Vec<f64>,
}

/// A line of a worker.
#[derive(Debug, PartialEq)]
enum Answer {
    Ready(usize),
    /// Milliseconds, or MiB.
    Number(f64),
}

impl Worker {
    /// Starts the process and waits until it has built its case.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().with_context(|| format!("{}: cannot start", command.get_program().display()))?;
        let output = BufReader::new(child.stdout.take().context("a worker without output")?);
        let input = child.stdin.take();
        let mut worker = Self { child, input, output, size: 0, times: Vec::new() };
        match worker.answer()? {
            Answer::Ready(size) => worker.size = size,
            Answer::Number(_) => bail!("a worker answered before it was asked"),
        }
        Ok(worker)
    }

    /// Takes `steps` steps, and notes and returns the milliseconds of one.
    pub(super) fn run(&mut self, steps: usize) -> Result<f64> {
        let milliseconds = self.ask(&format!("run {steps}"))? / steps as f64;
        self.times.push(milliseconds);
        Ok(milliseconds)
    }

    /// The most MiB of a GPU's memory that tensors and workspaces have had at a time.
    pub(super) fn device_mib(&mut self) -> Result<Option<f64>> {
        self.ask("memory").map(Some)
    }

    /// The most memory that the process has had so far; unknown where there is no `/proc`.
    pub(super) fn peak_mib(&self) -> Option<f64> {
        peak_mib(&fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?)
    }

    fn ask(&mut self, question: &str) -> Result<f64> {
        let input = self.input.as_mut().context("a worker without input")?;
        // One that is gone is told by its missing answer.
        let _ = writeln!(input, "{question}");
        let Answer::Number(number) = self.answer()? else { bail!("a worker began anew") };
        Ok(number)
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the worker ended without an answer ({})", self.child.wait()?);
        }
        parse(line.trim_end())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None; // the process ends when nobody can ask it
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Result<Answer> {
    if let Some(text) = line.strip_prefix("error ") {
        bail!("{text}");
    }
    let answer = match line.strip_prefix("ready ") {
        Some(size) => size.parse().ok().map(Answer::Ready),
        None => line.parse().ok().filter(|&number: &f64| number.is_finite() && number > 0.0).map(Answer::Number),
    };
    answer.with_context(|| format!("not a worker's answer: {line}"))
}

/// The high-water mark of the resident set in a `/proc/PID/status`.
fn peak_mib(status: &str) -> Option<f64> {
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The bench target among cargo's messages.
pub(super) fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut benches = messages.filter(|message| message["target"]["kind"][0] == "bench");
    benches.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_errors_told() {
        assert_eq!(parse("ready 1944083").unwrap(), Answer::Ready(1_944_083));
        assert_eq!(parse("170.25").unwrap(), Answer::Number(170.25));
        assert_eq!(parse("error no torch here").unwrap_err().to_string(), "no torch here");
        for line in ["", "ready", "ready many", "-1", "NaN", "inf", "warning: 3"] {
            assert_eq!(parse(line).unwrap_err().to_string(), format!("not a worker's answer: {line}"));
        }
    }

    #[test]
    fn the_peak_is_found() {
        assert_eq!(peak_mib("VmPeak:\t  999 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 10 kB\n"), Some(2.0));
        assert_eq!(peak_mib("VmRSS:\t 10 kB\n"), None);
    }

    #[test]
    fn the_bench_target_is_found_among_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"]},"executable":"/t/release/parity"}"#,
            "\nnot a message\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bench"]},"executable":"/t/a \"b\"/worker-1"}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/a \"b\"/worker-1")));
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn a_missing_program_and_a_silent_one_are_told() {
        let start = |program: &str| Worker::start(Command::new(program)).err().map(|error| error.to_string());
        assert_eq!(start("/no/such/python").unwrap(), "/no/such/python: cannot start");
        if cfg!(unix) {
            assert!(start("true").unwrap().starts_with("the worker ended without an answer"));
        }
    }

    #[cfg(unix)]
    #[test]
    #[allow(clippy::float_cmp, reason = "what was written is read")]
    fn a_worker_takes_steps() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready 7; while read run steps; do echo 1${steps}.5; done"]);
        let mut worker = Worker::start(command).unwrap();
        assert_eq!(worker.size, 7);
        assert_eq!([worker.run(5).unwrap(), worker.run(1).unwrap()], [3.1, 11.5]);
        assert_eq!(worker.times, [3.1, 11.5]);
    }
}
