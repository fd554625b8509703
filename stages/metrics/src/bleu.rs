//! BLEU: Papineni et al., 2002, over a corpus: exp(sum over n <= N of ln(p_n) / N) times the
//! brevity penalty, p_n the share of the outputs' n-grams that their references have too, clipped
//! to how often these have them.
//!
//! Semantics of nltk 3.10.4, `corpus_bleu` without smoothing, one reference per output. So an
//! output of fewer than n tokens counts as one n-gram that is not matched; nothing matched of a
//! higher order gives a number near 0 (p_n is then the least normal float) and no unigram matched
//! gives 0. The tokens may be anything: word pieces, words, characters.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// The longest n-grams that are counted.
pub const LONGEST: usize = 4;

/// What BLEU is made of, for one pair or, added up, for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// N-grams of the outputs that their references have too, by n - 1.
    pub matched: [u64; LONGEST],
    /// N-grams of the outputs, at least one for each output, by n - 1.
    pub possible: [u64; LONGEST],
    /// Tokens of the outputs.
    pub output_tokens: u64,
    /// Tokens of the references.
    pub reference_tokens: u64,
}

impl Counts {
    /// Counts one pair.
    pub fn of<T: Eq + Hash>(output: &[T], reference: &[T]) -> Self {
        let mut numbers: HashMap<&T, u32> = HashMap::with_capacity(reference.len());
        let mut number = |token| {
            let next = numbers.len() as u32 + 1;
            *numbers.entry(token).or_insert(next)
        };
        let reference: Vec<u32> = reference.iter().map(&mut number).collect();
        let output: Vec<u32> = output.iter().map(&mut number).collect();
        let mut counts = Self {
            output_tokens: output.len() as u64,
            reference_tokens: reference.len() as u64,
            ..Self::default()
        };
        for n in 1..=LONGEST {
            let (ours, theirs) = (n_grams(&output, n), n_grams(&reference, n));
            counts.matched[n - 1] = shared(&ours, &theirs);
            counts.possible[n - 1] = ours.len().max(1) as u64;
        }
        counts
    }

    /// Says whether the reference of one pair has an n-gram, so that there is one to be matched.
    pub fn has_n_gram(&self, n: usize) -> bool {
        self.reference_tokens >= n as u64
    }

    /// Returns BLEU over n-grams of up to `longest`, in [0, 1].
    ///
    /// # Panics
    /// If `longest` is not in 1 to [`LONGEST`]: that is a bug of the caller.
    pub fn bleu(&self, longest: usize) -> f64 {
        assert!((1..=LONGEST).contains(&longest), "BLEU counts n-grams of 1 to {LONGEST}, not {longest}");
        if self.matched[0] == 0 {
            return 0.0;
        }
        let precision = |n: usize| match self.matched[n] {
            0 => f64::MIN_POSITIVE,
            matched => matched as f64 / self.possible[n] as f64,
        };
        let logarithms: f64 = (0..longest).map(|n| precision(n).ln() / longest as f64).sum();
        self.brevity_penalty() * logarithms.exp()
    }

    fn brevity_penalty(&self) -> f64 {
        if self.output_tokens > self.reference_tokens {
            return 1.0;
        }
        (1.0 - self.reference_tokens as f64 / self.output_tokens as f64).exp()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for n in 0..LONGEST {
            self.matched[n] += other.matched[n];
            self.possible[n] += other.possible[n];
        }
        self.output_tokens += other.output_tokens;
        self.reference_tokens += other.reference_tokens;
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Self::add)
    }
}

/// Returns all n-grams, sorted, each packed into one number.
fn n_grams(tokens: &[u32], n: usize) -> Vec<u128> {
    let pack = |gram: &[u32]| gram.iter().fold(0u128, |packed, token| packed << 32 | u128::from(*token));
    let mut packed: Vec<u128> = tokens.windows(n).map(pack).collect();
    packed.sort_unstable();
    packed
}

/// Returns how many of one sorted list are in another, each as often as the lesser has it.
fn shared(ours: &[u128], theirs: &[u128]) -> u64 {
    let mut theirs = theirs.iter().peekable();
    let mut shared = 0;
    for gram in ours {
        while theirs.next_if(|their| *their < gram).is_some() {}
        shared += u64::from(theirs.next_if_eq(&gram).is_some());
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;
    use proptest::prelude::*;

    fn of(output: &str, reference: &str) -> Counts {
        let split = |text| words::split(text).collect::<Vec<_>>();
        Counts::of(&split(output), &split(reference))
    }

    /// The example of nltk's documentation, whose values were computed by nltk 3.10.4.
    #[test]
    fn a_corpus_as_nltk_scores_it() {
        let first = of(
            "It is a guide to action which ensures that the military always obeys the commands of the party",
            "It is a guide to action that ensures that the military will forever heed Party commands",
        );
        let second = of(
            "he read the book because he was interested in world history",
            "he was interested in world history because he read the book",
        );
        let both = first + second;
        assert!((both.bleu(2) - 0.6911223219206282).abs() < 1e-12, "{}", both.bleu(2));
        assert!((both.bleu(4) - 0.5314082679468591).abs() < 1e-12, "{}", both.bleu(4));
    }

    #[test]
    fn short_and_empty_outputs_are_penalised() {
        assert_eq!(of("", "a b").possible, [1; 4]);
        assert_eq!(of("", "a b").bleu(2), 0.0);
        assert_eq!(of("c d", "a b").bleu(2), 0.0);
        // One word right: no bigram is matched, and nltk takes the least float for its share.
        let one = of("a", "a b").bleu(2);
        assert!(one > 0.0 && one < 1e-150, "{one}");
    }

    #[test]
    fn matches_are_clipped() {
        let counts = of("the the the the", "the cat is on the mat");
        assert_eq!((counts.matched, counts.possible), ([2, 0, 0, 0], [4, 3, 2, 1]));
    }

    proptest! {
        #[test]
        fn a_text_of_four_words_is_its_own_best(tokens in prop::collection::vec(0..5u8, 4..30)) {
            let counts = Counts::of(&tokens, &tokens);
            prop_assert_eq!(counts.bleu(4), 1.0);
        }

        #[test]
        fn bounds(a in prop::collection::vec(0..5u8, 0..30), b in prop::collection::vec(0..5u8, 0..30)) {
            let counts = Counts::of(&a, &b);
            for longest in 1..=LONGEST {
                prop_assert!((0.0..=1.0).contains(&counts.bleu(longest)));
            }
            let back = Counts::of(&b, &a);
            if a.len() >= LONGEST && b.len() >= LONGEST {
                prop_assert_eq!(counts.matched, back.matched);
            }
        }
    }
}
