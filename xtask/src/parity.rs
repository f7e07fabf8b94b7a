//! `cargo xtask parity`: our networks and layers against files that hold what PyTorch computed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::program::{become_command, workspace_root};

#[derive(clap::Args)]
pub(crate) struct Parity {
    /// Oracle files; without any, those of `tests/oracle`
    files: Vec<PathBuf>,
}

impl Parity {
    pub(crate) fn run(self, shell: &Shell) -> Result<ExitCode> {
        let root = workspace_root();
        let files = if self.files.is_empty() { oracle_files(shell, &root.join("tests/oracle"))? } else { self.files };
        let manifest = root.join("Cargo.toml");
        let cargo = cmd!(
            shell,
            "cargo run --release --manifest-path {manifest} --package img2seg-tests --bin parity -- {files...}"
        );
        become_command(cargo.into())
    }
}

fn oracle_files(shell: &Shell, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = shell.read_dir(folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    ensure!(!files.is_empty(), "{}: no .safetensors file here", folder.display());
    Ok(files)
}
