//! Finds the largest of many numbers by magnitude without keeping or sorting them.
//!
//! The bits of a float without its sign grow with its magnitude. They are counted by their upper
//! half, which tells where the wanted number lies, and then, among those there, by their lower
//! half: two passes, whatever the numbers.

use crate::wide::wide;
const LOWER_BITS: u32 = 15;
const UPPER: usize = 1 << (31 - LOWER_BITS);
const LOWER: usize = 1 << LOWER_BITS;

/// Counts numbers by their magnitudes.
#[derive(Clone, Debug)]
pub(crate) struct Magnitudes {
    counts: Vec<u64>,
    /// The upper half of those that are counted by their lower half.
    upper: Option<u32>,
    /// How many are wanted of those that are counted.
    wanted: u64,
}

impl Magnitudes {
    /// Begins to look for the largest `wanted`.
    pub(crate) fn of_largest(wanted: u64) -> Self {
        Self { counts: vec![0; UPPER], upper: None, wanted }
    }

    /// Counts numbers.
    pub(crate) fn count(&mut self, values: &[f32]) {
        match self.upper {
            None => count_upper(values, &mut self.counts),
            Some(upper) => count_lower(values, upper, &mut self.counts),
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add(&mut self, more: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&more.counts) {
            *count += more;
        }
    }

    /// Returns what to count in the second reading.
    pub(crate) fn closer(&self) -> Self {
        let (upper, wanted) = self.last_wanted();
        Self { counts: vec![0; LOWER], upper: Some(upper as u32), wanted }
    }

    /// Returns where to cut, after the second reading.
    pub(crate) fn cut(&self) -> Cut {
        let (lower, equal) = self.last_wanted();
        let upper = self.upper.expect("the numbers were read twice");
        Cut { magnitude: upper << LOWER_BITS | lower as u32, equal }
    }

    /// Returns the place of the last number that is wanted, and how many are wanted there.
    fn last_wanted(&self) -> (usize, u64) {
        let mut wanted = self.wanted;
        for (place, count) in self.counts.iter().enumerate().rev() {
            if *count >= wanted {
                return (place, wanted);
            }
            wanted -= count;
        }
        (0, wanted)
    }
}

/// Says which numbers are among the largest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Smaller ones are not, by the bits without the sign.
    magnitude: u32,
    /// How many of exactly that magnitude still are. The first ones are taken.
    equal: u64,
}

impl Cut {
    /// Returns how many of the numbers lie exactly where it cuts.
    pub(crate) fn count_equal(&self, values: &[f32]) -> u64 {
        count_equal(values, self.magnitude)
    }

    /// Returns the same cut for numbers that come after so many that lie exactly there.
    pub(crate) fn after(&self, equal: u64) -> Self {
        Self { equal: self.equal.saturating_sub(equal), ..*self }
    }

    /// Puts zeros in place of the numbers that are not among the largest.
    pub(crate) fn apply(&mut self, values: &mut [f32]) {
        let equal = self.count_equal(values);
        if equal <= self.equal || self.equal == 0 {
            // All of them or none: no number depends on those before it.
            let least = if equal <= self.equal { self.magnitude } else { self.magnitude + 1 };
            keep_from(values, least);
            self.equal -= equal.min(self.equal);
            return;
        }
        for value in values {
            let found = magnitude(*value);
            if found == self.magnitude && self.equal > 0 {
                self.equal -= 1;
            } else if found <= self.magnitude {
                *value = 0.0;
            }
        }
    }
}

fn count_upper(values: &[f32], counts: &mut [u64]) {
    let counts: &mut [u64; UPPER] = counts.try_into().expect("there is a count for each upper half");
    for value in values {
        counts[(magnitude(*value) >> LOWER_BITS) as usize % UPPER] += 1;
    }
}

fn count_lower(values: &[f32], upper: u32, counts: &mut [u64]) {
    // Hardly any number is in most blocks, and that is told quickly.
    for block in values.chunks(64) {
        if count_inside(block, upper) > 0 {
            for value in block.iter().filter(|value| magnitude(**value) >> LOWER_BITS == upper) {
                counts[magnitude(*value) as usize % LOWER] += 1;
            }
        }
    }
}

wide! {
    fn count_inside(values: &[f32], upper: u32) -> u32 {
        values.iter().map(|value| u32::from(magnitude(*value) >> LOWER_BITS == upper)).sum()
    }
}

wide! {
    fn count_equal(values: &[f32], wanted: u32) -> u64 {
        let of = |values: &[f32]| values.iter().map(|value| u32::from(magnitude(*value) == wanted)).sum::<u32>();
        values.chunks(1 << 16).map(|values| u64::from(of(values))).sum()
    }
}

wide! {
    fn keep_from(values: &mut [f32], least: u32) {
        for value in values {
            *value = if magnitude(*value) >= least { *value } else { 0.0 };
        }
    }
}

#[inline(always)]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & 0x7fff_ffff
}

/// Returns how many numbers a density keeps: of some at least one.
pub(crate) fn kept(density: f64, of: u64) -> u64 {
    ((density * of as f64) as u64).clamp(of.min(1), of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(values: &[f32], wanted: u64) -> Cut {
        let mut coarse = Magnitudes::of_largest(wanted);
        coarse.count(values);
        let mut fine = coarse.closer();
        fine.count(values);
        fine.cut()
    }

    #[test]
    fn densities_keep_at_least_one() {
        assert_eq!([kept(0.2, 10), kept(0.2, 4), kept(1.0, 7), kept(0.5, 0)], [2, 1, 7, 0]);
    }

    proptest! {
        #[test]
        fn exactly_the_largest_are_kept_and_of_equals_the_first(
            // Few different ones, so that many are equal.
            numbers in proptest::collection::vec((-6i8..6, 0u8..3), 1..200), share in 0.01f64..1.0, at in 0usize..200,
        ) {
            let values: Vec<f32> =
                numbers.iter().map(|(number, scale)| f32::from(*number) * 10f32.powi(i32::from(*scale) * 7)).collect();
            let wanted = kept(share, values.len() as u64);
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|one, other| values[*other].abs().total_cmp(&values[*one].abs()));
            let mut expected = vec![0.0; values.len()];
            for place in &order[..wanted as usize] {
                expected[*place] = values[*place];
            }
            let mut cut = cut(&values, wanted);
            let mut found = values.clone();
            let at = at.min(values.len());
            cut.apply(&mut found[..at]);
            cut.apply(&mut found[at..]);
            prop_assert_eq!(found, expected);
        }
    }
}
