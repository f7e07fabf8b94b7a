use std::path::Path;

use super::read;
use crate::ReportError;

/// `losses.txt`: what every step lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Losses {
    /// The names of the losses.
    pub names: Vec<String>,
    /// The steps in the order they were taken.
    pub steps: Vec<Step>,
}

/// The losses of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// From 1.
    pub epoch: u64,
    /// From 1, over all epochs.
    pub step: u64,
    /// One a name; not finite where training diverged.
    pub values: Vec<f32>,
}

impl Losses {
    pub(super) fn read(path: &Path) -> Result<Self, ReportError> {
        let text = read::text(path)?.unwrap_or_default();
        let mut lines = read::lines(&text);
        let Some((number, head)) = lines.next() else { return Ok(Self::default()) };
        let Some(names) = head.strip_prefix("# epoch step ") else {
            return Err(read::malformed(
                path,
                number,
                "does not begin with `# epoch step` and the names of the losses",
            ));
        };
        let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        let steps = lines
            .map(|(number, line)| step(line, names.len()).map_err(|message| read::malformed(path, number, message)))
            .collect::<Result<_, _>>()?;
        Ok(Self { names, steps })
    }
}

fn step(line: &str, losses: usize) -> Result<Step, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [epoch, step, values @ ..] = fields.as_slice() else {
        return Err(format!("{} fields instead of {}", fields.len(), losses + 2));
    };
    if values.len() != losses {
        return Err(format!("{} fields instead of {}", fields.len(), losses + 2));
    }
    let count = |field: &str| field.parse::<u64>().map_err(|_| format!("`{field}` is not a count"));
    let value = |field: &&str| field.parse::<f32>().map_err(|_| format!("`{field}` is not a number"));
    Ok(Step { epoch: count(epoch)?, step: count(step)?, values: values.iter().map(value).collect::<Result<_, _>>()? })
}
