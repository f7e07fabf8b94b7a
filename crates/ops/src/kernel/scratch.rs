//! Memory for the time of a call, kept for the next: a training loop asks the system for none in its steady state.
#![allow(unsafe_code, reason = "lines of floats are lent as floats")]

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// A cache line of floats.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read as floats")] [f32; LINE]);

/// Floats of a cache line.
pub(crate) const LINE: usize = 16;

/// Lines of a buffer that a piece of work asks for, at most; what all pieces of a work share is larger.
const SMALL: usize = 1 << 14;

thread_local! {
    /// Small buffers, which a thread gives back to itself: thousands are asked for in a step, and threads would wait for each other.
    static SMALL_KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

static LARGE_KEPT: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// Floats at the start of a cache line, of whatever content.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

impl Scratch {
    pub(crate) fn new(len: usize) -> Self {
        let needed = len.div_ceil(LINE);
        let mut lines = with_kept(needed, |kept| take(kept, needed)).unwrap_or_default();
        if lines.len() < needed {
            // Not `resize`, which would copy what nobody wants.
            lines = vec![Line([0.; LINE]); needed];
        }
        // Whoever reads what nobody has written shows it.
        #[cfg(test)]
        lines[..needed].fill(Line([f32::NAN; LINE]));
        Self { lines, len }
    }
}

/// Calls `work` with the buffers kept of this size; not at the end of a thread, whose own are gone.
fn with_kept<R>(lines: usize, work: impl FnOnce(&mut Vec<Vec<Line>>) -> R) -> Option<R> {
    if lines <= SMALL {
        return SMALL_KEPT.try_with(|kept| work(&mut kept.borrow_mut())).ok();
    }
    Some(work(&mut LARGE_KEPT.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The smallest buffer kept that is large enough, or the largest.
fn take(kept: &mut Vec<Vec<Line>>, needed: usize) -> Vec<Line> {
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
        let lines = std::mem::take(&mut self.lines);
        with_kept(lines.len(), |kept| kept.push(lines));
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
