//! What is timed: names for people, words for the workers.

use anyhow::{Result, ensure};

/// One case; `words` are what both workers build it from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) words: Vec<String>,
}

impl Case {
    fn new(name: String, words: &str) -> Self {
        Self { name, words: words.split(' ').map(str::to_owned).collect() }
    }

    /// Whether files are read, which takes a folder after the words.
    pub(super) fn loads(&self) -> bool {
        self.words[0] == "load"
    }

    /// Whether there is something that PyTorch can compile.
    pub(super) fn has_networks(&self) -> bool {
        ["train", "infer"].contains(&self.words[0].as_str())
    }
}

/// Network, base channels, side, batch.
const NETWORKS: [(&str, usize, usize, usize); 5] =
    [("unet", 16, 128, 4), ("unet", 32, 128, 4), ("unet", 64, 256, 1), ("cgan", 64, 128, 4), ("cgan", 64, 256, 1)];

/// What only a GPU does in reasonable time.
const LARGE_NETWORKS: [(&str, usize, usize, usize); 2] = [("unet", 64, 256, 16), ("cgan", 64, 256, 16)];

/// Convolution; kernel, stride, padding; channels in and out; side of the image. Batches of 4.
const LAYERS: [(&str, [usize; 3], [usize; 2], usize); 9] = [
    ("conv", [3, 1, 1], [16, 16], 128),
    ("conv", [3, 1, 1], [64, 64], 64),
    ("conv", [3, 1, 1], [256, 256], 16),
    ("conv", [4, 2, 1], [64, 128], 64),
    ("conv", [4, 2, 1], [256, 512], 16),
    ("conv-transpose", [4, 2, 1], [128, 64], 32),
    ("conv-transpose", [4, 2, 1], [512, 256], 8),
    ("conv-transpose", [2, 2, 0], [32, 16], 64),
    ("conv-transpose", [2, 2, 0], [128, 64], 16),
];

/// Pairs of an epoch, their halves' side, and the batch.
const LOADED: [usize; 3] = [64, 256, 8];

/// Every case of a device.
pub(super) fn all(device: &str) -> Vec<Case> {
    let large = if device == "cpu" { &[] } else { &LARGE_NETWORKS[..] };
    let mut cases = Vec::new();
    for kind in ["train", "infer"] {
        for (network, base, size, batch) in NETWORKS.iter().chain(large) {
            let name = format!("{kind}-{network}-{base}-{size}px-b{batch}");
            cases.push(Case::new(name, &format!("{kind} {network} {base} {size} {batch}")));
        }
    }
    for (kind, [kernel, stride, padding], [from, to], size) in LAYERS {
        let name = format!("layer-{kind}-{kernel}x{kernel}-s{stride}-{from}to{to}-{size}px-b4");
        cases.push(Case::new(name, &format!("layer {kind} {kernel} {stride} {padding} {from} {to} {size} 4")));
    }
    let [images, size, batch] = LOADED;
    for format in ["png", "jpg"] {
        let name = format!("load-{format}-{images}x{size}px-b{batch}");
        cases.push(Case::new(name, &format!("load {format} {images} {size} {batch}")));
    }
    cases
}

/// The cases whose names contain a filter; every filter must find one.
pub(super) fn select(mut cases: Vec<Case>, filters: &[String]) -> Result<Vec<Case>> {
    for filter in filters {
        let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        let found = names.iter().any(|name| name.contains(filter));
        ensure!(found, "{filter}: in the name of no case; these there are:\n  {}", names.join("\n  "));
    }
    cases.retain(|case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter)));
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_different_and_words_say_the_same() {
        let cases = all("cuda");
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
        assert_eq!(cases[0].name, "train-unet-16-128px-b4");
        assert_eq!(cases[0].words.join(" "), "train unet 16 128 4");
        assert!(cases[0].has_networks() && !cases[0].loads());
        assert!(cases.last().is_some_and(|case| case.loads() && !case.has_networks()));
        assert_eq!(all("cpu").len() + 2 * LARGE_NETWORKS.len(), cases.len());
    }

    #[test]
    fn filters_add_up_and_mistakes_are_answered_by_the_names() {
        let select = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
            super::select(all("cpu"), &filters)
        };
        assert_eq!(select(&[]).unwrap(), all("cpu"));
        assert_eq!(select(&["unet-16", "load-png"]).unwrap().len(), 3);
        let error = select(&["unet-16", "unet-17"]).unwrap_err().to_string();
        assert!(error.starts_with("unet-17: in the name of no case") && error.contains("infer-cgan-64-256px-b1"));
    }
}
