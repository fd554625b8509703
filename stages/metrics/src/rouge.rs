//! ROUGE: Lin, 2004: F1 of the unigrams, the bigrams, and the longest common subsequence.
//!
//! Semantics of rouge_score 0.1.2 without stemming: a text is lower-cased, and its tokens are the
//! runs of `a` to `z` and `0` to `9`. A score is that of one pair; a corpus has their mean. The
//! order of output and reference does not matter.

use std::collections::HashMap;

/// The scores of one pair, each in [0, 1], and how much there was to score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rouge {
    /// F1 of unigrams.
    pub rouge1: f64,
    /// F1 of bigrams.
    pub rouge2: f64,
    /// F1 of the longest common subsequence of tokens.
    pub rouge_l: f64,
    /// Tokens of the reference. Where there are fewer than two no output could have a bigram of it,
    /// and rouge_score gives 0 all the same.
    pub reference_tokens: usize,
}

impl Rouge {
    /// Scores one pair of texts.
    pub fn of(output: &str, reference: &str) -> Self {
        let (output, reference) = (output.to_lowercase(), reference.to_lowercase());
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut tokens = |text| -> Vec<u32> {
            let words = tokens(text);
            words
                .map(|token| {
                    let next = numbers.len() as u32;
                    *numbers.entry(token).or_insert(next)
                })
                .collect()
        };
        let (output, reference) = (tokens(&output), tokens(&reference));
        Self {
            rouge1: n_grams(&output, &reference, 1),
            rouge2: n_grams(&output, &reference, 2),
            rouge_l: f1(longest_common_subsequence(&output, &reference), output.len(), reference.len()),
            reference_tokens: reference.len(),
        }
    }
}

/// Returns the runs of ASCII letters and digits of a lower-cased text.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|character: char| !matches!(character, 'a'..='z' | '0'..='9'));
    parts.filter(|token| !token.is_empty())
}

fn n_grams(output: &[u32], reference: &[u32], n: usize) -> f64 {
    let sorted = |tokens: &[u32]| {
        let pack = |gram: &[u32]| gram.iter().fold(0u64, |packed, token| packed << 32 | u64::from(*token));
        let mut packed: Vec<u64> = tokens.windows(n).map(pack).collect();
        packed.sort_unstable();
        packed
    };
    let (ours, theirs) = (sorted(output), sorted(reference));
    let mut rest = theirs.iter().peekable();
    let mut shared = 0;
    for gram in &ours {
        while rest.next_if(|their| *their < gram).is_some() {}
        shared += usize::from(rest.next_if_eq(&gram).is_some());
    }
    f1(shared, ours.len(), theirs.len())
}

fn f1(shared: usize, ours: usize, theirs: usize) -> f64 {
    let precision = shared as f64 / ours.max(1) as f64;
    let recall = shared as f64 / theirs.max(1) as f64;
    if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
}

fn longest_common_subsequence(ours: &[u32], theirs: &[u32]) -> usize {
    let mut lengths = vec![0usize; theirs.len() + 1];
    for our in ours {
        let mut diagonal = 0;
        for (at, their) in theirs.iter().enumerate() {
            let above = lengths[at + 1];
            lengths[at + 1] = if our == their { diagonal + 1 } else { above.max(lengths[at]) };
            diagonal = above;
        }
    }
    lengths[theirs.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_counts_as_a_token() {
        let text = "It's a (2R)-n-hexyl, naïve\u{a0}TEST_2 \u{212a}".to_lowercase();
        assert_eq!(
            tokens(&text).collect::<Vec<_>>(),
            ["it", "s", "a", "2r", "n", "hexyl", "na", "ve", "test", "2", "k"]
        );
    }

    #[test]
    fn one_pair() {
        let rouge = Rouge::of("the cat sat on the mat", "The mat sat, the cat!");
        // Five of six and five words; "the cat", "the mat" of five and four pairs; "the sat the".
        let f = |shared: f64, ours: f64, theirs: f64| 2.0 * shared / (ours + theirs);
        assert!((rouge.rouge1 - f(5.0, 6.0, 5.0)).abs() < 1e-12);
        assert!((rouge.rouge2 - f(2.0, 5.0, 4.0)).abs() < 1e-12);
        assert!((rouge.rouge_l - f(3.0, 6.0, 5.0)).abs() < 1e-12);
    }

    #[test]
    fn without_tokens_there_is_nothing_to_share() {
        assert_eq!(Rouge::of("", ""), Rouge::default());
        assert_eq!(Rouge::of("…", "a"), Rouge { reference_tokens: 1, ..Rouge::default() });
        assert_eq!(Rouge::of("a", "…"), Rouge::default());
    }

    proptest! {
        #[test]
        fn identity_symmetry_and_bounds(a in "[abc ]{0,40}", b in "[abc ]{0,40}") {
            let there = Rouge::of(&a, &b);
            let back = Rouge::of(&b, &a);
            prop_assert_eq!(there, Rouge { reference_tokens: there.reference_tokens, ..back });
            prop_assert_eq!(back.reference_tokens, tokens(&a).count());
            for score in [there.rouge1, there.rouge2, there.rouge_l] {
                prop_assert!((0.0..=1.0).contains(&score));
            }
            prop_assert!(there.rouge_l <= there.rouge1 + 1e-12);
            let own = Rouge::of(&a, &a);
            prop_assert_eq!(own.rouge1, f64::from(u8::from(tokens(&a).next().is_some())));
            prop_assert_eq!(own.rouge_l, own.rouge1);
        }
    }
}
