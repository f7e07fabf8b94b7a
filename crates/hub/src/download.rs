use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use candle_datasets::hub::{Error as DownloadError, from_hub};
use hf_hub::{HFClientBuilder, HFError};

use crate::cache::{self, Cached, Snapshot};
use crate::{DataSetName, HubError};

/// Where data sets come from.
pub(crate) struct Hub {
    /// The local cache.
    pub(crate) cache: PathBuf,
    /// How to ask for what the cache lacks; `None` never asks.
    pub(crate) client: Option<HFClientBuilder>,
}

impl Hub {
    /// As the Hub's own libraries have it: the cache of `HF_HUB_CACHE`, `HF_HOME` or the home directory, the token and address
    /// of `HF_TOKEN` and `HF_ENDPOINT`, and no network under `HF_HUB_OFFLINE`.
    pub(crate) fn from_environment() -> Self {
        let offline = std::env::var("HF_HUB_OFFLINE")
            .is_ok_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        Self { cache: hf_hub::resolve_cache_dir(), client: (!offline).then(HFClientBuilder::new) }
    }

    /// Downloads what the cache lacks of a data set into it.
    pub(crate) fn download(self, name: &DataSetName, lacking: String) -> Result<Snapshot, HubError> {
        let cache = self.cache;
        let unreachable = |lacking, reason| HubError::Unreachable {
            name: name.to_string(),
            cache: cache.clone(),
            lacking,
            reason,
            folder: cache::folder_name(name),
        };
        let refused = |error: &dyn Error| HubError::Refused { name: name.repository(), reason: innermost(error) };
        let incomplete = |lacking| HubError::Incomplete { name: name.to_string(), lacking };

        let Some(client) = self.client else { return Err(unreachable(lacking, "HF_HUB_OFFLINE is set".to_owned())) };
        let client = client.cache_dir(&cache).build_sync().map_err(|error| refused(&error))?;
        let mark = cache::download_mark(&cache, name);
        let reference = cache::converted_ref(&cache, name);
        if let Some(folder) = mark.parent() {
            fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        }
        fs::write(&mark, "").map_err(HubError::io(&mark))?;
        // from_hub resolves cached files through the cached ref: a stale one would mix the files of two commits.
        remove_if_there(&reference)?;

        // The readers that from_hub returns have no file names, and so no splits: what it leaves in the cache has.
        let downloaded = from_hub(&client, name.repository());
        if downloaded.is_ok() || !reference.exists() {
            remove_if_there(&mark)?;
        }
        match downloaded {
            Ok(_) => match cache::find(&cache, name)? {
                Cached::Whole(snapshot) => Ok(snapshot),
                Cached::Lacking(lacking) => Err(incomplete(lacking)),
            },
            Err(error) => {
                // A data set that is not there leaves no folder; one with anything in it stays.
                let _ = mark.parent().map(fs::remove_dir);
                Err(match error {
                    DownloadError::IoError(source) | DownloadError::HubError(HFError::Io(source)) => {
                        HubError::io(&cache)(source)
                    }
                    DownloadError::ParquetError(error) => incomplete(error.to_string()),
                    DownloadError::HubError(error) if is_unreachable(&error) => unreachable(lacking, innermost(&error)),
                    DownloadError::HubError(error) => refused(&error),
                })
            }
        }
    }
}

fn remove_if_there(path: &PathBuf) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(HubError::io(path)(error))
        }
        _ => Ok(()),
    }
}

/// Whether no answer came at all, or one that says to try again later.
fn is_unreachable(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::Xet { .. } | HFError::RateLimited { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

/// The cause at the bottom of an error: `Connection refused (os error 111)`, not `error sending request`.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
