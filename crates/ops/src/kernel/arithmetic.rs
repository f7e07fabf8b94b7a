//! What the results' last bits depend on, for whoever has to write it down.

use candle_core::{Result, bail};

use super::Level;

/// The instructions that convolutions are computed with here: `portable`, `avx2` or `avx512`. What differs in this differs in
/// last bits.
pub fn arithmetic() -> &'static str {
    Level::chosen().name()
}

/// From now on computes as a lesser processor would, `portable` or `avx2`: to repeat what was computed on one.
///
/// # Errors
/// When this processor has no such instructions, or something was computed with others before.
pub fn limit_arithmetic(name: &str) -> Result<()> {
    let levels = Level::all();
    let Some(level) = levels.iter().copied().find(|level| level.name() == name) else {
        let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
        bail!("{name}: not an arithmetic of this processor, which has {}", names.join(", "));
    };
    if Level::choose(level) == level {
        return Ok(());
    }
    bail!("{name}: this process computes with {} already", arithmetic())
}

/// Those of the processor's instruction sets that the kernels and gemm make use of, at the present [`arithmetic`].
pub fn cpu_features() -> Vec<&'static str> {
    let mut features = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let wide = Level::chosen() == Level::Avx512;
        for (name, present) in [
            ("avx2", has!("avx2")),
            ("fma", has!("fma")),
            ("avx512f", wide && has!("avx512f")),
            ("avx512vl", wide && has!("avx512vl")),
            ("avx512dq", wide && has!("avx512dq")),
        ] {
            features.extend(present.then_some(name));
        }
    }
    if cfg!(target_arch = "aarch64") {
        features.push("neon"); // every such processor has it
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what changes nothing is asked for: the choice is the process's, and other tests compute in it.
    #[test]
    fn an_arithmetic_is_chosen_once() {
        let best = arithmetic();
        assert_eq!(best, Level::all().last().unwrap().name());
        limit_arithmetic(best).unwrap();
        let error = limit_arithmetic("sse9").unwrap_err().to_string();
        assert!(error.contains("sse9: not an arithmetic of this processor, which has portable"), "{error}");
        if best != "portable" {
            let error = limit_arithmetic("portable").unwrap_err().to_string();
            assert!(error.contains(&format!("computes with {best} already")), "{error}");
        }
        assert_eq!(cpu_features().contains(&"avx512f"), best == "avx512");
    }
}
