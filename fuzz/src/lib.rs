//! What the targets share: a folder in memory, where bytes become files, and recipes that are small enough to build.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;

use tempfile::TempDir;

/// A folder in memory where the system has one. It stays when the process is killed.
pub fn folder() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("img2seg-fuzz-").tempdir_in(parent).expect("a folder to write to")
}

/// The built-in recipe with a network of four channels a layer.
pub const PIXELWISE: &str = include_str!("../../data/recipes/pixelwise.toml");

/// The system's allocator, which ends the process at a request that no input of a few kilobytes can justify: the fuzzer's own limit
/// sees memory only once it is touched.
struct Bounded;

/// A decoder's largest image (2^26 pixels) in 16-bit RGBA.
const LARGEST: usize = 1 << 29;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

fn check(size: usize) {
    if size > LARGEST {
        std::process::abort();
    }
}
