//! Relative entropy: Kullback and Leibler, 1951: the sum over bins of p ln(p / q), in nats.
//!
//! Two samples of scores in [0, 1] are counted in bins that part the interval evenly, the last one
//! with its upper end, and one is added to every count (Laplace), so that no bin is empty. The
//! papers do not name an estimator; 20 bins is assumed. It has no sign: say beside it which sample
//! is higher.

use crate::summary::Histogram;

/// How many bins are the default.
pub const BINS: usize = 20;

/// Returns KL(first || second) of two samples of scores, or nothing if one is empty.
pub fn relative_entropy(first: &[f64], second: &[f64], bins: usize) -> Option<f64> {
    if first.is_empty() || second.is_empty() || bins == 0 {
        return None;
    }
    let shares = |scores: &[f64]| -> Vec<f64> {
        let counts = Histogram::of_unit(scores.iter().copied(), bins).counts;
        let total = (scores.len() + bins) as f64;
        counts.into_iter().map(|count| (count + 1) as f64 / total).collect()
    };
    let pairs = shares(first).into_iter().zip(shares(second));
    // Rounding must not make it less than nothing.
    Some(pairs.map(|(p, q)| p * (p / q).ln()).sum::<f64>().max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_bins_by_hand() {
        // Shares of 3 and 1 quarters against 1 and 3.
        let expected = 0.75 * 3f64.ln() - 0.25 * 3f64.ln();
        let found = relative_entropy(&[0.1, 0.2], &[0.9, 1.0], 2).unwrap();
        assert!((found - expected).abs() < 1e-12);
        assert_eq!(relative_entropy(&[], &[0.1], 2), None);
    }

    proptest! {
        #[test]
        fn it_is_0_for_one_sample_and_never_below(
            a in prop::collection::vec(0.0..=1.0f64, 1..50), b in prop::collection::vec(0.0..=1.0f64, 1..50)
        ) {
            prop_assert_eq!(relative_entropy(&a, &a, BINS), Some(0.0));
            prop_assert!(relative_entropy(&a, &b, BINS).unwrap() >= 0.0);
        }
    }
}
