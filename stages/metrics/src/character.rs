//! CharacTER: Wang et al., 2016: translation edit rate by characters: what it costs to shift words
//! and then to edit characters, over the length of the output.
//!
//! Semantics of the package `cer` 1.2.0: phrases that both texts have are shifted, one at a time,
//! while that brings the output nearer to the reference, counted in words; a shift costs the mean
//! length of its words; the characters edited are those of the words joined by spaces; the rate is
//! at most 1. For molecules every character is a word, as in the published values. Where there is
//! no reference the package fails; here the rate is 1, and 0 if there is no output either.
//!
//! Every pair of equal words is a shift to try in every round, so time grows with the third power
//! of the length. Two texts with more than [`MOST_SHIFTS`] of them have no rate: a molecule of
//! 500 characters has about 50,000, a run of 1,000 equal characters a million.

use crate::levenshtein;

/// The most shifts that are tried in a round.
pub const MOST_SHIFTS: usize = 250_000;

/// Says that two texts have too many words in common, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {MOST_SHIFTS} ways to shift a phrase: the texts are too long")]
pub struct TooManyShifts;

/// Returns the rate of a pair whose words are its characters, in [0, 1]; lower is better.
pub fn of_characters(output: &str, reference: &str) -> Result<f64, TooManyShifts> {
    of_words(&characters(output), &characters(reference))
}

/// Returns the rate of a pair of word lists, in [0, 1]; lower is better.
pub fn of_words(output: &[&str], reference: &[&str]) -> Result<f64, TooManyShifts> {
    if reference.is_empty() {
        return Ok(f64::from(u8::from(!output.is_empty())));
    }
    // Numbers in the order of the words, since ties go to the greatest list of words.
    let mut words: Vec<&str> = output.iter().chain(reference).copied().collect();
    words.sort_unstable();
    words.dedup();
    let number = |word: &&str| words.binary_search(word).map_or(0, |at| at as u32);
    let original: Vec<u32> = output.iter().map(number).collect();
    let target = Target::new(reference.iter().map(number).collect(), words.len());
    let length = target.words.len() as f64;
    let mut shifted = original.clone();
    let mut rate = target.distance(&shifted) as f64 / length;
    if rate == 0.0 {
        return Ok(0.0);
    }
    // The package adds and subtracts these as floats, so rounding can allow one shift more.
    while let Some((distance, nearer)) = nearest(&shifted, &target)? {
        let gain = rate - distance as f64 / length;
        if gain <= 0.0 {
            break;
        }
        shifted = nearer;
        rate -= gain;
    }
    let join = |numbers: &[u32]| {
        let each: Vec<&str> = numbers.iter().map(|number| words[*number as usize]).collect();
        each.join(" ")
    };
    let (joined, wanted) = (join(&shifted), reference.join(" "));
    if joined.is_empty() {
        return Ok(1.0);
    }
    let lengths: Vec<usize> = words.iter().map(|word| word.chars().count()).collect();
    let edits = levenshtein::distance(&joined, &wanted) as f64 + shift_cost(&shifted, &original, &lengths);
    Ok((edits / joined.chars().count() as f64).min(1.0))
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]).collect()
}

/// Returns the nearest of all lists that one shift makes, and its distance: of several the greatest.
fn nearest(words: &[u32], target: &Target) -> Result<Option<(usize, Vec<u32>)>, TooManyShifts> {
    let mut shifts = Vec::new();
    for start in 0..words.len() {
        for (to, word) in target.words.iter().enumerate() {
            if start != to && words[start] == *word {
                let same = words[start..].iter().zip(&target.words[to..]);
                shifts.push((same.take_while(|(ours, theirs)| ours == theirs).count(), start, to));
            }
        }
        if shifts.len() > MOST_SHIFTS {
            return Err(TooManyShifts);
        }
    }
    // Long phrases gain the most: with one of them found, short ones need not be tried.
    shifts.sort_unstable_by(|a, b| b.cmp(a));
    let prefixes = target.prefixes(words);
    let now = prefixes[words.len()].distance;
    let mut best: Option<(usize, Vec<u32>)> = None;
    let mut shifted = Vec::with_capacity(words.len());
    let mut column = prefixes[0].clone();
    for (count, start, to) in shifts {
        // To take words out and to put them in changes the distance by one each at most.
        if best.as_ref().is_some_and(|(least, _)| now > least + 2 * count) {
            continue;
        }
        let end = start + count;
        shifted.clear();
        shifted.extend_from_slice(&words[..start]);
        shifted.extend_from_slice(&words[end..]);
        let to = to.min(shifted.len());
        shifted.splice(to..to, words[start..end].iter().copied());
        let unchanged = start.min(to);
        column.clone_from(&prefixes[unchanged]);
        shifted[unchanged..].iter().for_each(|word| target.step(&mut column, *word));
        let distance = column.distance;
        let is_better = best
            .as_ref()
            .is_none_or(|(least, greatest)| distance < *least || distance == *least && shifted > *greatest);
        if is_better {
            best = Some((distance, shifted.clone()));
        }
    }
    Ok(best)
}

/// Returns what the shifts cost that lead from one order of words to another.
fn shift_cost(shifted: &[u32], original: &[u32], lengths: &[usize]) -> f64 {
    let mut cost = 0.0;
    let mut start = 0;
    while start < shifted.len() {
        let from = start;
        if original[from] != shifted[from]
            && let Some(to) = (from + 1..shifted.len()).find(|to| shifted[*to] == original[from])
        {
            let same =
                original[from..].iter().zip(&shifted[to..]).take_while(|(ours, theirs)| ours == theirs);
            let count = same.count();
            // Words that moved along are not looked at again.
            start = (from + count - 1).min(original.len() - 1);
            let characters: usize =
                original[from..from + count].iter().map(|word| lengths[*word as usize]).sum();
            cost += characters as f64 / count as f64;
        }
        start += 1;
    }
    cost
}

/// Words that many others are held against: Myers, 1999, in the blocks of Hyyrö, 2003.
struct Target {
    words: Vec<u32>,
    /// By word, at which places it stands, 64 places to a block, all blocks of a word together.
    places: Vec<u64>,
    blocks: usize,
}

/// How far the target is from the words before: where the distance to its beginnings rises and
/// falls by one, and the distance to all of it.
#[derive(Clone)]
struct Column {
    steps: Vec<(u64, u64)>,
    distance: usize,
}

impl Target {
    /// Takes words as numbers below `count`.
    fn new(words: Vec<u32>, count: usize) -> Self {
        let blocks = words.len().div_ceil(64);
        let mut places = vec![0; blocks * count];
        for (at, word) in words.iter().enumerate() {
            places[*word as usize * blocks + at / 64] |= 1 << (at % 64);
        }
        Self { words, places, blocks }
    }

    /// Returns the columns before the first word, after it, and so on to the last.
    fn prefixes(&self, others: &[u32]) -> Vec<Column> {
        let mut column = Column { steps: vec![(u64::MAX, 0); self.blocks], distance: self.words.len() };
        let mut columns = vec![column.clone()];
        for other in others {
            self.step(&mut column, *other);
            columns.push(column.clone());
        }
        columns
    }

    /// Takes in one more word.
    fn step(&self, column: &mut Column, other: u32) {
        let places = &self.places[other as usize * self.blocks..][..self.blocks];
        let last = 1u64 << ((self.words.len() - 1) % 64);
        let (mut more_in, mut less_in, mut at_last) = (1u64, 0u64, (0, 0));
        for ((up, down), places) in column.steps.iter_mut().zip(places) {
            let equal = places | less_in;
            let diagonal = (((equal & *up).wrapping_add(*up)) ^ *up) | equal | *down;
            let (more, less) = (*down | !(diagonal | *up), diagonal & *up);
            at_last = (more & last, less & last);
            let (more_over, less_over) = (more << 1 | more_in, less << 1 | less_in);
            (more_in, less_in) = (more >> 63, less >> 63);
            *up = less_over | !(diagonal | more_over);
            *down = more_over & diagonal;
        }
        column.distance += usize::from(at_last.0 != 0);
        column.distance -= usize::from(at_last.1 != 0);
    }

    /// Returns the edit distance in words.
    fn distance(&self, others: &[u32]) -> usize {
        self.prefixes(others)[others.len()].distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of `cer` 1.2.0.
    #[test]
    fn rates_are_cers() {
        for (output, reference, expected) in [
            (
                "saudi arabia denied this week information published in the american new york times",
                "this week the saudis denied information published in the new york times",
                0.3008130081300813,
            ),
            ("this is in fact an estimate", "this is actually an estimate", 0.25925925925925924),
            ("a b c d e f", "d e f a b c", 0.09090909090909091),
            ("the the cat cat sat", "cat sat the", 0.7368421052631579),
            ("ccc aa e ccc ccc dd", "b b e ccc e ccc dd aa dd e", 0.631578947368421),
            ("b aa dd aa e aa dd e b ccc e", "dd e b e ccc e e aa aa", 0.4166666666666667),
            ("b dd dd e ccc e", "b ccc ccc e dd e e e dd aa e e", 1.0),
            ("ccc dd b e ccc b aa e e aa e ccc", "aa ccc ccc aa dd", 0.6666666666666666),
            ("b ccc ccc", "ccc e b aa ccc aa aa", 1.0),
            ("b b dd e b b aa e b", "b e dd aa e e b dd dd e ccc", 0.6842105263157895),
            ("ccc ccc aa ccc ccc aa dd", "aa dd ccc dd b", 0.6527777777777778),
            ("dd aa aa dd e b ccc", "dd aa aa dd e b dd aa e e dd aa", 0.7894736842105263),
        ] {
            let found =
                of_words(&output.split(' ').collect::<Vec<_>>(), &reference.split(' ').collect::<Vec<_>>());
            let found = found.unwrap();
            assert!((found - expected).abs() < 1e-12, "{output} | {reference}: {found}");
        }
    }

    #[test]
    fn where_there_is_nothing() {
        assert_eq!(
            (of_characters("", ""), of_characters("", "C"), of_characters("C", "")),
            (Ok(0.0), Ok(1.0), Ok(1.0))
        );
        let run = "C".repeat(1_000);
        assert_eq!(of_characters(&run, &run[1..]), Err(TooManyShifts));
    }

    proptest! {
        #[test]
        fn blocks_give_the_edit_distance(
            a in prop::collection::vec(0..4u32, 1..150), b in prop::collection::vec(0..4u32, 0..150)
        ) {
            prop_assert_eq!(Target::new(a.clone(), 4).distance(&b), levenshtein::distance_of(&a, &b));
        }

        #[test]
        fn identity_and_bounds(a in "[CNO()=]{0,20}", b in "[CNO()=]{0,20}") {
            prop_assert_eq!(of_characters(&a, &a), Ok(0.0));
            prop_assert!((0.0..=1.0).contains(&of_characters(&a, &b).unwrap()));
        }
    }
}
