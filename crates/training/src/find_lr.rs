//! The learning-rate range test (Smith 2017, section 3.3): a few steps at rates that grow, to see which ones learn and which diverge.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use img2seg_data::{ClassTable, Dataset, Loader, Split};

use crate::learner::{self, Learner, Step};
use crate::{RunConfig, TrainingError};

/// How much of the smoothed loss the steps before make up.
const SMOOTHING: f64 = 0.9;

/// The test ends when the smoothed loss is so many times its least.
const DIVERGED: f64 = 4.0;

/// The key of a learning rate, wherever it stands in a recipe.
const KEY: &str = "learning_rate";

/// Which rates are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// That of the first step.
    pub from: f64,
    /// That of the last step.
    pub to: f64,
    /// Steps, each at a rate that is the one before times a constant.
    pub steps: usize,
}

impl Rates {
    /// The rate of the step with this index, from 0.
    fn at(&self, step: usize) -> f64 {
        let share = step as f64 / self.steps.saturating_sub(1).max(1) as f64;
        self.from * (self.to / self.from).powf(share)
    }

    /// What the types cannot say. The message begins with the field.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.from.is_normal() && self.from > 0.0) {
            return Err(format!("from {}: not above 0", self.from));
        }
        if !(self.to.is_finite() && self.to > self.from) {
            return Err(format!("to {}: not above {}, where the rates begin", self.to, self.from));
        }
        if self.steps < 10 {
            return Err(format!("steps {}: less than 10 say nothing", self.steps));
        }
        Ok(())
    }
}

/// A step of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The learning rate that the step is taken with.
    pub rate: f64,
    /// The loss before the step: what the rates before it have come to.
    pub loss: f64,
    /// The exponential mean of the losses so far, corrected for its start at 0.
    pub smoothed: f64,
}

/// How the test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its last step.
    Complete,
    /// The smoothed loss was above four times its least.
    Diverged,
    /// A loss or a gradient was not finite.
    NotFinite,
}

/// What the test found.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The loss that is followed, by its name in `losses.txt`.
    pub loss: String,
    /// All losses of a step.
    pub losses: Vec<String>,
    /// The recipe's learning rates by their keys, in the order of these. The curve's rates are the first's; all grow by one factor.
    pub recipe_rates: Vec<(String, f64)>,
    /// Step by step; none if the very first was not finite.
    pub points: Vec<Point>,
    /// How it ended.
    pub ending: Ending,
}

impl Curve {
    /// The rate at which the smoothed loss falls fastest, by the logarithm of the rate; none where it never falls.
    ///
    /// It is looked for after the steps that the mean takes to settle, and before the loss is least.
    pub fn steepest(&self) -> Option<f64> {
        let settled = (self.points.len() / 4).min((1.0 / (1.0 - SMOOTHING)).round() as usize).max(1);
        let slope = |at: usize| self.points[at + 1].smoothed - self.points[at - 1].smoothed;
        let last = self.least()?.min(self.points.len().saturating_sub(2));
        let steepest = (settled..=last).min_by(|&a, &b| slope(a).total_cmp(&slope(b)))?;
        (slope(steepest) < 0.0).then(|| self.points[steepest].rate)
    }

    /// A tenth of the rate at which the smoothed loss is least; none where that is below the rates that were tried.
    pub fn tenth_of_least(&self) -> Option<f64> {
        let rate = self.points[self.least()?].rate / 10.0;
        (rate >= self.points[0].rate).then_some(rate)
    }

    /// The first point of the least smoothed loss.
    fn least(&self) -> Option<usize> {
        (0..self.points.len()).min_by(|&a, &b| self.points[a].smoothed.total_cmp(&self.points[b].smoothed))
    }

    /// The recipe's keys with their values where the first is `rate`.
    pub fn settings(&self, rate: f64) -> Vec<(String, f64)> {
        let first = self.recipe_rates.first().map_or(rate, |&(_, first)| first);
        self.recipe_rates.iter().map(|(key, own)| (key.clone(), own / first * rate)).collect()
    }
}

/// Takes up to `rates.steps` steps of a recipe's training on the data below `root`, and follows the loss named `loss`, or the first: that
/// of a segmentation, and of an adversarial learner the discriminator's on true pairs. Leaves nothing: learner and weights are gone with it.
///
/// The rates are those of the first optimiser by its key in the recipe; others keep their ratio to it. The recipe's schedule is left
/// aside. `tell` is told each point.
///
/// # Errors
/// [`TrainingError::Recipe`] for rates, a loss or a learning rate that cannot be; what data and networks refuse.
pub fn find_lr(
    config: &RunConfig,
    root: &Path,
    device: &Device,
    rates: Rates,
    loss: Option<&str>,
    tell: impl FnMut(&Point),
) -> Result<Curve, TrainingError> {
    let refused = |message: String| TrainingError::Recipe { origin: config.recipe.clone(), message };
    rates.validate().map_err(refused)?;
    let recipe_rates = learning_rates(config)?;
    let Some(&(_, base)) = recipe_rates.first().filter(|(_, rate)| *rate > 0.0) else {
        return Err(refused(format!("{KEY}: there is none above 0 for others to be measured by")));
    };
    let classes = Arc::new(ClassTable::load(&config.data.classes)?);
    let dataset = Dataset::open(root, Split::Train, &config.data, classes.clone())?;
    let mut settled = config.clone();
    settled.settle(&dataset)?;
    let config = &settled;
    let mut learner = learner::build(config, &classes, device)?;
    let loader = Loader::new(dataset, config.loader(), config.data.augment.clone(), config.seed)?;
    let mut curve =
        Curve { loss: String::new(), losses: Vec::new(), recipe_rates, points: Vec::new(), ending: Ending::Complete };
    curve.follow(learner.as_mut(), &loader, device, (rates, base), loss, tell).map_err(|error| match error {
        TrainingError::Recipe { message, .. } => refused(message),
        other => other,
    })?;
    Ok(curve)
}

impl Curve {
    fn follow(
        &mut self,
        learner: &mut dyn Learner,
        loader: &Loader,
        device: &Device,
        (rates, base): (Rates, f64),
        loss: Option<&str>,
        mut tell: impl FnMut(&Point),
    ) -> Result<(), TrainingError> {
        let (mut mean, mut least) = (0.0, f64::INFINITY);
        let batches = (1..).flat_map(|epoch| loader.train_batches(epoch, 0));
        for (index, batch) in batches.take(rates.steps).enumerate() {
            let rate = rates.at(index);
            let step = Step { number: index as u64 + 1, rate_factor: rate / base };
            let losses = match learner.train_step(&batch?.to_device(device)?, step) {
                Err(TrainingError::NotFinite { .. }) => {
                    self.ending = Ending::NotFinite;
                    return Ok(());
                }
                losses => losses?,
            };
            let followed = losses.iter().find(|known| loss.is_none_or(|name| known.name == name));
            self.losses = losses.iter().map(|loss| loss.name.to_owned()).collect();
            let Some(followed) = followed else {
                let message = format!("there is no loss {}, but {}", loss.unwrap_or_default(), self.losses.join(", "));
                return Err(TrainingError::Recipe { origin: String::new(), message });
            };
            followed.name.clone_into(&mut self.loss);
            let value = f64::from(followed.value);
            mean = SMOOTHING * mean + (1.0 - SMOOTHING) * value;
            let smoothed = mean / (1.0 - SMOOTHING.powf(index as f64 + 1.0));
            let point = Point { rate, loss: value, smoothed };
            self.points.push(point);
            tell(&point);
            least = smoothed.min(least);
            // So that it holds for losses below 0 too: four times as far up as a loss above 0 is from 0.
            if smoothed > least + (DIVERGED - 1.0) * least.abs() {
                self.ending = Ending::Diverged;
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Every `learning_rate` of a recipe by its dotted key. Looked for by name, so that whatever optimiser a recipe chooses is found.
fn learning_rates(config: &RunConfig) -> Result<Vec<(String, f64)>, TrainingError> {
    let unreadable = |error: toml::de::Error| TrainingError::Recipe {
        origin: config.recipe.clone(),
        message: error.message().to_owned(),
    };
    let table: toml::Table = toml::from_str(&config.to_toml()?).map_err(unreadable)?;
    let mut rates = Vec::new();
    collect(&table, "", &mut rates);
    rates.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(rates)
}

fn collect(table: &toml::Table, path: &str, rates: &mut Vec<(String, f64)>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(inner) => collect(inner, &path, rates),
            toml::Value::Float(rate) if key == KEY => rates.push((path, *rate)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use img2seg_data::streets;

    use super::*;
    use crate::learner::tests::recipe;

    /// The curve of a smoke recipe on its own scenes, which are all that is there afterwards.
    fn curve(name: &str, rates: Rates, loss: Option<&str>) -> Result<Curve, TrainingError> {
        let mut config = recipe(name, &[]);
        name.clone_into(&mut config.recipe);
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("streets");
        streets::ensure(&root, config.data.streets.as_ref().unwrap(), &|_, _| {}).unwrap();
        let mut told = Vec::new();
        let curve = find_lr(&config, &root, &Device::Cpu, rates, loss, |&point| told.push(point));
        if let Ok(curve) = &curve {
            assert_eq!(told, curve.points);
        }
        let entries: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries, ["streets"], "something was left");
        curve
    }

    /// A curve of a smoothed loss, at rates that double.
    fn of(smoothed: &[f64]) -> Curve {
        let point = |(at, &smoothed): (usize, &f64)| Point { rate: 2f64.powi(at as i32), loss: 0.0, smoothed };
        Curve {
            loss: "mse".into(),
            losses: vec!["mse".into()],
            recipe_rates: vec![("a.learning_rate".into(), 0.01), ("b.learning_rate".into(), 0.02)],
            points: smoothed.iter().enumerate().map(point).collect(),
            ending: Ending::Complete,
        }
    }

    #[test]
    fn a_suggestion_lies_among_the_rates_and_twice_the_same() {
        let rates = Rates { from: 1e-5, to: 1.0, steps: 40 };
        let found = curve("smoke-unet", rates, None).unwrap();
        assert_eq!((found.loss.as_str(), found.points.len()), ("mse", 40));
        assert!((found.points[0].rate - 1e-5).abs() < 1e-12 && (found.points[39].rate - 1.0).abs() < 1e-9);
        assert!((found.points[0].smoothed - found.points[0].loss).abs() < 1e-12, "the mean is corrected");
        let [steepest, tenth] = [found.steepest(), found.tenth_of_least()].map(Option::unwrap);
        assert!((1e-5..=1.0).contains(&steepest) && (1e-6..=0.1).contains(&tenth), "{steepest} {tenth}");
        assert_eq!(curve("smoke-unet", rates, None).unwrap(), found);
    }

    #[test]
    fn it_stops_where_it_diverges() {
        let found = curve("smoke-unet", Rates { from: 1e-3, to: 1e6, steps: 60 }, None).unwrap();
        assert_ne!(found.ending, Ending::Complete);
        assert!(found.points.len() < 60);
        assert!(found.points.iter().all(|point| point.loss.is_finite()));
    }

    #[test]
    fn the_losses_of_an_adversarial_learner_are_told_apart() {
        let rates = Rates { from: 1e-5, to: 1e-3, steps: 10 };
        let found = curve("smoke-cgan", rates, None).unwrap();
        assert_eq!(found.loss, "d_real");
        let of_generator = curve("smoke-cgan", rates, Some("g")).unwrap();
        assert_eq!((of_generator.loss.as_str(), &of_generator.losses), ("g", &found.losses));
        assert!(of_generator.points != found.points);
        let keys: Vec<&str> = found.recipe_rates.iter().map(|(key, _)| key.as_str()).collect();
        assert!(keys.len() == 2 && keys.iter().all(|key| key.ends_with(".learning_rate")), "{keys:?}");
        let error = curve("smoke-cgan", rates, Some("mse")).unwrap_err().to_string();
        assert!(error.starts_with("smoke-cgan: there is no loss mse, but d_real, "), "{error}");
    }

    #[test]
    fn the_steepest_descent_comes_before_the_least_loss() {
        // Settled after the fourth point; the fall at the start and the one after the least do not count.
        let found = of(&[9.0, 5.0, 5.0, 5.0, 4.9, 4.0, 3.0, 2.5, 2.4, 2.3, 2.2, 6.0, 40.0, 20.0, 10.0, 9.0, 8.0]);
        assert_eq!(found.steepest(), Some(32.0));
        assert_eq!(found.tenth_of_least(), Some(102.4));
        assert_eq!(found.settings(0.5), [("a.learning_rate".to_owned(), 0.5), ("b.learning_rate".to_owned(), 1.0)]);
        let rising = of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!((rising.steepest(), rising.tenth_of_least()), (None, None));
        assert_eq!((of(&[]).steepest(), of(&[]).tenth_of_least()), (None, None));
        assert_eq!(of(&[1.0]).steepest(), None);
    }

    #[test]
    fn rates_that_cannot_be_are_refused() {
        let rates = Rates { from: 1e-3, to: 1.0, steps: 20 };
        assert_eq!(rates.validate(), Ok(()));
        for (rates, told) in [
            (Rates { from: 0.0, ..rates }, "from 0: not above 0"),
            (Rates { from: f64::NAN, ..rates }, "from NaN: not above 0"),
            (Rates { to: 1e-3, ..rates }, "to 0.001: not above 0.001, where the rates begin"),
            (Rates { to: f64::INFINITY, ..rates }, "to inf: not above 0.001, where the rates begin"),
            (Rates { steps: 9, ..rates }, "steps 9: less than 10 say nothing"),
        ] {
            assert_eq!(rates.validate().unwrap_err(), told);
        }
    }
}
