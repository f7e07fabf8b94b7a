//! What computes: `--device` and `--threads`.

use candle_core::Device;
use img2seg_ops::{Algorithms, Exactness, cuda_device, cuda_refusals};

use crate::UsageError;

/// The device that `--device` names, for convolutions of this exactness, and its description.
pub(crate) fn open(name: &str, exactness: Exactness) -> anyhow::Result<(Device, String)> {
    let usage = |text: String| anyhow::Error::new(UsageError(text));
    let device = match name.split_once(':').unwrap_or((name, "0")) {
        ("auto", "0") => automatic(),
        ("cpu", "0") => Device::Cpu,
        (kind @ ("cuda" | "cuda-fastest"), index) => {
            let index =
                index.parse().map_err(|_| usage(format!("--device {name}: {index} is not the number of a GPU")))?;
            if !cfg!(feature = "cuda") {
                return Err(usage(format!("--device {name}: this program was built without the feature cuda")));
            }
            let is_fastest = kind == "cuda-fastest";
            cuda_device(index, if is_fastest { Algorithms::Fastest } else { Algorithms::Deterministic })?
        }
        ("metal", "0") if cfg!(feature = "metal") => Device::new_metal(0)?,
        ("metal", "0") => {
            return Err(usage("--device metal: this program was built without the feature metal".to_owned()));
        }
        _ => {
            return Err(usage(format!(
                "--device {name}: not one of auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N, metal"
            )));
        }
    };
    for refusal in cuda_refusals(&device, exactness) {
        tracing::warn!("--device {name}: {refusal}");
    }
    let words = match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) if name.starts_with("cuda-fastest") => "cuda-fastest",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    };
    Ok((device, words.to_owned()))
}

/// The first GPU that the program was built for and that is there, else the CPU.
fn automatic() -> Device {
    if cfg!(feature = "cuda")
        && let Ok(device) = cuda_device(0, Algorithms::Deterministic)
    {
        return device;
    }
    if cfg!(feature = "metal")
        && let Ok(device) = Device::new_metal(0)
    {
        return device;
    }
    Device::Cpu
}

/// Computes as a lesser processor would from now on.
pub(crate) fn limit_arithmetic(name: &str) -> anyhow::Result<()> {
    let usage = |error| UsageError(format!("--arithmetic {}", img2seg_training::TrainingError::Tensor(error)));
    Ok(img2seg_ops::limit_arithmetic(name).map_err(usage)?)
}

/// Sets the number of threads for everything that follows: all, or as many as `RAYON_NUM_THREADS` says, if none is given.
///
/// This thread is one of them, and the others are its helpers: what it asks for begins at once, where another thread would have to be woken for it
/// and to wake it again (measured with one thread: a hundredth of a step, or of a prediction, of a small network).
pub(crate) fn use_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if threads == Some(0) {
        return Err(UsageError("--threads 0: must be at least 1".to_owned()).into());
    }
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or_default());
    Ok(builder.use_current_thread().build_global()?)
}
