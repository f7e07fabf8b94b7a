//! `cargo xtask reproduce RUN`: a run that was made before, made again from what its directory says.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::trace::{Trace, first_of};
use super::{Lab, Reproduce};

/// Repeats a run as far as it has come, in a directory that is kept if somebody says where, and compares.
pub(super) fn repeat(lab: &Lab, run: &Path, flags: &Reproduce) -> Result<Result<String, String>> {
    let manifest: Value = serde_json::from_str(&required(run, "manifest.json")?)
        .with_context(|| run.join("manifest.json").display().to_string())?;
    let losses = required(run, "losses.txt")?;
    let steps =
        steps_of(&losses).last().map(|step| step.number).with_context(|| format!("{}: took no step", run.display()))?;

    let again = flags
        .keep
        .clone()
        .unwrap_or_else(|| lab.folder.path().join(run.display().to_string().replace(['/', '\\'], "-")));
    let (config, until) = (run.join("config.toml"), steps.to_string());
    let (config, original, target) = (utf8(&config)?, utf8(run)?, utf8(&again)?);
    let trace = again.join("trace.txt");
    let mut arguments = vec!["train", config, "--run", target, "--repeats", original, "--until", &until];
    let known = |value: &'_ Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let mut given = vec![
        // Generated scenes that are gone are generated again.
        ("--data", flags.data.clone().or(known(&manifest["data"]["root"]).filter(|root| Path::new(root).is_dir()))),
        ("--device", known(&manifest["device"])),
        ("--weights", known(&manifest["weights"]["file"])),
        ("--arithmetic", known(&manifest["cpu"]["arithmetic"]).filter(|_| !flags.allow_changes)),
    ];
    if run.join("trace.txt").is_file() {
        given.push(("--trace", Some(utf8(&trace)?.to_owned())));
    }
    for (flag, value) in &given {
        arguments.extend(value.iter().flat_map(|value| [*flag, value.as_str()]));
    }
    if flags.allow_changes {
        arguments.push("--allow-changes");
    }
    lab.program(&arguments, None)?;
    let outcome = compare(run, &again)?;
    let resumed = manifest["resumed"].as_array().and_then(|resumed| resumed.first());
    Ok(match resumed.and_then(|resumed| resumed["step"].as_u64()) {
        Some(step) => outcome.map_err(|why| format!("{why}; its manifest notes changes after step {step}")),
        None => outcome,
    })
}

/// What a run was computed on, where that is known.
pub(super) fn device(run: &Path) -> Option<String> {
    let manifest: Value = serde_json::from_str(&fs::read_to_string(run.join("manifest.json")).ok()?).ok()?;
    manifest["device"].as_str().map(str::to_owned)
}

/// The text of a file that a run that can be repeated has.
fn required(run: &Path, name: &str) -> Result<String> {
    optional(&run.join(name))?.with_context(|| format!("{}: has no {name}, so nothing to be repeated", run.display()))
}

fn optional(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: not a text", path.display()))
}

/// A line of `losses.txt`.
#[derive(Debug, PartialEq)]
struct Losses<'a> {
    epoch: u64,
    number: u64,
    values: Vec<&'a str>,
}

/// The lines below the first, which names the losses. One without its line feed was cut off.
fn steps_of(losses: &str) -> impl Iterator<Item = Losses<'_>> {
    let written = losses.rfind('\n').map_or("", |end| &losses[..end]);
    written.lines().skip(1).filter_map(|line| {
        let mut fields = line.split(' ');
        let (epoch, number) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Losses { epoch, number, values: fields.collect() })
    })
}

/// Compares two run directories: every step's trace if both have one, every step's losses, every epoch's weights, the checkpoint.
fn compare(was: &Path, is: &Path) -> Result<Result<String, String>> {
    let both =
        |name: &str| -> Result<[Option<String>; 2]> { Ok([optional(&was.join(name))?, optional(&is.join(name))?]) };
    if let [Some(was), Some(is)] = both("trace.txt")?
        && let Some(departure) = Trace::parse(&was).context("trace.txt")?.departure(&Trace::parse(&is)?)
    {
        return Ok(Err(departure));
    }
    let digests = both("digests.jsonl")?.map(|text| epochs_of(&text.unwrap_or_default()));
    let losses = [required(was, "losses.txt")?, required(is, "losses.txt")?];
    if let Some(departure) = losses_departure(&losses[0], &losses[1]) {
        return Ok(Err(format!("{}; {}", departure.text, weights_around(&digests, departure.epoch))));
    }
    let steps = steps_of(&losses[0]).count();
    if let Some((epoch, tensors)) = first_difference(&digests) {
        return Ok(Err(format!("after epoch {epoch}: {tensors}; the losses of all {steps} steps are equal")));
    }
    let epochs = digests[0].iter().filter(|(epoch, _)| digests[1].iter().any(|(other, _)| other == epoch)).count();
    let weights = digests[0].first().map_or(0, |(_, weights)| weights.len());
    let mut equal = format!("bit by bit: the losses of {steps} steps, {weights} tensors after each of {epochs} epochs");
    if let [Some(was), Some(is)] = both("checkpoints/last/progress.json")? {
        let (was, is): (Value, Value) = (serde_json::from_str(&was)?, serde_json::from_str(&is)?);
        // A run that was killed may have logged steps that no checkpoint knows.
        if was["steps"] == is["steps"] {
            if was["sha256"] != is["sha256"] {
                return Ok(Err(format!("the checkpoint after step {} differs; {equal}", was["steps"])));
            }
            equal.push_str(", the last checkpoint");
        }
    }
    ensure!(steps > 0, "{}: took no step", was.display());
    Ok(Ok(equal))
}

/// The first step whose losses differ.
struct Departure {
    epoch: u64,
    text: String,
}

fn losses_departure(was: &str, is: &str) -> Option<Departure> {
    let names: Vec<&str> = was.lines().next().unwrap_or_default().split(' ').skip(3).collect();
    let mut now = steps_of(is);
    steps_of(was).find_map(|step| {
        let Losses { epoch, number, values } = step;
        let departure = |text: String| Some(Departure { epoch, text: format!("step {number}: {text}") });
        let Some(now) = now.next().filter(|now| now.number == number) else {
            return departure("was not taken".to_owned());
        };
        let position = values.iter().zip(&now.values).position(|(was, is)| was != is);
        let position = position.or((values.len() != now.values.len()).then_some(values.len().min(now.values.len())))?;
        let at = |values: &[&str]| values.get(position).copied().unwrap_or("nothing").to_owned();
        let name = names.get(position).copied().unwrap_or("?");
        departure(format!("the loss {name} is {} instead of {}", at(&now.values), at(&values)))
    })
}

/// An epoch and its weights' hashes, in name order.
type Epoch = (u64, Vec<(String, String)>);

/// Reads `digests.jsonl`; what is no line of it is left out.
fn epochs_of(text: &str) -> Vec<Epoch> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let epoch = |line: Value| {
        let weights = line["weights"].as_object()?.iter();
        let weights = weights.filter_map(|(name, hash)| Some((name.clone(), hash.as_str()?.to_owned()))).collect();
        Some((line["epoch"].as_u64()?, weights))
    };
    lines.filter_map(epoch).collect()
}

/// The weights that differ after an epoch, the first by name; nothing where both runs do not know it, or all are equal.
fn difference([was, is]: &[Vec<Epoch>; 2], epoch: u64) -> Option<String> {
    let find =
        |epochs: &'_ [Epoch]| epochs.iter().find(|(number, _)| *number == epoch).map(|(_, weights)| weights.clone());
    let (was, is) = (find(was)?, find(is)?);
    let differing: Vec<&str> =
        was.iter().filter(|weight| !is.contains(weight)).map(|(name, _)| name.as_str()).collect();
    first_of(&differing)
}

fn first_difference(digests: &[Vec<Epoch>; 2]) -> Option<(u64, String)> {
    digests[0].iter().find_map(|&(epoch, _)| Some((epoch, difference(digests, epoch)?)))
}

/// What is known of the weights before and after the epoch in which losses part.
fn weights_around(digests: &[Vec<Epoch>; 2], epoch: u64) -> String {
    let knows = |epoch| digests.iter().all(|epochs| epochs.iter().any(|&(number, _)| number == epoch));
    let after = match difference(digests, epoch) {
        Some(tensors) => format!("after epoch {epoch}, {tensors}"),
        None if knows(epoch) => format!("after epoch {epoch} all weights are equal"),
        None => format!("no digests of epoch {epoch} are there to name a tensor"),
    };
    match epoch.checked_sub(1).filter(|&before| knows(before)) {
        None => after,
        Some(before) => match difference(digests, before) {
            None => format!("{after}; after epoch {before} all were equal"),
            Some(tensors) => format!("{after}; after epoch {before} already, {tensors}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSSES: &str = "# epoch step d g\n1 1 0.5 2\n1 2 0.25 1\n2 3 0.125 1\n2 4 0.1 1\n";
    const DIGESTS: &str =
        "{\"epoch\":1,\"weights\":{\"a\":\"1\",\"b\":\"2\"}}\n{\"epoch\":2,\"weights\":{\"a\":\"3\",\"b\":\"4\"}}\n";

    fn compared(edit: impl Fn(&str, &str) -> String) -> Result<String, String> {
        let shell = xshell::Shell::new().unwrap();
        let folder = shell.create_temp_dir().unwrap();
        let (was, is) = (folder.path().join("was"), folder.path().join("is"));
        for (name, text) in [("losses.txt", LOSSES), ("digests.jsonl", DIGESTS)] {
            shell.write_file(was.join(name), text).unwrap();
            shell.write_file(is.join(name), edit(name, text)).unwrap();
        }
        compare(&was, &is).unwrap()
    }

    #[test]
    fn equality_is_said_plainly() {
        let said = compared(|_, text| text.to_owned()).unwrap();
        assert_eq!(said, "bit by bit: the losses of 4 steps, 2 tensors after each of 2 epochs");
    }

    #[test]
    fn a_departure_names_step_loss_and_tensor() {
        let said = compared(|_, text| text.replace("0.1 1", "0.1 1.5").replace("\"4\"", "\"x\"")).unwrap_err();
        let expected = "step 4: the loss g is 1.5 instead of 1; after epoch 2, b differs; after epoch 1 all were equal";
        assert_eq!(said, expected);
        let said = compared(|_, text| text.replace("1 2 0.25", "1 2 0.26").replace(['3', '4'], "x")).unwrap_err();
        assert!(
            said.starts_with("step 2: the loss d is 0.26 instead of 0.25; after epoch 1 all weights are"),
            "{said}"
        );
        let said = compared(|name, text| match name {
            "digests.jsonl" => text.replace("\"3\"", "\"x\"").replace("\"4\"", "\"x\""),
            _ => text.to_owned(),
        });
        let expected = "after epoch 2: a differs (and 1 more tensor); the losses of all 4 steps are equal";
        assert_eq!(said.unwrap_err(), expected);
        let said = compared(|_, text| text.lines().take(3).flat_map(|line| [line, "\n"]).collect()).unwrap_err();
        assert!(said.starts_with("step 3: was not taken"), "{said}");
    }

    #[test]
    fn a_cut_off_line_is_no_step() {
        let numbers = |text: &str| steps_of(text).map(|step| step.number).collect::<Vec<_>>();
        assert_eq!(numbers(LOSSES), [1, 2, 3, 4]);
        assert_eq!(numbers(&LOSSES[..LOSSES.len() - 1]), [1, 2, 3]);
        assert!(numbers("# epoch step d\n").is_empty() && numbers("").is_empty());
    }
}
