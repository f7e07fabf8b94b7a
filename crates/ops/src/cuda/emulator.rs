//! The kernels on the processor: `emulator.c`, compiled by the compiler that Rust links with.

#![allow(unsafe_code, reason = "a compiled library is called")]

use std::ffi::{OsStr, c_int, c_void};
use std::process::Command;
use std::sync::LazyLock;

use candle_core::Result;
use libloading::Library;

use crate::check::refuse;

type Kernel = unsafe extern "C" fn(*const c_void, c_int, c_int) -> c_int;

/// # Safety
/// That of [`Stage::launch`](super::Stage::launch).
pub(super) unsafe fn run<P>(kernel: &str, (columns, rows): (usize, usize), parameters: &P) -> Result<()> {
    // SAFETY: every kernel of the library has this type, by the macro that defines it.
    let function = unsafe { LIBRARY.get::<Kernel>(kernel) }.map_err(candle_core::Error::wrap)?;
    let [columns, rows] = [columns, rows].map(|count| c_int::try_from(count).unwrap());
    // SAFETY: the caller's promise.
    match unsafe { function((&raw const *parameters).cast(), columns, rows) } {
        0 => Ok(()),
        error => refuse!("{kernel}: {}", std::io::Error::from_raw_os_error(error)),
    }
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/emulator.c");
    let library = std::env::temp_dir().join(format!("img2seg-emulator-{}.so", std::process::id()));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsStr::new("cc").to_owned());
    let flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"];
    let done = Command::new(&compiler).args(flags).arg(&library).args([source, "-lpthread", "-lm"]).output();
    let done = done.unwrap_or_else(|error| panic!("{}: {error}", compiler.display()));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // SAFETY: it has nothing that runs when it is loaded.
    let loaded = unsafe { Library::new(&library) }.unwrap();
    std::fs::remove_file(&library).unwrap();
    loaded
});
