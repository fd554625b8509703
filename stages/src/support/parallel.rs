//! Work on many items, divided among threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many items one thread takes at a time.
const CHUNK: usize = 32;

/// Computes a value for every item, on several threads. The values are in the items' order, and do
/// not depend on the number of threads.
pub(crate) fn parallel_map<T: Sync, U: Send>(
    items: &[T],
    threads: usize,
    compute: impl Fn(&T) -> U + Sync,
) -> Vec<U> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut chunks = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(rest) = items.get(chunk * CHUNK..).filter(|rest| !rest.is_empty()) else {
                return chunks;
            };
            chunks.push((chunk, rest.iter().take(CHUNK).map(&compute).collect::<Vec<U>>()));
        }
    };
    let mut chunks = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let chunks = workers.into_iter().map(|worker| match worker.join() {
            Ok(chunks) => chunks,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        chunks.flatten().collect::<Vec<_>>()
    });
    chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
    chunks.into_iter().flat_map(|(_, values)| values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let items: Vec<usize> = (0..CHUNK * 7 + 3).collect();
        for threads in [0, 1, 2, 5, 64] {
            assert_eq!(
                parallel_map(&items, threads, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
        assert_eq!(parallel_map(&[] as &[usize], 3, |item| *item), Vec::<usize>::new());
    }
}
