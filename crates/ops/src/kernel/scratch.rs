//! Memory for the time of a call, kept for the next: a training loop asks the system for none in its steady state.
#![allow(unsafe_code, reason = "lines of floats are lent as floats")]

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// A cache line of floats.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read as floats")] [f32; LINE]);

const LINE: usize = 16;

static KEPT: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// Floats at the start of a cache line, of whatever content.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Self {
        let needed = len.div_ceil(LINE);
        let mut lines = take(needed);
        if lines.len() < needed {
            // Not `resize`, which would copy what nobody wants.
            lines = vec![Line([0.; LINE]); needed];
        }
        Self { lines, len }
    }
}

/// The smallest buffer kept that is large enough, or the largest.
fn take(needed: usize) -> Vec<Line> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = kept.iter().enumerate().min_by_key(|(_, lines)| match lines.len() {
        len if len >= needed => (0, len),
        len => (1, usize::MAX - len),
    });
    match found.map(|(at, _)| at) {
        Some(at) => kept.swap_remove(at),
        None => Vec::new(),
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.lines));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen floats and nothing else, and there are enough of them for `len`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
