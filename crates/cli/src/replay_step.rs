//! `img2seg replay-step`: take a step again at which a run diverged.

use std::path::PathBuf;
use std::process::ExitCode;

use img2seg_data::shown;
use img2seg_ops::Exactness;
use img2seg_training::divergence::replay;

use crate::device;

/// Take a step again at which a run diverged.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the run left of it: runs/NAME/diverged/step-NNNNNNNN
    dump: PathBuf,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Exit code 0 where the step fails as it did, 1 where it does not.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (device, words) = device::open(&arguments.device, Exactness::default())?;
    let replay = replay(&arguments.dump, &device)?;
    let dump = &replay.dump;
    // The dump may be a stranger's: a line for each thing, whatever it says.
    let one_line = |text: &str| shown(text.as_ref());
    sayln!("step {} ({}) on {words}, batch: {}", dump.step, one_line(&dump.part), one_line(&dump.names.join(", ")));
    let width = replay.inputs.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    sayln!("{:<width$}  {:>12}  {:>12}", "what went in", "norm", "largest");
    for (name, norm, largest) in &replay.inputs {
        sayln!("{name:<width$}  {norm:>12.4e}  {largest:>12.4e}");
    }
    sayln!("then: {} is not finite ({})", one_line(&dump.tensor), one_line(&dump.part));
    match &replay.outcome {
        Err(now) => {
            sayln!("now:  {now}");
            Ok(ExitCode::SUCCESS)
        }
        Ok(losses) => {
            let losses: Vec<String> = losses.iter().map(|loss| format!("{} {}", loss.name, loss.value)).collect();
            sayln!("now:  all is finite: {}", losses.join(", "));
            Ok(ExitCode::FAILURE)
        }
    }
}
