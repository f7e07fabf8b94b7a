//! Memory for tensors, kept for tensors of the same size.
#![allow(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes from which on memory is kept: tensors, not the small things around them, nor what this file itself allocates.
const LARGE: usize = 1 << 16;

/// Blocks of one size that are kept at most, so that the list of them stays below [`LARGE`]: it grows while it is locked.
const MOST: usize = 1 << 10;
const _: () = assert!(MOST * size_of::<Idle>() < LARGE);

/// An allocator for programs that train: memory that held a tensor is kept for the next one of exactly its size. The first of each size comes
/// from `A`, to which anything below 64 KiB is left.
///
/// A step of training asks for the same tensors as the one before. By their sizes they find memory that is mapped already, and in which each
/// thread mostly comes to the parts that it wrote last, since tensors of one size are divided among threads in one way. An allocator that cuts
/// up whatever is free hands them parts of other tensors, which cores that share no cache have to fetch from each other.
///
/// What is kept and what is in use are together at most a quarter more than was ever in use at once. Beyond that, what has lain idle longest
/// goes back to `A`, and all of it before a request of 64 KiB or more is refused.
///
/// ```
/// use img2seg_ops::BySize;
/// #[global_allocator]
/// static ALLOCATOR: BySize<std::alloc::System> = BySize::new(std::alloc::System);
///
/// let tensor = vec![1f32; 1 << 20];
/// let place = tensor.as_ptr();
/// drop(tensor);
/// let others = [vec![1f32; 1 << 17], vec![1f32; 1 << 20]];
/// assert_eq!(others.each_ref().map(|other| other.as_ptr() == place), [false, true]);
/// ```
#[derive(Debug)]
pub struct BySize<A: GlobalAlloc> {
    inner: A,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// What lies idle, by size and alignment; of each kind the block that was freed last is handed out first.
    idle: BTreeMap<(usize, usize), VecDeque<Idle>>,
    /// Bytes of all that.
    idle_bytes: usize,
    /// Large bytes in use, those being asked for included.
    used: usize,
    /// The most that ever were, when a block was freed.
    most_used: usize,
    /// Blocks that were ever freed.
    freed: u64,
}

#[derive(Debug)]
struct Idle {
    block: *mut u8,
    layout: Layout,
    /// [`Kept::freed`] at that time.
    freed: u64,
}

// SAFETY: nobody else has an idle block.
unsafe impl Send for Idle {}

impl Kept {
    /// An idle block of this layout, if there is one, which counts as used from now on.
    fn take(&mut self, layout: Layout) -> Option<*mut u8> {
        let Idle { block, .. } = self.idle.get_mut(&kind(layout))?.pop_back()?;
        self.idle_bytes -= layout.size();
        self.used += layout.size();
        Some(block)
    }

    /// Keeps a block that was used; not if there are too many of its kind.
    fn keep(&mut self, block: *mut u8, layout: Layout) -> bool {
        self.most_used = self.most_used.max(self.used);
        self.used -= layout.size();
        self.freed += 1;
        let blocks = self.idle.entry(kind(layout)).or_default();
        let room = blocks.len() < MOST;
        if room {
            blocks.push_back(Idle { block, layout, freed: self.freed });
            self.idle_bytes += layout.size();
        }
        room
    }

    /// The block that has lain idle longest, no longer kept: of all, or only while more is kept than may be.
    fn oldest(&mut self, of_all: bool) -> Option<Idle> {
        let most_used = self.most_used.max(self.used);
        if !of_all && self.used + self.idle_bytes <= most_used + most_used / 4 {
            return None;
        }
        let of_kinds = self.idle.iter().filter_map(|(&kind, blocks)| Some((blocks.front()?.freed, kind)));
        let (_, kind) = of_kinds.min()?;
        let blocks = self.idle.get_mut(&kind)?;
        let oldest = blocks.pop_front()?;
        if blocks.is_empty() {
            self.idle.remove(&kind);
        }
        self.idle_bytes -= oldest.layout.size();
        Some(oldest)
    }
}

fn kind(layout: Layout) -> (usize, usize) {
    (layout.size(), layout.align())
}

impl<A: GlobalAlloc> BySize<A> {
    /// Keeps memory that `inner` allocates.
    pub const fn new(inner: A) -> Self {
        let kept = Kept { idle: BTreeMap::new(), idle_bytes: 0, used: 0, most_used: 0, freed: 0 };
        Self { inner, kept: Mutex::new(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives idle blocks back to where they came from.
    fn free(&self, all: bool) {
        loop {
            let Some(Idle { block, layout, .. }) = self.kept().oldest(all) else { return };
            // SAFETY: `inner` gave the block for this layout, and whoever had it has freed it.
            unsafe { self.inner.dealloc(block, layout) };
        }
    }

    /// A block that lies idle, or one of `allocate`, and whether it is new.
    fn find(&self, layout: Layout, allocate: impl Fn() -> *mut u8) -> (*mut u8, bool) {
        if let Some(block) = self.kept().take(layout) {
            return (block, false);
        }
        self.kept().used += layout.size();
        self.free(false);
        let mut block = allocate();
        if block.is_null() {
            self.free(true);
            block = allocate();
        }
        if block.is_null() {
            self.kept().used -= layout.size();
        }
        (block, true)
    }
}

impl<A: GlobalAlloc> Drop for BySize<A> {
    fn drop(&mut self) {
        self.free(true);
    }
}

// SAFETY: a block is `inner`'s, of the layout that is asked for, and lies idle or is used by one.
unsafe impl<A: GlobalAlloc> GlobalAlloc for BySize<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller vouches for the layout.
        let allocate = || unsafe { self.inner.alloc(layout) };
        if layout.size() < LARGE { allocate() } else { self.find(layout, allocate).0 }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller vouches for the layout.
        let allocate = || unsafe { self.inner.alloc_zeroed(layout) };
        if layout.size() < LARGE {
            return allocate();
        }
        let (block, new) = self.find(layout, allocate);
        if !new {
            // SAFETY: the block has the layout's size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() < LARGE || !self.kept().keep(block, layout) {
            // SAFETY: `inner` gave the block for this layout, and the caller is done with it.
            unsafe { self.inner.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.size().max(size) < LARGE {
            // SAFETY: `inner` gave the block for this layout; the caller vouches for the size.
            return unsafe { self.inner.realloc(block, layout, size) };
        }
        // SAFETY: the caller vouches for the size. Both blocks have what is copied, and are not one, since both are in use.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rayon::prelude::*;

    use super::*;

    /// The system's allocator with so many bytes.
    struct Limited {
        left: AtomicUsize,
    }

    // SAFETY: the system's blocks, or none.
    unsafe impl GlobalAlloc for Limited {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let take = |left: usize| left.checked_sub(layout.size());
            match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                // SAFETY: the caller vouches for the layout.
                Ok(_) => unsafe { System.alloc(layout) },
                Err(_) => std::ptr::null_mut(),
            }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.left.fetch_add(layout.size(), Ordering::Relaxed);
            // SAFETY: the block is the system's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    const ALL: usize = 1 << 30;

    fn limited(bytes: usize) -> BySize<Limited> {
        BySize::new(Limited { left: AtomicUsize::new(bytes) })
    }

    impl BySize<Limited> {
        /// Bytes that are in use or idle.
        fn taken(&self) -> usize {
            ALL - self.inner.left.load(Ordering::Relaxed)
        }

        fn get(&self, size: usize) -> Block<'_> {
            let layout = Layout::from_size_align(size, 4).unwrap();
            // SAFETY: no size here is 0.
            Block { from: self, start: unsafe { self.alloc(layout) }, layout }
        }
    }

    /// What is freed when it is dropped.
    struct Block<'a> {
        from: &'a BySize<Limited>,
        start: *mut u8,
        layout: Layout,
    }

    impl Block<'_> {
        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the block is ours, has this size, and is written here before it is read.
            unsafe {
                self.start.write_bytes(1, self.layout.size());
                std::slice::from_raw_parts_mut(self.start, self.layout.size())
            }
        }
    }

    impl Drop for Block<'_> {
        fn drop(&mut self) {
            if !self.start.is_null() {
                // SAFETY: the block came with this layout, and nobody else has it.
                unsafe { self.from.dealloc(self.start, self.layout) }
            }
        }
    }

    #[test]
    fn each_size_has_memory_of_its_own() {
        let memory = limited(ALL);
        let places = |sizes: &[usize]| {
            let blocks: Vec<_> = sizes.iter().map(|&size| memory.get(size)).collect();
            blocks.iter().map(|block| block.start).collect::<Vec<_>>()
        };
        let sizes = [LARGE, 2 * LARGE, LARGE + 4, 2 * LARGE];
        let first = places(&sizes);
        let taken = memory.taken();
        assert_eq!(taken, sizes.iter().sum::<usize>());
        // The last that was freed comes first.
        assert_eq!(places(&sizes), [first[0], first[3], first[2], first[1]]);
        assert_eq!(places(&[LARGE + 4, LARGE]), [first[2], first[0]]);
        assert_eq!(memory.taken(), taken);
        let aligned = Layout::from_size_align(LARGE, 4096).unwrap();
        // SAFETY: the size is not 0, and the block is freed as it came.
        unsafe {
            let block = memory.alloc(aligned);
            assert!(block != first[0] && block.addr().is_multiple_of(4096));
            memory.dealloc(block, aligned);
        }
    }

    #[test]
    fn what_is_small_is_not_kept() {
        let memory = limited(ALL);
        drop([memory.get(LARGE - 1), memory.get(4)]);
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn a_quarter_more_than_the_most_in_use_is_kept() {
        let memory = limited(ALL);
        let [mut a, b, c] = [memory.get(4 * LARGE), memory.get(2 * LARGE), memory.get(2 * LARGE)];
        a.bytes();
        let oldest = c.start;
        drop(c);
        drop(b);
        drop(memory.get(LARGE));
        drop(memory.get(LARGE + 4));
        // Eight at most were in use, and ten lie idle or are, but for four bytes, for which the oldest had to go.
        assert_eq!(memory.taken(), 8 * LARGE + 4);
        assert!(memory.get(2 * LARGE).start != oldest);
        drop(a);
        for size in 1..100 {
            let mut block = memory.get(LARGE + 4 * size);
            assert!(block.bytes().len() == LARGE + 4 * size && memory.taken() <= 10 * LARGE);
        }
    }

    #[test]
    fn idle_memory_goes_before_any_request_is_refused() {
        let memory = limited(4 * LARGE);
        drop([memory.get(3 * LARGE), memory.get(LARGE)]);
        assert!(memory.get(5 * LARGE).start.is_null());
        let all = memory.get(4 * LARGE);
        assert!(!all.start.is_null() && memory.get(LARGE).start.is_null());
        drop(all);
        assert!(!memory.get(2 * LARGE).start.is_null());
        // What was refused is not counted.
        let kept = memory.kept();
        assert_eq!((kept.used, kept.most_used), (0, 4 * LARGE));
    }

    #[test]
    fn contents_move_with_what_grows_or_shrinks_and_zeros_are_zeros() {
        let memory = limited(ALL);
        let layout = |size: usize| Layout::from_size_align(size, 4).unwrap();
        let sizes = [100, LARGE - 4, LARGE, 3 * LARGE, LARGE, 8];
        // SAFETY: each block has the size it was asked for, is read where it was written, and is freed once.
        unsafe {
            let mut block = memory.alloc(layout(sizes[0]));
            block.write_bytes(7, 8);
            for pair in sizes.windows(2) {
                block = memory.realloc(block, layout(pair[0]), pair[1]);
                assert_eq!(*block.cast::<[u8; 8]>(), [7; 8]);
            }
            memory.dealloc(block, layout(8));
            let dirty = memory.get(LARGE).bytes().as_ptr();
            for size in [LARGE, 16, 2 * LARGE] {
                let zeros = memory.alloc_zeroed(layout(size));
                assert!((0..size).all(|at| *zeros.add(at) == 0));
                assert!(size != LARGE || zeros.cast_const() == dirty);
                memory.dealloc(zeros, layout(size));
            }
        }
    }

    #[test]
    fn no_two_threads_have_one_block() {
        let memory = limited(ALL);
        (0..2000usize).into_par_iter().for_each(|at| {
            let mut block = memory.get(LARGE + at % 3 * 4);
            let (mark, bytes) = (at as u8, block.bytes());
            bytes.fill(mark);
            assert!(bytes.iter().all(|&byte| byte == mark));
        });
        assert_eq!(memory.kept().used, 0);
        assert_eq!(memory.taken(), memory.kept().idle_bytes);
    }
}
