//! Bootstrap: Efron, 1979: rows are drawn with replacement, as many as there are, and a number is
//! computed again; how it spreads says how far to trust it. Two systems are compared on the same
//! draws of the same rows: Koehn, 2004.
//!
//! Intervals are by percentiles, interpolated as numpy does. The two-sided p is
//! 2 min(1 + lower, 1 + higher) / (1 + draws), at most 1, with `lower` and `higher` the draws in
//! which the difference is at most 0 and at least 0: it is never 0, since it cannot be known so well.

use crate::random::Random;
use crate::summary::{Sorted, SummaryError};

/// The ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Draws `rows` rows with replacement, the same for one seed and one number of the draw.
pub fn draw(rows: usize, seed: u64, number: u64) -> Vec<usize> {
    // One step of the stream apart from its neighbours, mixed: draws do not overlap in practice.
    let mut random = Random::new(Random::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)).next_u64());
    (0..rows).map(|_| random.below(rows)).collect()
}

/// Returns the interval in which a share of the drawn numbers lies, as many below as above.
pub fn interval(drawn: &[f64], confidence: f64) -> Result<Interval, SummaryError> {
    let sorted = Sorted::of(drawn)?;
    let outside = (1.0 - confidence) / 2.0;
    Ok(Interval { low: sorted.quantile(outside)?, high: sorted.quantile(1.0 - outside)? })
}

/// Returns the two-sided p of drawn differences: how easily they would be 0.
pub fn p_of_differences(drawn: &[f64]) -> f64 {
    let lower = drawn.iter().filter(|difference| **difference <= 0.0).count();
    let higher = drawn.iter().filter(|difference| **difference >= 0.0).count();
    (2.0 * (1 + lower.min(higher)) as f64 / (1 + drawn.len()) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::sum;

    fn means(numbers: &[f64], draws: u64) -> Vec<f64> {
        let mean = |rows: Vec<usize>| sum(rows.into_iter().map(|row| numbers[row])) / numbers.len() as f64;
        (0..draws).map(|number| mean(draw(numbers.len(), 7, number))).collect()
    }

    #[test]
    fn the_interval_of_a_mean_is_about_two_standard_errors() {
        let numbers: Vec<f64> = (0..400).map(|number| f64::from(number % 2)).collect();
        let found = interval(&means(&numbers, 2_000), 0.95).unwrap();
        // The standard error is 0.5 / 20.
        assert!((found.low - 0.451).abs() < 0.004 && (found.high - 0.549).abs() < 0.004, "{found:?}");
    }

    #[test]
    fn draws_are_known_by_seed_and_number() {
        assert_eq!(draw(9, 1, 2), draw(9, 1, 2));
        assert!(draw(9, 1, 2) != draw(9, 1, 3) && draw(9, 1, 2) != draw(9, 2, 2));
        assert!(draw(5, 3, 4).iter().all(|row| *row < 5));
    }

    #[test]
    fn p_is_small_where_differences_are_on_one_side_and_never_0() {
        assert_eq!(p_of_differences(&[1.0; 999]), 0.002);
        assert_eq!(p_of_differences(&[0.0; 9]), 1.0);
        assert_eq!(p_of_differences(&[-1.0, 1.0, 1.0]), 1.0);
    }
}
