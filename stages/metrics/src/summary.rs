//! What a column of numbers comes to.
//!
//! Sums are Neumaier's: the part of every addition that rounding cuts off is added up aside and
//! put back at the end. Numbers are added in the order given, one after the other, so the same
//! column gives the same bits on every machine and with any number of threads.

use serde::{Deserialize, Serialize};

/// The most bins that a histogram may have.
pub const MOST_BINS: usize = 1_000_000;

/// Says why numbers cannot be summarised.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SummaryError {
    /// There are none.
    #[error("there are no numbers to summarise")]
    Empty,
    /// One is infinite or not a number.
    #[error("number {position} is {value}, not a finite number")]
    NotFinite {
        /// Its position, from 1.
        position: usize,
        /// What it is.
        value: f64,
    },
    /// A share of the numbers is asked for that is not one.
    #[error("{0} is not a share in [0, 1]")]
    NotAShare(f64),
    /// The bins are of no width.
    #[error("{0} is not the width of a bin: it is a finite number above 0")]
    NotAWidth(f64),
    /// The numbers are too far apart for bins so narrow.
    #[error("bins of width {width} from {min} to {max} are more than {MOST_BINS}")]
    TooManyBins {
        /// The width asked for.
        width: f64,
        /// The least number.
        min: f64,
        /// The greatest number.
        max: f64,
    },
}

/// Holds what a column of numbers comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// How many numbers there are.
    pub count: usize,
    /// Their sum divided by their count.
    pub mean: f64,
    /// The root of the mean squared distance from the mean: divided by n.
    pub population_std: f64,
    /// The same divided by n - 1, if there are two numbers or more.
    pub sample_std: Option<f64>,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The number in the middle, or the mean of the two in the middle.
    pub median: f64,
}

impl Summary {
    /// Returns what these numbers come to.
    pub fn of(numbers: &[f64]) -> Result<Self, SummaryError> {
        let sorted = Sorted::of(numbers)?;
        let count = numbers.len();
        let mean = sum(numbers.iter().copied()) / count as f64;
        // The distances sum to nothing but rounding; what they do sum to corrects the squares.
        let drift = sum(numbers.iter().map(|number| number - mean));
        let squares = sum(numbers.iter().map(|number| (number - mean) * (number - mean)));
        let squares = (squares - drift * drift / count as f64).max(0.0);
        Ok(Self {
            count,
            mean,
            population_std: (squares / count as f64).sqrt(),
            sample_std: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            min: sorted.0[0],
            max: sorted.0[count - 1],
            median: sorted.quantile(0.5)?,
        })
    }
}

/// A compensated sum of numbers, added in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        let next = self.sum + number;
        let is_greater = self.sum.abs() >= number.abs();
        self.lost += if is_greater { (self.sum - next) + number } else { (number - next) + self.sum };
        self.sum = next;
    }

    /// Returns what the numbers sum to.
    pub fn value(self) -> f64 {
        self.sum + self.lost
    }
}

/// Returns the compensated sum of numbers, added in their order.
pub fn sum(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut sum = Sum::default();
    numbers.into_iter().for_each(|number| sum.add(number));
    sum.value()
}

/// Holds finite numbers in order, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts numbers.
    pub fn of(numbers: &[f64]) -> Result<Self, SummaryError> {
        if numbers.is_empty() {
            return Err(SummaryError::Empty);
        }
        if let Some(position) = numbers.iter().position(|number| !number.is_finite()) {
            let value = numbers[position];
            return Err(SummaryError::NotFinite { position: position + 1, value });
        }
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Self(sorted))
    }

    /// Returns the number that `share` of the numbers are at or below.
    ///
    /// Between two of them it is interpolated at `share * (n - 1)`, as numpy's default is.
    pub fn quantile(&self, share: f64) -> Result<f64, SummaryError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(SummaryError::NotAShare(share));
        }
        let place = share * (self.0.len() - 1) as f64;
        let below = self.0[place.floor() as usize];
        let above = self.0[place.ceil() as usize];
        let way = place - place.floor();
        // From the nearer end, so that both ends are met exactly.
        Ok(if way < 0.5 { below + (above - below) * way } else { above - (above - below) * (1.0 - way) })
    }

    /// Returns the numbers in order.
    pub fn numbers(&self) -> &[f64] {
        &self.0
    }

    /// Counts the numbers in bins of one width, the bin `k` from `k * width` up to the next.
    pub fn histogram(&self, width: f64) -> Result<Histogram, SummaryError> {
        if !(width.is_finite() && width > 0.0) {
            return Err(SummaryError::NotAWidth(width));
        }
        let (min, max) = (self.0[0], self.0[self.0.len() - 1]);
        let first = (min / width).floor();
        let bins = (max / width).floor() - first + 1.0;
        if bins.is_nan() || bins > MOST_BINS as f64 {
            return Err(SummaryError::TooManyBins { width, min, max });
        }
        let mut counts = vec![0; bins as usize];
        for number in &self.0 {
            counts[((number / width).floor() - first) as usize] += 1;
        }
        Ok(Histogram { start: first * width, width, counts })
    }
}

/// Counts numbers in bins of one width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// Where the first bin begins, a multiple of the width.
    pub start: f64,
    /// How wide each bin is. It holds its lower end and not its upper.
    pub width: f64,
    /// How many numbers are in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts scores in [0, 1] in bins that part it evenly; 1 is in the last one, and what rounding
    /// put outside is in the first or the last.
    ///
    /// # Panics
    /// If there are no bins.
    pub fn of_unit(scores: impl IntoIterator<Item = f64>, bins: usize) -> Self {
        let mut counts = vec![0; bins];
        for score in scores {
            counts[Self::bin_of_unit(score, bins)] += 1;
        }
        Self { start: 0.0, width: 1.0 / bins as f64, counts }
    }

    /// Returns which of so many bins a score in [0, 1] is in.
    ///
    /// # Panics
    /// If there are no bins.
    pub fn bin_of_unit(score: f64, bins: usize) -> usize {
        ((score * bins as f64) as usize).min(bins - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_column() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.median), (4, 2.5, 2.5));
        assert_eq!(summary.population_std, 1.25f64.sqrt());
        assert_eq!(summary.sample_std, Some((5.0f64 / 3.0).sqrt()));
        assert_eq!((summary.min, summary.max), (1.0, 4.0));
    }

    #[test]
    fn one_number_has_no_sample_deviation() {
        let summary = Summary::of(&[7.0]).unwrap();
        assert_eq!((summary.population_std, summary.sample_std), (0.0, None));
    }

    #[test]
    fn what_rounding_cuts_off_is_put_back() {
        assert_eq!(sum([1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(std::iter::repeat_n(0.1, 10)), 1.0);
        // The textbook formula loses all of this variance to the size of the mean.
        let far = [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0];
        assert_eq!(Summary::of(&far).unwrap().sample_std, Some(30f64.sqrt()));
    }

    #[test]
    fn the_unit_interval_is_parted_evenly() {
        let histogram = Histogram::of_unit([0.0, 0.15, 0.999, 1.0, 1.0 + 1e-12, -1e-12], 20);
        assert_eq!((histogram.counts[0], histogram.counts[3], histogram.counts[19]), (2, 1, 3));
    }

    #[test]
    fn what_cannot_be_summarised_is_refused() {
        assert_eq!(Summary::of(&[]), Err(SummaryError::Empty));
        let error = Summary::of(&[1.0, f64::INFINITY]).unwrap_err();
        assert_eq!(error.to_string(), "number 2 is inf, not a finite number");
        let sorted = Sorted::of(&[0.0, 1e9]).unwrap();
        assert_eq!(sorted.quantile(1.5), Err(SummaryError::NotAShare(1.5)));
        assert!(matches!(sorted.histogram(1.0), Err(SummaryError::TooManyBins { .. })));
        assert_eq!(sorted.histogram(0.0), Err(SummaryError::NotAWidth(0.0)));
    }

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([1, 2, 4, 8], [0, .25, .4, .9, 1])
        let sorted = Sorted::of(&[8.0, 1.0, 4.0, 2.0]).unwrap();
        let found = [0.0, 0.25, 0.4, 0.9, 1.0].map(|share| sorted.quantile(share).unwrap());
        for (found, expected) in found.into_iter().zip([1.0, 1.75, 2.4, 6.8, 8.0]) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
    }

    #[test]
    fn bins_begin_at_multiples_of_their_width() {
        let histogram = Sorted::of(&[-0.5, 0.0, 4.9, 5.0, 12.0]).unwrap().histogram(5.0).unwrap();
        assert_eq!((histogram.start, histogram.counts), (-5.0, vec![1, 2, 1, 1]));
    }

    proptest! {
        #[test]
        fn a_summary_lies_within_its_numbers(
            numbers in prop::collection::vec(-1e6..1e6f64, 1..50), width in 100.0..1e5f64
        ) {
            let summary = Summary::of(&numbers).unwrap();
            prop_assert!(summary.min <= summary.median && summary.median <= summary.max);
            let slack = summary.mean.abs() * 1e-12;
            prop_assert!(summary.min - slack <= summary.mean && summary.mean <= summary.max + slack);
            prop_assert!(summary.population_std <= summary.max - summary.min);
            let histogram = Sorted::of(&numbers).unwrap().histogram(width).unwrap();
            prop_assert_eq!(histogram.counts.iter().sum::<u64>(), numbers.len() as u64);
        }

        #[test]
        fn quantiles_grow(numbers in prop::collection::vec(-1e6..1e6f64, 1..50), a in 0.0..=1.0f64, b in 0.0..=1.0f64) {
            let sorted = Sorted::of(&numbers).unwrap();
            prop_assert!(sorted.quantile(a.min(b)).unwrap() <= sorted.quantile(a.max(b)).unwrap());
        }
    }
}
