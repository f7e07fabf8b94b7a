//! Compares our networks and layers with files of what PyTorch computed for them. Exits with 0 if all agree, and with 1 if something is
//! beyond its tolerance or a file cannot be compared.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use img2seg_tests::parity::{self, Comparison, Quantity};

/// Compare our networks and layers with what PyTorch computed for them
#[derive(Parser)]
#[command(name = "parity")]
struct Arguments {
    /// Safetensors files: inputs, weights, and PyTorch's results for them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let mut all_agree = true;
    for file in Arguments::parse().files {
        match parity::compare(&file) {
            Ok(comparison) => {
                all_agree &= comparison.failures().next().is_none();
                // Nobody reads on: the exit code still tells.
                let _ = print(&file, &comparison);
            }
            Err(error) => {
                all_agree = false;
                eprintln!("parity: {error:#}");
            }
        }
    }
    if all_agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line for each quantity, and one for the file.
fn print(file: &Path, Comparison { kind, quantities }: &Comparison) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = quantities.iter().map(|quantity| quantity.name.len()).max().unwrap_or(0);
    writeln!(out, "{:width$}  {:>11}  {:>9}  {:>9}  of", "quantity", "relative L2", "error", "tolerance")?;
    for quantity in quantities {
        let Quantity { name, relative, error, tolerance } = quantity;
        let verdict = if quantity.is_within() { "ok" } else { "FAIL" };
        let (limit, measure) = (tolerance.limit, tolerance.measure);
        writeln!(out, "{name:width$}  {relative:>11.2e}  {error:>9.2e}  {limit:>9.2e}  {measure:<18}  {verdict}")?;
    }
    let failed = quantities.iter().filter(|quantity| !quantity.is_within()).count();
    let share = |quantity: &Quantity| quantity.error / quantity.tolerance.limit;
    let nearest = quantities.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    let nearest = nearest.map_or(String::new(), |quantity| {
        format!("; {} uses the most of its tolerance: {:.1} %", quantity.name, 100.0 * share(quantity))
    });
    let count = quantities.len();
    writeln!(
        out,
        "{}: {kind}: {} of {count} quantities agree, {failed} fail{nearest}\n",
        file.display(),
        count - failed
    )
}
