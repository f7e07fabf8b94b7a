//! Pieces of work, dealt out to the threads of rayon's pool.
//!
//! rayon's own loops put a thread to sleep that has waited some 50 microseconds for another's last piece, and to wake it takes as long again: as
//! long as a small op. Here it stays awake while that piece may soon be done. And who comes to help begins with pieces that are its own for every
//! loop over as many, so that much of what a thread reads is what it has written.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{hint, thread};

use rayon::Yield;

/// Does `work` for each number below `count`, one at a time, on this thread and on those of the pool that have nothing else to do.
pub(crate) fn deal(count: usize, work: impl Fn(usize) + Sync) {
    deal_to(&work, count);
}

/// Does `work` for each of the items, one at a time; see [`deal`].
pub(crate) fn deal_each<T: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    deal(items.len(), |at| {
        let item = items[at].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(item) = item {
            work(item);
        }
    });
}

/// What `work` makes of each of the items, in their order; see [`deal`].
pub(crate) fn dealt<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> impl Iterator<Item = R> {
    let items: Vec<T> = items.into_iter().collect();
    let mut made: Vec<Option<R>> = items.iter().map(|_| None).collect();
    deal_each(made.iter_mut().zip(items), |(made, item)| *made = Some(work(item)));
    made.into_iter().flatten()
}

fn deal_to(work: &(dyn Fn(usize) + Sync), count: usize) {
    let threads = rayon::current_num_threads();
    match rayon::current_thread_index() {
        Some(_) if threads.min(count) <= 1 => (0..count).for_each(work),
        Some(here) => {
            let shares = (0..threads.min(count)).map(|_| Share::default()).collect();
            Pieces { work, count, shares, helping: AtomicUsize::new(0) }.deal(here, threads);
        }
        None if count == 0 => {}
        None => rayon::scope(|_| deal_to(work, count)),
    }
}

/// Pieces that are dealt out, a share to each thread.
struct Pieces<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    count: usize,
    shares: Vec<Share>,
    /// Threads that have come to help, and have not found out yet that nothing is left.
    helping: AtomicUsize,
}

/// How many pieces of a share have been taken, and perhaps more; in a line of the cache of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicUsize);

impl Pieces<'_> {
    /// The thread `here`, which has been called, has the first share, and those that come after it the others.
    fn deal(&self, here: usize, threads: usize) {
        rayon::in_place_scope(|scope| {
            for _ in 1..self.shares.len() {
                scope.spawn(|_| {
                    self.helping.fetch_add(1, Ordering::Relaxed);
                    let there = rayon::current_thread_index().unwrap_or(here);
                    self.take((there + threads - here) % threads % self.shares.len());
                    self.helping.fetch_sub(1, Ordering::Release);
                });
            }
            self.take(0);
            // The scope waits in any case, but falls asleep over it. A helper that panics is waited for there, and its panic handed on.
            look_for_work_until(|| self.helping.load(Ordering::Acquire) == 0);
        });
    }

    /// Takes the pieces of this share, and then what is left of the others.
    fn take(&self, mine: usize) {
        let shares = self.shares.len();
        for share in (mine..shares).chain(0..mine) {
            let [first, end] = [share, share + 1].map(|share| share * self.count / shares);
            loop {
                let taken = self.shares[share].0.fetch_add(1, Ordering::Relaxed);
                if taken >= end - first {
                    break;
                }
                (self.work)(first + taken);
            }
        }
    }
}

/// A thread that has found nothing to do for so long may fall asleep.
const IDLE: Duration = Duration::from_millis(1);

/// Turns of waiting before a thread lets others of the system have the processor.
const TURNS: usize = 8;

/// Does what other work this thread's pool has until `done`, or until there has been none for a while.
pub(super) fn look_for_work_until(done: impl Fn() -> bool) {
    let mut last = Instant::now();
    while !done() {
        match rayon::yield_now() {
            Some(Yield::Executed) => last = Instant::now(),
            Some(Yield::Idle) if last.elapsed() < IDLE => {
                (0..TURNS).for_each(|_| hint::spin_loop());
                thread::yield_now();
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn each_piece_is_done_once() {
        for threads in [1, 2, 3, 8] {
            for count in [0, 1, 2, 3, 7, 8, 9, 100] {
                let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool(threads).install(|| deal(count, |at| _ = done[at].fetch_add(1, Ordering::Relaxed)));
                assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{count} by {threads}");
                let squares: Vec<usize> = pool(threads).install(|| dealt(0..count, |at| at * at).collect());
                assert_eq!(squares, (0..count).map(|at| at * at).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn from_outside_the_pool_does_the_work() {
        let here = thread::current().id();
        let by: HashSet<_> = dealt(0..10, |_| thread::current().id()).collect();
        assert!(!by.contains(&here));
        assert_eq!(dealt(Vec::<u8>::new(), |item| item).count(), 0);
    }

    #[test]
    fn all_threads_help_and_no_more() {
        for threads in [1, 2, 3] {
            let (here, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |_| {
                most.fetch_max(here.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                // Long enough for the others to come.
                thread::sleep(Duration::from_millis(20));
                here.fetch_sub(1, Ordering::Relaxed);
            };
            pool(threads).install(|| deal(3 * threads, work));
            assert_eq!(most.load(Ordering::Relaxed), threads);
        }
    }

    #[test]
    fn pieces_of_pieces_are_dealt_out_too() {
        let sum = AtomicUsize::new(0);
        let inner = |by: usize| deal(50, |at| _ = sum.fetch_add(at * by, Ordering::Relaxed));
        pool(3).install(|| deal(20, inner));
        assert_eq!(sum.load(Ordering::Relaxed), (49 * 50 / 2) * (19 * 20 / 2));
    }

    #[test]
    fn a_panic_is_handed_on_and_the_pool_goes_on() {
        for threads in [1, 2, 3] {
            let pool = pool(threads);
            for bad in [0, 9] {
                let work = || deal(10, |at| assert_ne!(at, bad));
                assert!(catch_unwind(AssertUnwindSafe(|| pool.install(work))).is_err());
            }
            assert_eq!(pool.install(|| dealt(0..100, |at| at).sum::<usize>()), 4950);
        }
    }

    #[test]
    fn who_finds_nothing_gives_up() {
        let nothing = || look_for_work_until(|| false);
        nothing();
        pool(2).install(nothing);
    }
}
