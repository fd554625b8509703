//! Items of different sizes, computed in pieces of like size, side by side.

use std::cmp::Reverse;

use rayon::ThreadPool;
use rayon::prelude::*;

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
    let found: Option<Vec<Vec<R>>> = pool.install(|| pieces.par_iter().map(|piece| compute(piece)).collect());
    let mut in_order: Vec<(usize, R)> = order.iter().copied().zip(found?.into_iter().flatten()).collect();
    in_order.sort_by_key(|(place, _)| *place);
    Some(in_order.into_iter().map(|(_, found)| found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let sizes = [3, 9, 1, 9, 4];
        let seen = Mutex::new(Vec::new());
        let compute = |piece: &[usize]| {
            seen.lock().unwrap().push(piece.to_vec());
            (!piece.contains(&7)).then(|| piece.iter().map(|place| sizes[*place]).collect::<Vec<usize>>())
        };
        let found = largest_first(&sizes, &pool, |order| order.chunks(2).collect(), compute);
        assert_eq!(found.unwrap(), sizes);
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, [vec![1, 3], vec![2], vec![4, 0]]);
        let nothing = largest_first(&sizes, &pool, |order| vec![order], |_| None::<Vec<usize>>);
        assert_eq!(nothing, None);
    }
}
