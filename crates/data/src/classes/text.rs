//! Small text files: recipes, class tables, JSON.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// The largest text that is read whole: 1 MiB.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The text of a regular file of at most 1 MiB in UTF-8. Others may never end, or wait for somebody to write them.
///
/// # Errors
/// What the system said, or why the file is not read; without its path.
pub fn read_text(path: &Path) -> io::Result<String> {
    // Before it is opened: opening a named pipe waits.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("more than {MAX_BYTES} bytes long")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_up_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, vec![b' '; MAX_BYTES as usize]).unwrap();
        assert_eq!(read_text(&path).unwrap().len() as u64, MAX_BYTES);
        fs::write(&path, vec![b' '; MAX_BYTES as usize + 1]).unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "more than 1048576 bytes long");
        fs::write(&path, b"\xFF").unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "not UTF-8");
        assert_eq!(read_text(folder.path()).unwrap_err().to_string(), "not a regular file");
        assert_eq!(read_text(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        #[cfg(unix)]
        assert_eq!(read_text("/dev/zero".as_ref()).unwrap_err().to_string(), "not a regular file");
    }
}
