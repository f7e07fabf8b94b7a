//! What the program is and where it runs, for manifests.

use std::env;
use std::path::PathBuf;

use img2seg_training::manifest::Origin;

/// The origin of what this program computes on `device`.
pub(crate) fn origin(device: &str) -> Origin {
    let libraries = env!("IMG2SEG_LIBRARIES").split_whitespace().filter_map(|library| library.split_once('='));
    Origin {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("IMG2SEG_COMMIT").to_owned(),
        dirty: env!("IMG2SEG_DIRTY").parse().ok(),
        compiler: env!("IMG2SEG_COMPILER").to_owned(),
        libraries: libraries.map(|(name, version)| (name.to_owned(), version.to_owned())).collect(),
        device: device.to_owned(),
        threads: rayon::current_num_threads(),
        cache: cache(),
    }
}

/// `img2seg` in the user's folder for caches, if there is one.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).or_else(|| set("LOCALAPPDATA"));
    Some(folder?.join("img2seg"))
}
