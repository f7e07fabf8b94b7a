//! `img2seg find-lr`: try learning rates, and suggest one.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use img2seg_data::shown;
use img2seg_training::find_lr::{Curve, Ending, Point, Rates, find_lr};

use crate::origin::origin;
use crate::{UsageError, device, progress, recipes, train};

/// Rows of the printed curve.
const ROWS: usize = 24;

/// Characters of its longest bar.
const BAR: f64 = 40.0;

/// Try learning rates, and suggest one.
///
/// Takes steps of a recipe's training at rates that grow from step to step, and shows what becomes of the loss. Nothing is kept.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A built-in recipe (see `img2seg recipes`) or a TOML file
    recipe: String,
    /// The data: a folder, or hub:OWNER/NAME [default: generated streets, where the recipe has them]
    #[arg(long, value_name = "ROOT")]
    data: Option<String>,
    /// Replace a key of the recipe, as in --set seed=1
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Steps to take at most
    #[arg(long, default_value_t = 100)]
    steps: usize,
    /// The rate of the first step
    #[arg(long, value_name = "RATE", default_value_t = 1e-6)]
    from: f64,
    /// The rate of the last step
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    to: f64,
    /// The loss to follow [default: the first; of an adversarial recipe `d_real`, the discriminator's on true pairs]
    #[arg(long, value_name = "NAME")]
    loss: Option<String>,
    /// Write rate, loss and smoothed loss of every step to a file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// What computes: auto, cpu, cuda, cuda:N, cuda-fastest, cuda-fastest:N or metal
    #[arg(long, default_value = "auto")]
    device: String,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let &Arguments { from, to, steps, .. } = arguments;
    let rates = Rates { from, to, steps };
    rates.validate().map_err(|message| UsageError(format!("--{message}")))?;
    let config = recipes::load(&arguments.recipe, &arguments.settings)?;
    let root = train::data_root(arguments.data.as_deref(), &config)?;
    let (device, words) = device::open(&arguments.device, config.exactness)?;
    let origin = origin(&words);
    eprintln!("{} on {}, {} threads, data {}", config.recipe, origin.device, origin.threads, shown(&root));

    let bar = progress::counter("trying rates");
    let mut done = 0;
    let curve = find_lr(&config, &root, &device, rates, arguments.loss.as_deref(), |_| {
        done += 1;
        bar.show(done, steps);
    })?;
    if done < steps {
        bar.show(done, done);
    }
    if let Some(path) = &arguments.csv {
        fs::write(path, csv(&curve.points)).with_context(|| shown(path))?;
    }
    say!("{}", plot(&curve));
    say!("{}", suggestions(&curve));
    Ok(())
}

fn csv(points: &[Point]) -> String {
    let lines = points.iter().map(|Point { rate, loss, smoothed }| format!("{rate:e},{loss},{smoothed}\n"));
    std::iter::once("rate,loss,smoothed\n".to_owned()).chain(lines).collect()
}

/// A line for each of some points, the last among them, with a bar as long as its smoothed loss.
fn plot(curve: &Curve) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let width = curve.loss.len().max(10);
    let _ = writeln!(text, "{:>9}  {:>width$}  {:>10}", "rate", &curve.loss, "smoothed");
    let points = &curve.points;
    // A loss far above the first says no more than that it is.
    let most = points.first().map_or(1.0, |first| 1.25 * first.smoothed.abs());
    let every = points.len().div_ceil(ROWS).max(1);
    for (at, Point { rate, loss, smoothed }) in points.iter().enumerate() {
        if (points.len() - 1 - at).is_multiple_of(every) {
            let length = (BAR * (smoothed / most).clamp(0.0, 1.0)).round() as usize;
            let _ = writeln!(text, "{rate:>9.1e}  {loss:>width$.4}  {smoothed:>10.4}  {}", "#".repeat(length));
        }
    }
    match curve.ending {
        Ending::Complete => {}
        Ending::Diverged => text.push_str("then the smoothed loss was four times its least\n"),
        Ending::NotFinite => text.push_str("then a loss or a gradient was not finite\n"),
    }
    text
}

/// Both suggestions, as what to say to `train`.
fn suggestions(curve: &Curve) -> String {
    let mut text = String::new();
    if curve.losses.len() > 1 {
        let _ =
            writeln!(text, "this is the loss {} of {}; --loss follows another", curve.loss, curve.losses.join(", "));
    }
    for (name, rate) in [("steepest descent", curve.steepest()), ("a tenth of the least", curve.tenth_of_least())] {
        let _ = match rate {
            Some(rate) => {
                let settings = curve.settings(rate);
                let settings: Vec<String> =
                    settings.iter().map(|(key, rate)| format!("--set {key}={rate:.1e}")).collect();
                writeln!(text, "{name:<20}  {rate:.1e}  {}", settings.join(" "))
            }
            None => writeln!(text, "{name:<20}  none: the loss does not fall at these rates"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: &[f64]) -> Curve {
        let point = |(at, &loss): (usize, &f64)| Point { rate: 10f64.powi(at as i32 - 6), loss, smoothed: loss };
        Curve {
            loss: "g".into(),
            losses: vec!["d_real".into(), "g".into()],
            recipe_rates: vec![("d.learning_rate".into(), 1e-3), ("g.learning_rate".into(), 2e-3)],
            points: losses.iter().enumerate().map(point).collect(),
            ending: Ending::Diverged,
        }
    }

    #[test]
    fn a_plot_shows_few_points_and_the_last() {
        let text = plot(&curve(&[4.0, 4.0, 2.0, 1.0, 500.0]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], format!("   1.0e-6      4.0000      4.0000  {}", "#".repeat(32)));
        assert_eq!(lines[4], format!("   1.0e-3      1.0000      1.0000  {}", "#".repeat(8)));
        assert!(lines[5].ends_with(&"#".repeat(40)) && lines[6] == "then the smoothed loss was four times its least");
        let many = plot(&curve(&[1.0; 100]));
        assert_eq!(many.lines().count(), 1 + 20 + 1);
        assert!(many.contains(" 1.0e93 "), "{many}");
    }

    #[test]
    fn suggestions_are_settings() {
        let text = suggestions(&curve(&[4.0, 4.0, 2.0, 1.0, 500.0]));
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "this is the loss g of d_real, g; --loss follows another",
                "steepest descent      1.0e-4  --set d.learning_rate=1.0e-4 --set g.learning_rate=2.0e-4",
                "a tenth of the least  1.0e-4  --set d.learning_rate=1.0e-4 --set g.learning_rate=2.0e-4",
            ]
        );
        assert!(
            suggestions(&curve(&[1.0, 2.0]))
                .contains("steepest descent      none: the loss does not fall at these rates")
        );
    }

    #[test]
    fn a_csv_has_a_line_for_each_step() {
        assert_eq!(csv(&curve(&[4.0, 0.5]).points), "rate,loss,smoothed\n1e-6,4,4\n1e-5,0.5,0.5\n");
    }
}
