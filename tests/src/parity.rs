//! Our networks, layers, losses and optimisers against a file of what PyTorch computed.

mod adam;
mod cgan;
mod layers;
mod losses;
mod networks;
mod oracle;
mod quantity;
mod steps;
mod unet;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use oracle::Oracle;
pub use quantity::{Measure, Quantity, Tolerance};

/// What one file says about us.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What the file is about: `unet`, `cgan`, `layers`, `networks`, `losses` or `steps`.
    pub kind: String,
    /// Everything that was compared, in the order of computation.
    pub quantities: Vec<Quantity>,
}

impl Comparison {
    /// The quantities beyond their tolerance.
    pub fn failures(&self) -> impl Iterator<Item = &Quantity> {
        self.quantities.iter().filter(|quantity| !quantity.is_within())
    }
}

/// Runs our networks, layers, losses or optimisers on the inputs and weights of a file, and compares every other tensor in it with ours. Errors name the
/// file: one that cannot be read, lacks something, or holds something that was not compared.
pub fn compare(path: &Path) -> Result<Comparison> {
    run(path).with_context(|| path.display().to_string())
}

fn run(path: &Path) -> Result<Comparison> {
    let mut oracle = Oracle::open(path)?;
    let kind: String = oracle.setting("kind")?;
    match kind.as_str() {
        "unet" => unet::compare(&mut oracle)?,
        "cgan" => cgan::compare(&mut oracle)?,
        "layers" => layers::compare(&mut oracle)?,
        "networks" => networks::compare(&mut oracle)?,
        "losses" => losses::compare(&mut oracle)?,
        "steps" => steps::compare(&mut oracle)?,
        _ => anyhow::bail!("kind {kind}: not unet, cgan, layers, networks, losses or steps"),
    }
    let unused = oracle.unused();
    ensure!(unused.is_empty(), "nothing of ours to compare with: {}", unused.join(", "));
    Ok(Comparison { kind, quantities: oracle.into_quantities() })
}
