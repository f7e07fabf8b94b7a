//! Progress on the standard error stream: a bar on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use img2seg_training::{Event, Loss};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::table::percent;

/// Seconds between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// A bar for something that is counted.
pub(crate) struct Counter {
    what: String,
    bar: Option<ProgressBar>,
    shown: Mutex<Instant>,
}

/// A bar that appears when the first thing is counted.
pub(crate) fn counter(what: &str) -> Counter {
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(0).with_style(style("{msg} {wide_bar:.cyan/dim} {pos}/{len}, {eta} left"));
        bar.set_message(what.to_owned());
        bar
    });
    Counter { what: what.to_owned(), bar, shown: Mutex::new(Instant::now()) }
}

impl Counter {
    /// Shows how many of how many are done.
    pub(crate) fn show(&self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            if done == total {
                bar.finish_and_clear();
            }
        } else if let Ok(mut shown) = self.shown.lock()
            && (done == total || shown.elapsed() > PLAIN_INTERVAL)
        {
            eprintln!("{} {done}/{total}", self.what);
            *shown = Instant::now();
        }
    }
}

impl Counter {
    /// A line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one shows as the plain default bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Shows a run's events until it ends.
pub(crate) fn show(events: &Receiver<Event>, epochs: usize) {
    let mut run = Run::new(epochs, std::io::stderr().is_terminal());
    for event in events {
        run.show(event);
    }
    run.bar.finish_and_clear();
}

struct Run {
    bar: ProgressBar,
    terminal: bool,
    epochs: usize,
    steps: u64,
    started: Instant,
    /// Steps and images of this session, for speed and time left.
    session_steps: u64,
    done_before: u64,
    images: usize,
    shown: Instant,
}

impl Run {
    fn new(epochs: usize, terminal: bool) -> Self {
        let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_style(style("{prefix} {wide_bar:.cyan/dim} {pos}/{len} {msg}"));
        let now = Instant::now();
        Self { bar, terminal, epochs, steps: 0, started: now, session_steps: 0, done_before: 0, images: 0, shown: now }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Started { steps_per_epoch, steps, done, networks } => {
                let networks: Vec<String> =
                    networks.iter().map(|(name, count)| format!("{name} {}", thousands(*count))).collect();
                let mut line = format!(
                    "{} parameters; {steps_per_epoch} steps an epoch, {} epochs",
                    networks.join(", "),
                    self.epochs
                );
                if done > 0 {
                    let _ = write!(line, "; goes on after step {done}");
                }
                self.line(&line);
                self.steps = steps;
                self.done_before = done;
                self.bar.set_length(steps);
                self.bar.set_position(done);
                self.bar.set_message("");
                self.started = Instant::now();
            }
            Event::Step { epoch, step, images, losses } => {
                self.session_steps += 1;
                self.images += images;
                self.bar.set_position(step);
                let text = format!("{}  {}", losses_text(&losses), self.speed(step));
                if self.terminal {
                    self.bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
                    self.bar.set_message(text);
                } else if self.shown.elapsed() > PLAIN_INTERVAL {
                    self.line(&format!("epoch {epoch}/{} step {step}/{}  {text}", self.epochs, self.steps));
                    self.shown = Instant::now();
                }
            }
            Event::Saved { step } => self.line(&format!("saved after step {step}")),
            Event::NotSaved { reason } => {
                self.warn(&format!("{reason}; training goes on, and the next checkpoint is the next try"));
            }
            Event::Damaged { complaint } => {
                self.warn(&format!("{complaint}; it is set aside, and the run goes on from the newest whole one"));
            }
            Event::Digesting { split, done, total } => {
                self.bar.set_length(total as u64);
                self.bar.set_position(done as u64);
                self.note(&format!("reading {split}"));
            }
            Event::Scoring { split, done, total } => self.note(&format!("scoring {split} {done}/{total}")),
            Event::Epoch { epoch, losses, val, images_per_second, best } => {
                let mut line = format!("epoch {epoch:>3}/{}", self.epochs);
                for (name, mean) in losses {
                    let _ = write!(line, "  {name} {mean:.4}");
                }
                if let Some(val) = val {
                    let accuracy = percent(val.pixel_accuracy);
                    let _ = write!(line, "  val accuracy {accuracy}, mean IoU {}", percent(val.mean_iou));
                }
                let _ = write!(line, "  {images_per_second:.1} images/s");
                if best {
                    line.push_str("  best");
                }
                self.line(&line);
                self.shown = Instant::now();
            }
        }
    }

    /// What goes on beside the steps.
    fn note(&mut self, text: &str) {
        if self.terminal {
            self.bar.set_message(text.to_owned());
        } else if self.shown.elapsed() > PLAIN_INTERVAL {
            self.line(text);
            self.shown = Instant::now();
        }
    }

    /// A line that is a warning.
    fn warn(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }

    fn speed(&self, step: u64) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let left = seconds / self.session_steps.max(1) as f64 * self.steps.saturating_sub(step) as f64;
        let left = HumanDuration(Duration::from_secs_f64(left));
        format!("{:.1} images/s, {left} left", self.images as f64 / seconds.max(1e-9))
    }

    fn line(&self, text: &str) {
        if self.terminal {
            self.bar.println(text);
        } else {
            eprintln!("{text}");
        }
    }
}

fn losses_text(losses: &[Loss]) -> String {
    let texts: Vec<String> = losses.iter().map(|loss| format!("{} {:.4}", loss.name, loss.value)).collect();
    texts.join(" ")
}

/// 1234567 as "1,234,567".
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
