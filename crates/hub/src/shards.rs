//! What a parquet file's name says: its configuration, its split, and which part of the split it is.

use std::collections::{BTreeMap, BTreeSet};

use img2seg_data::Split;

use crate::{DataSetName, HubError};

/// One parquet file of a data set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shard {
    /// Path inside the repository, with `/`.
    pub(crate) file: String,
    /// Name of the folder around it; empty at the top of the repository.
    pub(crate) configuration: String,
    /// The split's name on the Hub.
    pub(crate) split_name: String,
    /// The split, where we have one for that name.
    pub(crate) split: Option<Split>,
    /// Which part of its split it is, and of how many, where the name tells.
    part: Option<(usize, Option<usize>)>,
}

impl Shard {
    /// Reads `data/train-00000-of-00002.parquet`, as `push_to_hub` names files; `default/train/0000.parquet`, as the Hub's own
    /// conversion does; and others by the words in their path. As in the datasets library, a file that names no split is of train.
    pub(crate) fn new(file: &str) -> Self {
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        let stem = name.strip_suffix(".parquet").unwrap_or(name);
        let (around, split_name, part) = if let Some((split, part, of)) = part_of(stem) {
            (folder, split, Some((part, Some(of))))
        } else if let (Ok(part), false) = (stem.parse(), folder.is_empty()) {
            let (around, split) = folder.rsplit_once('/').unwrap_or(("", folder));
            (around, split, Some((part, None)))
        } else {
            let split = std::iter::once(stem)
                .chain(folder.rsplit('/'))
                .flat_map(|component| component.split(|letter: char| !letter.is_ascii_alphabetic()))
                .find(|word| split_of(word).is_some());
            ("", split.unwrap_or("train"), None)
        };
        // The Hub converts the first 5 GB of a larger split and calls them so.
        let split_name = split_name.strip_prefix("partial-").unwrap_or(split_name);
        Self {
            file: file.to_owned(),
            configuration: around.rsplit('/').next().unwrap_or(around).to_owned(),
            split_name: split_name.to_owned(),
            split: split_of(split_name),
            part,
        }
    }
}

/// `train-00000-of-00002`, and what older versions wrote: `train-00000-of-00002-1a2b3c`.
fn part_of(stem: &str) -> Option<(&str, usize, usize)> {
    let (left, right) = stem.rsplit_once("-of-")?;
    let (split, part) = left.rsplit_once('-')?;
    let of = right.split_once('-').map_or(right, |(of, _)| of);
    Some((split, part.parse().ok()?, of.parse().ok()?))
}

fn split_of(word: &str) -> Option<Split> {
    match word.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" | "dev" => Some(Split::Val),
        "test" | "testing" | "eval" | "evaluation" => Some(Split::Test),
        _ => None,
    }
}

/// The first gap in the numbers of the files, in words.
pub(crate) fn first_gap(shards: &[Shard]) -> Option<String> {
    let mut splits = BTreeMap::<_, (BTreeSet<usize>, usize)>::new();
    for shard in shards {
        if let Some((part, of)) = shard.part {
            let folder = shard.file.rsplit_once('/').map_or("", |(folder, _)| folder);
            let (parts, count) = splits.entry((folder, shard.split_name.as_str())).or_default();
            parts.insert(part);
            *count = (*count).max(of.unwrap_or(0)).max(part.saturating_add(1));
        }
    }
    splits.into_iter().find(|(_, (parts, count))| parts.len() < *count).map(|((folder, split), (parts, count))| {
        let within = if folder.is_empty() { String::new() } else { format!(" in {folder}") };
        format!("{} of the {count} {split} files{within} are there", parts.len())
    })
}

/// The files of the named configuration; without a name those of the only one, of `default`, or of `data`.
pub(crate) fn of_configuration(shards: Vec<Shard>, name: &DataSetName) -> Result<(String, Vec<Shard>), HubError> {
    let found: BTreeSet<String> = shards.iter().map(|shard| shard.configuration.clone()).collect();
    let chosen = match (name.configuration(), found.len()) {
        (Some(configuration), _) => found.get(configuration),
        (None, 1) => found.first(),
        (None, _) => found.get("default").or_else(|| found.get("data")),
    };
    match chosen.cloned() {
        Some(chosen) => {
            let shards = shards.into_iter().filter(|shard| shard.configuration == chosen).collect();
            Ok((chosen, shards))
        }
        None => Err(HubError::Configuration { name: name.to_string(), found: found.into_iter().collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_configuration_and_split() {
        for (file, configuration, split) in [
            ("data/train-00000-of-00001.parquet", "data", Some(Split::Train)),
            ("data/validation-00001-of-00002-1a2b3c4d.parquet", "data", Some(Split::Val)),
            ("full/test-00000-of-00001.parquet", "full", Some(Split::Test)),
            ("data/full/val-00000-of-00001.parquet", "full", Some(Split::Val)),
            ("data/train_extra-00000-of-00001.parquet", "data", None),
            ("default/train/0000.parquet", "default", Some(Split::Train)),
            ("default/partial-train/0003.parquet", "default", Some(Split::Train)),
            ("default/unlabelled/0000.parquet", "default", None),
            ("test/0000.parquet", "", Some(Split::Test)),
            ("train.parquet", "", Some(Split::Train)),
            ("Validation.parquet", "", Some(Split::Val)),
            ("streets_dev_v2.parquet", "", Some(Split::Val)),
            ("test/part-a.parquet", "", Some(Split::Test)),
            ("0000.parquet", "", Some(Split::Train)),
            ("constrained.parquet", "", Some(Split::Train)),
            (".parquet", "", Some(Split::Train)),
        ] {
            let shard = Shard::new(file);
            assert_eq!((shard.configuration.as_str(), shard.split), (configuration, split), "{file}");
        }
    }

    fn shards(files: &[&str]) -> Vec<Shard> {
        files.iter().map(|file| Shard::new(file)).collect()
    }

    #[test]
    fn gaps_are_found() {
        for whole in [
            vec![
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ],
            vec!["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"],
            vec!["a.parquet", "b.parquet"],
        ] {
            assert_eq!(first_gap(&shards(&whole)), None);
        }
        for (files, gap) in [
            (vec!["data/train-00000-of-00002.parquet"], "1 of the 2 train files in data are there"),
            (vec!["x/test/0001.parquet", "x/train/0000.parquet"], "1 of the 2 test files in x/test are there"),
        ] {
            assert_eq!(first_gap(&shards(&files)).as_deref(), Some(gap));
        }
        assert!(first_gap(&shards(&["x/train/18446744073709551615.parquet"])).is_some());
    }

    #[test]
    fn the_configuration_is_named_or_obvious() {
        let files = shards(&["full/train/0000.parquet", "mini/train/0000.parquet"]);
        let chosen = |files: &[Shard], name: &str| of_configuration(files.to_vec(), &name.parse().unwrap());

        assert_eq!(chosen(&files, "a/b/mini").unwrap(), ("mini".to_owned(), files[1..].to_vec()));
        assert_eq!(chosen(&files[..1], "a/b").unwrap().0, "full");
        assert_eq!(
            chosen(&files, "a/b").unwrap_err().to_string(),
            "a/b: has the configurations full, mini: name one of them as OWNER/NAME/CONFIGURATION"
        );
        assert!(chosen(&files, "a/b/tiny").is_err());
        assert_eq!(chosen(&shards(&["default/train/0.parquet", "x/train/0.parquet"]), "a/b").unwrap().0, "default");
    }
}
