//! Steps on rayon's pool, whose threads stay awake for as long as a step takes, and one of which leads one step after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{hint, thread};

use rayon::Yield;

/// Does `work` on a thread of rayon's pool, and waits. From there its parallel calls begin at once; from outside, each would be handed to
/// the pool and wake it.
///
/// One step at a time, not a loop over batches: between two the other threads may rest. The program's main thread is one of the pool, and does the
/// work itself.
pub(super) fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| {
        let _awake = Awake::keep();
        work()
    })
}

/// Steps that this process has begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Keeps the other threads of this thread's pool looking for work, until it is dropped. Left alone each goes to sleep between two ops, and
/// to wake it takes as long as a small op.
///
/// They leave the next step to the thread that has led this one. The one that leads computes the first images of a batch and the others the
/// last, so that much of what a thread reads and writes is in caches of its own from op to op, and from step to step if the lead stays where
/// it is. Between two threads without a cache in common it would not: a prediction of U-Net 16 took 5 % longer there.
struct Awake {
    over: Arc<AtomicBool>,
}

impl Awake {
    fn keep() -> Self {
        let step = BEGUN.fetch_add(1, Ordering::Relaxed) + 1;
        let over = Arc::new(AtomicBool::new(false));
        let here = rayon::current_thread_index();
        if rayon::current_num_threads() > 1 {
            let over = Arc::clone(&over);
            rayon::spawn_broadcast(move |thread| {
                // This thread, waiting for others, may come here too, and nobody but itself says when it is over.
                if Some(thread.index()) != here {
                    look_for_work(&over);
                    if over.load(Ordering::Relaxed) {
                        leave_the_lead(step);
                    }
                }
            });
        }
        Self { over }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A thread that found nothing to do for so long may rest, and one that has been busy for so long looks no further. Neither changes what
/// is computed, and no step waits for ever: a thread that waits in the middle of some work, which a step may depend on, can come to look
/// for other work instead, and goes on with its own when it gives up.
const IDLE: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(1);

/// Turns of waiting before a thread lets others of the system have the processor.
const TURNS: usize = 8;

fn look_for_work(over: &AtomicBool) {
    let began = Instant::now();
    let mut last = began;
    while !over.load(Ordering::Relaxed) {
        let found = rayon::yield_now() == Some(Yield::Executed);
        let now = Instant::now();
        if found {
            last = now;
        } else {
            (0..TURNS).for_each(|_| hint::spin_loop());
            thread::yield_now();
        }
        if now - last > IDLE || now - began > LONGEST {
            return;
        }
    }
}

/// What the thread that has led a step needs to find the next one, if that follows at once.
const LEAD: Duration = Duration::from_micros(200);

/// Waits until another step than this has begun, or none has for a while.
fn leave_the_lead(step: usize) {
    let began = Instant::now();
    while BEGUN.load(Ordering::Relaxed) == step && began.elapsed() < LEAD {
        (0..TURNS).for_each(|_| hint::spin_loop());
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn any_pool_does_the_work_and_rests_after_it() {
        let sum = |from: usize| (from..from + 1000).into_par_iter().sum::<usize>();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for from in 0..50 {
                assert_eq!(pool.install(|| in_pool(|| in_pool(|| sum(from)))), sum(from));
            }
            assert!(catch_unwind(AssertUnwindSafe(|| pool.install(|| in_pool(|| panic!("a step"))))).is_err());
            // A thread that still looked for work would never come here.
            assert_eq!(pool.broadcast(|thread| thread.index()), (0..threads).collect::<Vec<_>>());
        }
    }

    #[test]
    fn steps_beside_each_other_end() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let steps = || (0..200).map(|_| in_pool(|| (0..64).into_par_iter().map(|at| at * at).sum::<usize>()));
        let all = |_| steps().all(|sum| sum == 63 * 64 * 127 / 6);
        assert!(pool.install(|| (0..6).into_par_iter().with_max_len(1).all(all)));
    }

    #[test]
    fn who_finds_nothing_gives_up() {
        look_for_work(&AtomicBool::new(false));
    }

    #[test]
    fn the_lead_is_left_for_a_while_only() {
        leave_the_lead(BEGUN.load(Ordering::Relaxed));
        // No step has this number, so another has begun.
        let began = Instant::now();
        (0..50_000).for_each(|_| leave_the_lead(usize::MAX));
        assert!(began.elapsed() < 5000 * LEAD, "waited although another step had begun");
    }
}
