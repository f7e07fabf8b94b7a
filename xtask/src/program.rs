//! The program: which of its features a command line needs, how to build it, and how to become it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// What `cargo xtask train` trains when no recipe is named.
const DEFAULT_RECIPE: &str = "quickstart";

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn workspace_root() -> PathBuf {
    // cargo sets the variable for what it runs, so a checkout that was moved after compiling is still found
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut root = PathBuf::from(xtask);
    root.pop();
    root
}

/// The arguments of `img2seg train`, with the default recipe in front where the first one is not a recipe.
pub(crate) fn with_recipe(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let named = arguments.first().is_some_and(|first| !first.as_encoded_bytes().starts_with(b"-"));
    if !named {
        arguments.insert(0, DEFAULT_RECIPE.into());
    }
    arguments
}

/// Builds the program in release, with the features that `arguments` need, and becomes `img2seg COMMAND ARGUMENTS`.
pub(crate) fn run(shell: &Shell, command: &str, arguments: &[OsString]) -> Result<ExitCode> {
    let manifest = workspace_root().join("Cargo.toml");
    let features = features(arguments).join(",");
    let cargo = cmd!(
        shell,
        "cargo run --release --manifest-path {manifest} --package img2seg --features {features} -- {command} {arguments...}"
    );
    become_command(cargo.into())
}

/// Builds the program in release, with these features, and says where it is.
pub(crate) fn build(shell: &Shell, features: &[impl AsRef<str>]) -> Result<PathBuf> {
    let manifest = workspace_root().join("Cargo.toml");
    let features: Vec<&str> = features.iter().map(AsRef::as_ref).collect();
    let features = features.join(",");
    let build = cmd!(
        shell,
        "cargo build --release --manifest-path {manifest} --package img2seg --features {features} --message-format json-render-diagnostics"
    );
    let messages = build.quiet().read()?;
    executable(&messages).context("cargo built no img2seg")
}

/// The program among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs =
        messages.filter(|message| message["target"]["kind"][0] == "bin" && message["target"]["name"] == "img2seg");
    programs.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Replaces this process by `command`, so that its exit code, its signals and its terminal are the child's.
///
/// Where a process cannot be replaced, waits for the child and returns its exit code.
pub(crate) fn become_command(mut command: Command) -> Result<ExitCode> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().display()))
    }
    #[cfg(not(unix))]
    {
        let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
    }
}

/// The program's cargo features that these arguments need: data from the Hub and devices are compiled in on demand.
pub(crate) fn features(arguments: &[OsString]) -> Vec<&'static str> {
    let mut features = Vec::new();
    if arguments.iter().any(|argument| after_equals(argument).starts_with("hub:")) {
        features.push("hub");
    }
    if let Some(device) = value_of(arguments, "--device") {
        features.extend(["cuda", "metal"].into_iter().filter(|kind| device.starts_with(kind)));
    }
    features
}

/// The value of the last `--flag VALUE` or `--flag=VALUE`.
fn value_of<'a>(arguments: &'a [OsString], flag: &str) -> Option<&'a str> {
    arguments.iter().enumerate().rev().find_map(|(i, argument)| {
        let argument = argument.to_str()?;
        if argument == flag {
            return arguments.get(i + 1)?.to_str();
        }
        argument.strip_prefix(flag)?.strip_prefix('=')
    })
}

/// `VALUE` of `--flag=VALUE`, any other argument as it is; empty where it is not UTF-8.
fn after_equals(argument: &OsStr) -> &str {
    let argument = argument.to_str().unwrap_or_default();
    match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => value,
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_missing_recipe_is_the_quickstart() {
        assert_eq!(with_recipe(arguments("")), arguments("quickstart"));
        assert_eq!(with_recipe(arguments("--run runs/a --resume")), arguments("quickstart --run runs/a --resume"));
        assert_eq!(with_recipe(arguments("camvid-unet --data pairs")), arguments("camvid-unet --data pairs"));
        assert_eq!(with_recipe(arguments("my/own.toml")), arguments("my/own.toml"));
    }

    #[test]
    fn the_program_is_found_among_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"parity"},"executable":"/t/parity"}"#,
            "\nnot a message\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"img2seg"},"executable":"/t/img2seg"}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/img2seg")));
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn features_follow_the_arguments() {
        for (line, expected) in [
            ("quickstart", &[][..]),
            ("quickstart --data streets --device cpu", &[]),
            ("quickstart --device auto", &[]),
            ("quickstart --data hub:someone/pairs", &["hub"]),
            ("quickstart --data=hub:someone/pairs", &["hub"]),
            ("show hub:someone/pairs --out sheet.png", &["hub"]),
            ("quickstart --run my-hub:run", &[]),
            ("quickstart --device cuda", &["cuda"]),
            ("quickstart --device=cuda:1", &["cuda"]),
            ("quickstart --device cuda --device cpu", &[]),
            ("quickstart --device metal --data hub:someone/pairs", &["hub", "metal"]),
            ("quickstart --device", &[]),
        ] {
            assert_eq!(features(&arguments(line)), expected, "{line}");
        }
    }
}
