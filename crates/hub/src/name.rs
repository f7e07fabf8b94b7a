use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::HubError;

/// The name of a data set on the Hub: `OWNER/NAME`, or `OWNER/NAME/CONFIGURATION` where it has several.
///
/// Each part has 1 to 96 ASCII letters, digits, `_`, `-` and `.`; `-` and `.` neither begin nor end it and do not stand next
/// to their like. These are the Hub's rules, and they keep a name from being a path to anywhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSetName {
    owner: String,
    name: String,
    configuration: Option<String>,
}

impl DataSetName {
    /// Where the pairs go unless told otherwise: `data/downloads/OWNER--NAME`, and `--CONFIGURATION` if the name has one.
    pub fn default_root(&self) -> PathBuf {
        Path::new("data/downloads").join(self.to_string().replace('/', "--"))
    }

    /// `OWNER/NAME`: what the Hub calls the repository.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The configuration, if the name has one.
    pub fn configuration(&self) -> Option<&str> {
        self.configuration.as_deref()
    }
}

impl fmt::Display for DataSetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.configuration.iter().try_for_each(|configuration| write!(f, "/{configuration}"))
    }
}

impl FromStr for DataSetName {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (owner, name, configuration) = match *text.split('/').collect::<Vec<_>>() {
            [owner, name] => (owner, name, None),
            [owner, name, configuration] => (owner, name, Some(configuration)),
            _ => return Err(HubError::Name { text: text.to_owned() }),
        };
        if ![owner, name].into_iter().chain(configuration).all(is_part) {
            return Err(HubError::Name { text: text.to_owned() });
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), configuration: configuration.map(str::to_owned) })
    }
}

fn is_part(part: &str) -> bool {
    (1..=96).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for text in ["huggan/facades", "a/b", "A_1/b-c.d", "_x_/y", "owner/name/full"] {
            let name: DataSetName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
        let name: DataSetName = "owner/name/full".parse().unwrap();
        assert_eq!((name.repository().as_str(), name.configuration()), ("owner/name", Some("full")));
        assert_eq!(name.default_root(), Path::new("data/downloads/owner--name--full"));
    }

    #[test]
    fn what_could_be_a_path_is_refused() {
        let long = format!("a/{}", "b".repeat(97));
        for text in [
            "", "/", "a", "a/", "/b", "a//b", "a/b/", "a/b/c/d", "../b", "a/..", "./b", "a/.", "a/b/..", "a/.b",
            "-a/b", "a/b-", "a/b..c", "a/b--c", "a--b/c", "a\\b/c", "C:/b", "a/b c", "a/b\n", "a/b\0", "a/ü",
            "a/b?x=1", "a/b%2e", &long,
        ] {
            let error = text.parse::<DataSetName>().unwrap_err().to_string();
            assert!(error.contains("OWNER/NAME"), "{text:?}: {error}");
        }
    }
}
