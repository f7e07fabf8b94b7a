//! Listing folders, in an order that no file system changes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{DataError, shown};

/// The names, sorted bytewise, of what lies in a folder; hidden ones are left out.
fn names(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let path = entry.map_err(DataError::io(folder))?.path();
        // "._NAME.jpg" beside every "NAME.jpg" is what macOS leaves on other file systems.
        if !name_bytes(&path).starts_with(b".") {
            paths.push(path);
        }
    }
    paths.sort_unstable_by(|a, b| name_bytes(a).cmp(name_bytes(b)));
    Ok(paths)
}

/// The files of a folder that are named as images, sorted bytewise by name. Links are followed when they are read.
pub(crate) fn images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = names(folder)?;
    paths.retain(|path| is_image_name(path) && !path.is_dir());
    Ok(paths)
}

/// The folders in a folder, sorted bytewise by name.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = names(folder)?;
    paths.retain(|path| path.is_dir());
    Ok(paths)
}

/// Whether a folder is there that holds at least one file named as an image.
pub(crate) fn has_images(folder: &Path) -> bool {
    images(folder).is_ok_and(|images| !images.is_empty())
}

/// A path's last part as bytes.
pub(crate) fn name_bytes(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], OsStr::as_encoded_bytes)
}

/// A file's name without its extension, on one line; see [`shown`].
pub(crate) fn stem(path: &Path) -> String {
    shown(Path::new(path.file_stem().unwrap_or_default()))
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_bytewise_and_only_images_count() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            ["b.PNG", "a.jpg", "Z.JpEg", "10.png", "9.png", "ü.png", "note.txt", ".hidden.png", "jpg", "x.png.bak"];
        for name in files {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("folder.png")).unwrap();
        let names: Vec<String> = images(folder.path()).unwrap().iter().map(|path| stem(path)).collect();
        assert_eq!(names, ["10", "9", "Z", "a", "b", "ü"]);
        assert_eq!(folders(folder.path()).unwrap(), [folder.path().join("folder.png")]);
        let error = images(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: "), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_in_loops_do_no_harm() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        symlink(folder.path(), folder.path().join("self")).unwrap();
        symlink(folder.path().join("b.png"), folder.path().join("a.png")).unwrap();
        symlink(folder.path().join("a.png"), folder.path().join("b.png")).unwrap();
        assert_eq!(folders(folder.path()).unwrap().len(), 1);
        // They are named as images; reading them is what fails, with their name.
        let loops = images(folder.path()).unwrap();
        assert_eq!(loops.len(), 2);
        let error = crate::read_image(&loops[0]).unwrap_err().to_string();
        assert!(error.contains("a.png: "), "{error}");
    }
}
