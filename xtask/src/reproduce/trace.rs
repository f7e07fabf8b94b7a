//! Traces of runs, as `img2seg train --trace` writes them, and where two of them part.

use anyhow::{Context, Result, ensure};

/// The steps of a run: losses in their shortest digits, and a hash of every tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trace {
    pub(super) losses: Vec<String>,
    pub(super) tensors: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// The state after a step. That before the first step has no losses, and a dash for each tensor of its batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) number: u64,
    pub(super) losses: Vec<String>,
    pub(super) hashes: Vec<String>,
}

impl Trace {
    /// Reads a trace; lines that begin with `#` and say something else are left out.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let named = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(words);
        let losses = named("# losses ").context("not a trace: it names no losses")?;
        let tensors = named("# tensors ").context("not a trace: it names no tensors")?;
        let mut steps = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            let step = line.split_once('|').and_then(|(left, right)| {
                let mut left = words(left).into_iter();
                Some(Step { number: left.next()?.parse().ok()?, losses: left.collect(), hashes: words(right) })
            });
            let fits = |step: &Step| {
                step.hashes.len() == tensors.len() && (step.losses.is_empty() || step.losses.len() == losses.len())
            };
            let step = step.filter(fits).with_context(|| format!("line {}: not a step of a trace", index + 1))?;
            steps.push(step);
        }
        ensure!(!steps.is_empty(), "not a trace: it has no steps");
        Ok(Self { losses, tensors, steps })
    }

    /// How many steps were taken.
    pub(super) fn taken(&self) -> usize {
        self.steps.iter().filter(|step| !step.losses.is_empty()).count()
    }

    /// Where `other` first departs from this trace by any bit: the step, and the first tensor in the order of the trace.
    pub(super) fn departure(&self, other: &Self) -> Option<String> {
        let names = |of: &Self| [of.losses.clone(), of.tensors.clone()].concat();
        let (ours, theirs) = (names(self), names(other));
        if let Some(name) = ours.iter().find(|name| !theirs.contains(name)) {
            return Some(format!("{name} is not there any more"));
        }
        if let Some(name) = theirs.iter().find(|name| !ours.contains(name)) {
            return Some(format!("{name} was not there"));
        }
        self.steps.iter().find_map(|step| {
            let Some(now) = other.at(step.number) else { return Some(format!("step {}: is missing", step.number)) };
            self.difference(step, now, &other.tensors)
        })
    }

    /// Where a loss of `other` is first farther from this trace's than `allowed` (relative, of step) says.
    pub(super) fn departure_beyond(&self, other: &Self, allowed: impl Fn(u64) -> f64) -> Option<String> {
        if self.losses != other.losses {
            return Some(format!("the losses are {}, not {}", other.losses.join(" "), self.losses.join(" ")));
        }
        self.steps.iter().find_map(|step| {
            let Some(now) = other.at(step.number) else { return Some(format!("step {}: is missing", step.number)) };
            let losses = self.losses.iter().zip(step.losses.iter().zip(&now.losses));
            losses.into_iter().find_map(|(name, (was, is))| {
                let (off, allowed) = (relative(was, is), allowed(step.number));
                // A NaN is within no tolerance.
                let within = off <= allowed;
                (!within).then(|| {
                    let number = step.number;
                    format!("step {number}: the loss {name} is {is} instead of {was}: off by {off:.1e}, {allowed:.1e} allowed")
                })
            })
        })
    }

    fn at(&self, number: u64) -> Option<&Step> {
        self.steps.iter().find(|step| step.number == number)
    }

    fn difference(&self, was: &Step, is: &Step, order: &[String]) -> Option<String> {
        let hash_of = |name: &String| order.iter().position(|other| other == name).map(|at| is.hashes[at].as_str());
        let unknown = |hash: &str| hash == "-";
        let differing: Vec<&str> = self
            .tensors
            .iter()
            .zip(&was.hashes)
            .filter(|(name, was)| hash_of(name).is_some_and(|is| is != *was && !unknown(is) && !unknown(was)))
            .map(|(name, _)| name.as_str())
            .collect();
        let mut losses = self.losses.iter().zip(was.losses.iter().zip(&is.losses));
        let loss = losses.find(|(_, (was, is))| was != is);
        let loss = loss.map(|(name, (was, is))| format!("the loss {name} is {is} instead of {was}"));
        let parts: Vec<String> = first_of(&differing).into_iter().chain(loss).collect();
        (!parts.is_empty()).then(|| format!("step {}: {}", was.number, parts.join("; ")))
    }
}

/// `x differs (and 3 more tensors)`; nothing for no name.
pub(super) fn first_of(names: &[&str]) -> Option<String> {
    let (first, more) = names.split_first()?;
    Some(match more.len() {
        0 => format!("{first} differs"),
        1 => format!("{first} differs (and 1 more tensor)"),
        more => format!("{first} differs (and {more} more tensors)"),
    })
}

/// The difference of two numbers as a share of the first; NaN where one is no number.
fn relative(was: &str, is: &str) -> f64 {
    let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
    let (was, is) = (number(was), number(is));
    if was.to_bits() == is.to_bits() { 0.0 } else { (is - was).abs() / was.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# recipe x\n# losses mse l1\n# tensors batch.photos a.weight b.weight\n\
                        0 | - a0 b0\n1 0.5 2 | p1 a1 b1\n2 0.25 1 | p2 a2 b2\n";

    fn edited(from: &str, to: &str) -> Trace {
        assert!(TEXT.contains(from));
        Trace::parse(&TEXT.replace(from, to)).unwrap()
    }

    #[test]
    fn the_first_departure_names_step_and_tensor() {
        let golden = Trace::parse(TEXT).unwrap();
        assert_eq!((golden.taken(), golden.steps.len()), (2, 3));
        assert_eq!(golden.departure(&golden), None);
        for (from, to, expected) in [
            ("| p2 a2 b2", "| p2 a2 xx", "step 2: b.weight differs"),
            ("a1 b1", "xx xx", "step 1: a.weight differs (and 1 more tensor)"),
            ("p1 a1 b1", "xx xx xx", "step 1: batch.photos differs (and 2 more tensors)"),
            ("- a0", "- xx", "step 0: a.weight differs"),
            ("0.25 1 | p2 a2", "0.26 1 | p2 xx", "step 2: a.weight differs; the loss mse is 0.26 instead of 0.25"),
            ("2 0.25 1 | p2 a2 b2\n", "", "step 2: is missing"),
            ("b.weight", "c.weight", "b.weight is not there any more"),
        ] {
            assert_eq!(golden.departure(&edited(from, to)).as_deref(), Some(expected));
        }
        assert_eq!(golden.departure(&edited("- a0", "pp a0")), None, "the batch before the first step is unknown");
        let swapped = "# losses mse l1\n# tensors batch.photos b.weight a.weight\n0 | - b0 a0\n1 0.5 2 | p1 b1 a1\n";
        assert_eq!(golden.departure(&Trace::parse(swapped).unwrap()).as_deref(), Some("step 2: is missing"));
    }

    #[test]
    fn losses_are_held_against_a_tolerance() {
        let golden = Trace::parse(TEXT).unwrap();
        let allowed = |step: u64| 0.01 * step as f64;
        assert_eq!(golden.departure_beyond(&edited("0.5 2 | p1 a1", "0.504 2 | xx xx"), allowed), None);
        assert_eq!(golden.departure_beyond(&edited("0.25 1", "0.25 0.981"), allowed), None);
        for (from, to, expected) in [
            ("0.5 2", "0.506 2", "step 1: the loss mse is 0.506 instead of 0.5: off by 1.2e-2, 1.0e-2 allowed"),
            ("0.25 1", "0.25 NaN", "step 2: the loss l1 is NaN instead of 1: off by NaN, 2.0e-2 allowed"),
            ("2 0.25 1 | p2 a2 b2\n", "", "step 2: is missing"),
            ("# losses mse l1", "# losses mse l2", "the losses are mse l2, not mse l1"),
        ] {
            assert_eq!(golden.departure_beyond(&edited(from, to), allowed).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_no_trace_is_told() {
        for (text, told) in [
            ("", "names no losses"),
            ("# losses mse\n0 | a\n", "names no tensors"),
            ("# losses mse\n# tensors a\n", "has no steps"),
            ("# losses mse\n# tensors a\n0 | a b\n", "line 3: not a step"),
            ("# losses mse\n# tensors a\n1 0.5 0.5 | a\n", "line 3: not a step"),
            ("# losses mse\n# tensors a\nx 0.5 | a\n", "line 3: not a step"),
            ("# losses mse\n# tensors a\n1 0.5\n", "line 3: not a step"),
        ] {
            let error = Trace::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
