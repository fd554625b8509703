//! Items of different sizes, computed in pieces of like size, side by side.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use burn_tensor::Device;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::tensor::device::is_cpu;

thread_local! {
    /// The pool that this thread alone is.
    static ALONE: Arc<ThreadPool> = {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        Arc::new(pool.expect("this thread is in no pool"))
    };
}

/// Returns the threads that compute on a device: as many as are requested on the CPU, and this one
/// alone where there are GPUs. What one thread submits to a GPU is computed in that order; what several
/// submit is not, nor does it wait for what another has submitted.
pub(crate) fn threads_for(device: &Device, threads: usize) -> Arc<ThreadPool> {
    if !is_cpu(device) {
        return ALONE.with(Arc::clone);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
    Arc::new(pool.expect("threads can be started"))
}

/// Computes something of each item, and returns it in the order of the items; nothing if a piece
/// came to nothing.
///
/// The largest items come first, since they take longest and no thread should begin them last.
/// `cut` divides all places, in that order, into pieces; each is computed on one thread, and the
/// number of threads changes nothing.
pub(crate) fn largest_first<R: Send>(
    sizes: &[usize],
    pool: &ThreadPool,
    cut: impl Fn(&[usize]) -> Vec<&[usize]>,
    compute: impl Fn(&[usize]) -> Option<Vec<R>> + Sync,
) -> Option<Vec<R>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|place| Reverse(sizes[*place]));
    let pieces = cut(&order);
    let results: Option<Vec<Vec<R>>> =
        pool.install(|| pieces.par_iter().map(|piece| compute(piece)).collect());
    let mut in_order: Vec<(usize, R)> = order.iter().copied().zip(results?.into_iter().flatten()).collect();
    in_order.sort_by_key(|(place, _)| *place);
    Some(in_order.into_iter().map(|(_, result)| result).collect())
}

/// Computes pieces side by side, and hands over what they came to in their order.
///
/// A piece is begun as soon as a thread is free, unless it is so far ahead that results would pile
/// up: there are never more than two for each thread.
pub(crate) fn in_order<R: Send>(
    pieces: usize,
    pool: &ThreadPool,
    compute: impl Fn(usize) -> R + Sync,
    mut take: impl FnMut(R) + Send,
) {
    let threads = pool.current_num_threads();
    if threads == 1 {
        return pool.install(|| (0..pieces).for_each(|piece| take(compute(piece))));
    }
    struct State<R> {
        begun: usize,
        taken: usize,
        ready: BTreeMap<usize, R>,
        is_taking: bool,
    }
    let state = Mutex::new(State { begun: 0, taken: 0, ready: BTreeMap::new(), is_taking: false });
    let (moved, take) = (Condvar::new(), Mutex::new(take));
    // What it guards is whole at all times, even where a thread has panicked.
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || loop {
        let mut waiting = lock();
        while waiting.begun < pieces && waiting.begun >= waiting.taken + 2 * threads {
            waiting = moved.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let piece = waiting.begun;
        if piece >= pieces {
            return;
        }
        waiting.begun += 1;
        drop(waiting);
        let result = catch_unwind(AssertUnwindSafe(|| pool.install(|| compute(piece))));
        let mut taking = lock();
        let result = result.unwrap_or_else(|panic| {
            // Nobody is to wait for a piece that never comes.
            taking.begun = pieces;
            moved.notify_all();
            resume_unwind(panic)
        });
        taking.ready.insert(piece, result);
        if taking.is_taking {
            // Whoever is at it takes this one as well.
            continue;
        }
        taking.is_taking = true;
        while let Some(result) = {
            let next = taking.taken;
            taking.ready.remove(&next)
        } {
            drop(taking);
            take.lock().unwrap_or_else(PoisonError::into_inner)(result);
            taking = lock();
            taking.taken += 1;
            moved.notify_all();
        }
        taking.is_taking = false;
    };
    // Not the pool's own threads: those that wait here must not hold up what waits there.
    std::thread::scope(|scope| {
        for _ in 0..threads.min(pieces) {
            scope.spawn(work);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn pieces_are_handed_over_in_their_order() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut taken, busy) = (Vec::new(), std::sync::atomic::AtomicUsize::new(0));
            let compute = |piece: usize| {
                let others = busy.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                assert!(others < threads);
                // The first ones take longest.
                std::thread::sleep(std::time::Duration::from_millis(if piece < 2 { 20 } else { 1 }));
                busy.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                piece * piece
            };
            in_order(20, &pool, compute, |result| taken.push(result));
            assert_eq!(taken, (0..20).map(|piece| piece * piece).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_piece_that_panics_ends_all() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let compute = |piece: usize| assert_ne!(piece, 3);
        let all = || in_order(50, &pool, compute, |()| {});
        assert!(catch_unwind(AssertUnwindSafe(all)).is_err());
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let sizes = [3, 9, 1, 9, 4];
        let seen = Mutex::new(Vec::new());
        let compute = |piece: &[usize]| {
            seen.lock().unwrap().push(piece.to_vec());
            (!piece.contains(&7)).then(|| piece.iter().map(|place| sizes[*place]).collect::<Vec<usize>>())
        };
        let result = largest_first(&sizes, &pool, |order| order.chunks(2).collect(), compute);
        assert_eq!(result.unwrap(), sizes);
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, [vec![1, 3], vec![2], vec![4, 0]]);
        let nothing = largest_first(&sizes, &pool, |order| vec![order], |_| None::<Vec<usize>>);
        assert_eq!(nothing, None);
    }
}
