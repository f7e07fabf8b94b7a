//! A folder with a little data, and the program run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::{GrayImage, Luma, Rgb, RgbImage};
use tempfile::TempDir;

/// Colours of road, building, sky and car in the Cityscapes table, and their positions among its evaluated classes.
const CLASSES: [([u8; 3], u8); 4] = [([128, 64, 128], 0), ([70, 70, 70], 2), ([70, 130, 180], 10), ([0, 0, 142], 13)];

/// The size of a photo; that of `smoke-unet`.
const WIDTH: u32 = 64;
const HEIGHT: u32 = 32;

pub(crate) struct Lab {
    folder: TempDir,
}

/// What the program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    /// A folder with three training pairs and two others under `pairs`.
    pub(crate) fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        for (split, count) in [("train", 3), ("val", 2)] {
            for index in 0..count {
                lab.save_pair(&format!("pairs/{split}/{index}.png"), WIDTH, index);
            }
        }
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and the folders that lead to it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A photo of `width` and its label map side by side: the label map has stripes, the photo their colours in another light.
    pub(crate) fn save_pair(&self, name: &str, width: u32, seed: u32) {
        let pair = RgbImage::from_fn(2 * width, HEIGHT, |x, y| {
            let (color, _) = CLASSES[stripe(x % width, y, seed)];
            if x < width {
                Rgb(color.map(|value| (value / 2 + 60).wrapping_add((x * y % 7) as u8)))
            } else {
                Rgb(color)
            }
        });
        let path = self.write(name, "");
        pair.save(path).unwrap();
    }

    /// A photo and a mask of class indices for the folders layout under `root`, split `split`.
    pub(crate) fn save_masked(&self, root: &str, split: &str, name: &str, index_of: impl Fn(usize) -> u8) {
        let photo = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| Rgb(CLASSES[stripe(x, y, 0)].0));
        let mask = GrayImage::from_fn(WIDTH, HEIGHT, |x, y| Luma([index_of(stripe(x, y, 0))]));
        photo.save(self.write(&format!("{root}/{split}/images/{name}.png"), "")).unwrap();
        mask.save(self.write(&format!("{root}/{split}/masks/{name}.png"), "")).unwrap();
    }

    /// The program with these arguments, in this folder.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_img2seg"));
        command.args(arguments.split_whitespace());
        self.prepare(&mut command);
        command
    }

    /// Sets what every run of the program here has in common.
    pub(crate) fn prepare(&self, command: &mut Command) {
        // Backtraces on: a message must not have one even then.
        command
            .current_dir(self.folder.path())
            .env("RUST_BACKTRACE", "1")
            .env_remove("IMG2SEG_LOG")
            .env("XDG_CACHE_HOME", self.folder.path().join("cache"))
            .stdin(Stdio::null());
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &str) -> Said {
        said(self.command(arguments))
    }

    /// Runs the program, which has to succeed.
    pub(crate) fn succeed(&self, arguments: &str) -> Said {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "img2seg {arguments}\n{}", said.stderr);
        said
    }

    /// Runs the program, which has to fail with `code` and one error, and returns that error's text.
    pub(crate) fn fail(&self, code: i32, arguments: &str) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(code), "img2seg {arguments}\n{}\n{}", said.stdout, said.stderr);
        said.error()
    }

    /// A run of the smoke recipe on the pairs, with one epoch, in the folder `run`.
    pub(crate) fn train(&self, run: &str) {
        self.succeed(&format!("train smoke-unet --data pairs --run {run} --set epochs=1"));
    }
}

impl Said {
    /// The one error that was said, without its `error: `.
    pub(crate) fn error(&self) -> String {
        for unwanted in ["panicked", "backtrace", "RUST_BACKTRACE", "   0: "] {
            assert!(!self.stderr.contains(unwanted), "{}", self.stderr);
        }
        let starts: Vec<usize> = self.stderr.match_indices("error: ").map(|(at, _)| at).collect();
        let starts: Vec<usize> =
            starts.into_iter().filter(|&at| at == 0 || self.stderr[..at].ends_with('\n')).collect();
        assert_eq!(starts.len(), 1, "{}", self.stderr);
        let error = self.stderr[starts[0] + "error: ".len()..].trim_end();
        for (at, _) in error.match_indices(": ") {
            assert!(!error[..at].ends_with(&error[at + 2..]), "said twice: {error}");
        }
        error.to_owned()
    }
}

/// Runs a command to its end.
pub(crate) fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Every file below a folder with its bytes, by its path from there.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Position in `CLASSES` of the class at a pixel.
fn stripe(x: u32, y: u32, seed: u32) -> usize {
    ((x / 13 + y / 9 + seed) % 4) as usize
}

/// The label of a position in `CLASSES`.
pub(crate) fn label(position: usize) -> u8 {
    CLASSES[position].1
}
