//! Paired permutation test: Fisher, 1935; Noreen, 1989, approximate randomisation: if two systems
//! were alike, it would not matter which of them made which output. So their outputs for a row are
//! swapped, or not, at random, row by row; the two-sided p is the share of such permutations in
//! which the systems are at least as far apart as they are.
//!
//! Where all permutations are few enough they are all looked at, once each, and p is exact: that
//! of scipy's `permutation_test` with `permutation_type="samples"`. Else they are drawn from a
//! seed, and p is (1 + as far) / (1 + drawn), which is never 0, since it cannot be known so well.

use crate::random::Random;

/// How much less than the difference counts as equal to it: sums in another order differ by more
/// than nothing.
const EQUAL: f64 = 1e-12;

/// The permutations of the rows of two systems that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutations {
    rows: usize,
    count: u64,
    /// Where they are drawn from; without one they are all there are.
    seed: Option<u64>,
}

impl Permutations {
    /// Takes all permutations of so many rows if they are at most `most`, else `most` of them.
    pub fn new(rows: usize, most: usize, seed: u64) -> Self {
        let all = u32::try_from(rows).ok().and_then(|rows| 1u64.checked_shl(rows));
        match all.filter(|all| *all <= most as u64) {
            Some(all) => Self { rows, count: all, seed: None },
            None => Self { rows, count: most as u64, seed: Some(seed) },
        }
    }

    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Says whether they are all there are.
    pub fn are_all(&self) -> bool {
        self.seed.is_none()
    }

    /// Returns for each row whether the permutation of a number, from 0, swaps it.
    pub fn swapped(&self, number: u64) -> Vec<bool> {
        let Some(seed) = self.seed else {
            return (0..self.rows).map(|row| number >> row & 1 == 1).collect();
        };
        // As in a bootstrap: one step of the stream apart from its neighbours, mixed.
        let mut random =
            Random::new(Random::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)).next_u64());
        let mut bits = 0;
        let is_swapped = |row: usize| {
            if row.is_multiple_of(64) {
                bits = random.next_u64();
            }
            bits >> (row % 64) & 1 == 1
        };
        (0..self.rows).map(is_swapped).collect()
    }

    /// Returns the two-sided p of a difference, by the differences of the permutations.
    pub fn p(&self, difference: f64, permuted: &[f64]) -> f64 {
        let far = difference.abs() * (1.0 - EQUAL);
        let as_far = permuted.iter().filter(|permuted| permuted.abs() >= far).count();
        match self.seed {
            None => as_far as f64 / permuted.len() as f64,
            Some(_) => (1 + as_far) as f64 / (1 + permuted.len()) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::sum;

    /// Returns p for the difference of the means of two columns.
    fn p_of_means(ours: &[f64], theirs: &[f64], most: usize, seed: u64) -> f64 {
        let permutations = Permutations::new(ours.len(), most, seed);
        let difference = |swapped: &[bool]| {
            let pairs = ours.iter().zip(theirs).zip(swapped);
            sum(pairs.map(|((a, b), swap)| if *swap { b - a } else { a - b })) / ours.len() as f64
        };
        let permuted: Vec<f64> =
            (0..permutations.count()).map(|number| difference(&permutations.swapped(number))).collect();
        permutations.p(difference(&vec![false; ours.len()]), &permuted)
    }

    #[test]
    fn all_permutations_of_few_rows_by_hand() {
        // Of 16 sums of four ones with signs, two are as far from 0 as 4, and ten as far as 2.
        assert_eq!(p_of_means(&[1.0; 4], &[0.0; 4], 16, 0), 2.0 / 16.0);
        assert_eq!(p_of_means(&[1.0, 1.0, 1.0, 0.0], &[0.0, 0.0, 0.0, 1.0], 16, 0), 10.0 / 16.0);
        assert_eq!(p_of_means(&[0.3, 0.4], &[0.3, 0.4], 16, 0), 1.0);
        assert!(Permutations::new(4, 16, 0).are_all() && !Permutations::new(5, 16, 0).are_all());
        assert!(!Permutations::new(64, usize::MAX, 0).are_all());
    }

    /// Darwin's maize, in eighths of an inch: crossed and self-fertilised plants of one pot. Fisher,
    /// The Design of Experiments, 1935, section 21, counts 863 of 32,768 sums as great as theirs, 314,
    /// on one side; 1,726 on both.
    #[test]
    fn fisher_counted_darwins_maize() {
        let differences = [49., -67., 8., 16., 6., 23., 28., 41., 14., 29., 56., 24., 75., 60., -48.];
        assert_eq!(differences.iter().sum::<f64>(), 314.0);
        let p = p_of_means(&differences, &[0.0; 15], 1 << 15, 0);
        assert_eq!(p * 32_768.0, 1_726.0);
        // Drawn, it is about the same: a standard error of 0.0016 each time.
        let drawn = |seed| p_of_means(&differences, &[0.0; 15], 20_000, seed);
        let mean = (0..10).map(drawn).sum::<f64>() / 10.0;
        assert!((mean - p).abs() < 0.0015, "{mean} {p}");
        assert!(drawn(7) != drawn(8) && drawn(7) == drawn(7));
    }

    #[test]
    fn a_drawn_p_is_never_0() {
        assert_eq!(p_of_means(&[1.0; 100], &[0.0; 100], 999, 3), 0.001);
    }

    #[test]
    fn rows_are_swapped_as_often_as_not() {
        let permutations = Permutations::new(1_000, 200, 5);
        let swapped: usize = (0..200)
            .map(|number| permutations.swapped(number).into_iter().filter(|swap| *swap).count())
            .sum();
        assert!(swapped.abs_diff(100_000) < 1_200, "{swapped}");
    }
}
