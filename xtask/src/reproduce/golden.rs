//! Golden traces: what a recipe's first steps were, and on which processors they have to be that again, bit by bit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::trace::Trace;

/// Where a trace was made, in the words of a run's manifest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Machine {
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) arithmetic: String,
    pub(super) features: Vec<String>,
    /// What the program was built from, `key value`: told beside a departure, and never compared.
    pub(super) built: Vec<String>,
}

impl Machine {
    pub(super) fn of(manifest: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        let cpu = &manifest["cpu"];
        let libraries = manifest["libraries"].as_object().into_iter().flatten();
        let mut built = vec![
            format!("version {}", text(&manifest["version"])),
            format!("compiler {}", text(&manifest["compiler"])),
        ];
        built.extend(libraries.map(|(name, version)| format!("{name} {}", text(version))));
        Self {
            os: text(&cpu["os"]),
            architecture: text(&cpu["architecture"]),
            arithmetic: text(&cpu["arithmetic"]),
            features: cpu["features"].as_array().into_iter().flatten().map(text).collect(),
            built,
        }
    }
}

/// A file of `tests/golden`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Golden {
    /// Where it was made; of several arithmetics that gave the same bits, the least.
    pub(super) machine: Machine,
    /// All arithmetics that gave these bits.
    pub(super) arithmetics: Vec<String>,
    /// How far losses may lie from these elsewhere, as a share of them, in the first step.
    tolerance: f64,
    /// By what that grows with every step: training amplifies what was rounded.
    growth: f64,
    pub(super) trace: Trace,
    /// The lines of the trace, as they were read.
    text: String,
}

impl Golden {
    /// A golden of a trace's text that was made on `machine` and came out equal with all of `arithmetics`.
    pub(super) fn new(
        recipe: &str,
        machine: &Machine,
        arithmetics: Vec<String>,
        tolerance: f64,
        growth: f64,
        text: &str,
    ) -> Result<Self> {
        let trace = Trace::parse(text).context(recipe.to_owned())?;
        Ok(Self { machine: machine.clone(), arithmetics, tolerance, growth, trace, text: text.to_owned() })
    }

    fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": "));
            line.with_context(|| format!("not a golden trace: it does not say its {key}"))
        };
        let words = |key: &str| -> Result<Vec<String>> { Ok(value(key)?.split(' ').map(str::to_owned).collect()) };
        let number = |key: &str| value(key)?.parse::<f64>().with_context(|| format!("{key} is no number"));
        let arithmetics = words("arithmetic")?;
        let machine = Machine {
            os: value("os")?.to_owned(),
            architecture: value("architecture")?.to_owned(),
            arithmetic: arithmetics[0].clone(),
            features: value("features")?.split_whitespace().map(str::to_owned).collect(),
            built: value("built of")?.split(", ").map(str::to_owned).collect(),
        };
        Ok(Self {
            machine,
            arithmetics,
            tolerance: number("tolerance")?,
            growth: number("growth")?,
            trace: Trace::parse(text)?,
            text: text.lines().filter(|line| !header(line)).flat_map(|line| [line, "\n"]).collect(),
        })
    }

    pub(super) fn to_text(&self, recipe: &str) -> String {
        let Machine { os, architecture, features, built, .. } = &self.machine;
        format!(
            "# recipe: {recipe}, by `cargo xtask reproduce --bless`. Bit by bit where os, architecture, arithmetic and features \
             are these;\n# elsewhere its losses within the tolerance, a share of them that grows by a factor with every step.\n\
             # os: {os}\n# architecture: {architecture}\n# arithmetic: {}\n# features: {}\n# built of: {}\n\
             # tolerance: {:e}\n# growth: {}\n{}",
            self.arithmetics.join(" "),
            features.join(" "),
            built.join(", "),
            self.tolerance,
            self.growth,
            self.text,
        )
    }

    pub(super) fn file_name(&self, recipe: &str) -> String {
        let Machine { os, architecture, arithmetic, .. } = &self.machine;
        format!("{recipe}.{os}-{architecture}-{arithmetic}.txt")
    }

    /// Whether a trace from `machine` has to equal this one bit by bit.
    pub(super) fn binds(&self, machine: &Machine) -> bool {
        let ours = &self.machine;
        ours.os == machine.os
            && ours.architecture == machine.architecture
            && self.arithmetics.contains(&machine.arithmetic)
            && ours.features.iter().all(|feature| machine.features.contains(feature))
    }

    /// How far the losses of a step may lie from these, as a share of them.
    pub(super) fn allowed(&self, step: u64) -> f64 {
        let steps = i32::try_from(step.saturating_sub(1)).unwrap_or(i32::MAX);
        self.tolerance * self.growth.powi(steps)
    }

    /// The most that is allowed at any of its steps.
    pub(super) fn most_allowed(&self) -> f64 {
        self.trace.steps.last().map_or(0.0, |step| self.allowed(step.number))
    }

    /// What the program was built from otherwise when this was made: ` (made with gemm 0.18.0)`, or nothing.
    pub(super) fn built_otherwise(&self, machine: &Machine) -> String {
        let others: Vec<&str> =
            self.machine.built.iter().filter(|part| !machine.built.contains(part)).map(String::as_str).collect();
        if others.is_empty() { String::new() } else { format!(" (the golden was made with {})", others.join(", ")) }
    }
}

/// What a golden has above its trace.
fn header(line: &str) -> bool {
    line.starts_with('#') && !line.starts_with("# losses ") && !line.starts_with("# tensors ")
}

/// The goldens of a recipe in a folder, in the order of their names.
pub(super) fn all_of(folder: &Path, recipe: &str) -> Result<Vec<(PathBuf, Golden)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}: cannot list golden traces", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let start = format!("{recipe}.");
    paths.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&start)));
    paths.sort();
    let read = |path: PathBuf| {
        let golden = fs::read_to_string(&path).map_err(Into::into).and_then(|text| Golden::parse(&text));
        let golden = golden.with_context(|| path.display().to_string())?;
        Ok((path, golden))
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# losses mse\n# tensors a b\n0 | a0 b0\n1 0.5 | a1 b1\n";

    fn machine(arithmetic: &str, features: &str) -> Machine {
        let manifest = serde_json::json!({
            "version": "1", "compiler": "rustc 1", "libraries": { "gemm": "2" },
            "cpu": {
                "os": "linux", "architecture": "x86_64", "arithmetic": arithmetic,
                "features": features.split(' ').collect::<Vec<_>>(),
            },
        });
        Machine::of(&manifest)
    }

    fn golden() -> Golden {
        let arithmetics = vec!["avx2".to_owned(), "avx512".to_owned()];
        Golden::new("smoke", &machine("avx2", "avx2 fma"), arithmetics, 1e-5, 3.0, TRACE).unwrap()
    }

    #[test]
    fn a_golden_is_read_back_as_it_was_written() {
        let golden = golden();
        let text = golden.to_text("smoke");
        assert_eq!(Golden::parse(&text).unwrap(), golden, "{text}");
        assert_eq!(golden.file_name("smoke"), "smoke.linux-x86_64-avx2.txt");
        assert!((golden.allowed(3) - 9e-5).abs() < 1e-12 && (golden.allowed(1) - 1e-5).abs() < 1e-12);
        let error = Golden::parse(&text.replace("# growth", "# grows")).unwrap_err().to_string();
        assert_eq!(error, "not a golden trace: it does not say its growth");
    }

    #[test]
    fn a_golden_binds_processors_of_its_kind() {
        let golden = golden();
        assert!(golden.binds(&machine("avx2", "avx2 fma")));
        assert!(golden.binds(&machine("avx512", "avx2 fma avx512f")));
        assert!(!golden.binds(&machine("portable", "avx2 fma")));
        assert!(!golden.binds(&machine("avx2", "avx2")));
        assert!(!golden.binds(&Machine { os: "macos".into(), ..machine("avx2", "avx2 fma") }));
        assert!(!golden.binds(&Machine { architecture: "aarch64".into(), ..machine("avx2", "avx2 fma") }));
        let mut newer = machine("avx2", "avx2 fma");
        assert_eq!(golden.built_otherwise(&newer), "");
        newer.built[2] = "gemm 3".into();
        assert!(golden.binds(&newer), "other libraries have to give the same bits");
        assert_eq!(golden.built_otherwise(&newer), " (the golden was made with gemm 2)");
    }
}
