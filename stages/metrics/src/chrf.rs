//! chr-F: Popović, 2015: F-score of character n-grams, here of 1, 2 and 3:
//! (1 + beta²) P R / (beta² P + R), P and R the means over n of precision and recall.
//!
//! Semantics of sacrebleu 2.6.0, `CHRF(char_order=3, word_order=0, beta)`, one sentence at a time
//! and in [0, 1] in place of percent: white space is left out, and an n for which one of the texts
//! is too short does not enter the means. A corpus has the mean over its rows. `beta` is how much
//! more recall weighs than precision: 1 gives the plain F-score, 2 is sacrebleu's default.

use crate::words;

/// The longest n-grams that are compared.
pub const LONGEST: usize = 3;

/// Returns chr-F of one pair.
pub fn chrf(output: &str, reference: &str, beta: f64) -> f64 {
    let (ours, theirs) = (characters(output), characters(reference));
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for n in 1..=LONGEST {
        let (ours, theirs) = (n_grams(&ours, n), n_grams(&theirs, n));
        if ours.is_empty() || theirs.is_empty() {
            continue;
        }
        let matched = shared(&ours, &theirs) as f64;
        precision += matched / ours.len() as f64;
        recall += matched / theirs.len() as f64;
        orders += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    let factor = beta * beta;
    (1.0 + factor) * precision * recall / (factor * precision + recall)
}

fn characters(text: &str) -> Vec<u32> {
    words::split(text).flat_map(str::chars).map(u32::from).collect()
}

/// Returns all n-grams, sorted, each packed into one number: a character has 21 bits.
fn n_grams(characters: &[u32], n: usize) -> Vec<u64> {
    let pack = |gram: &[u32]| gram.iter().fold(0u64, |packed, unit| packed << 21 | u64::from(*unit));
    let mut packed: Vec<u64> = characters.windows(n).map(pack).collect();
    packed.sort_unstable();
    packed
}

fn shared(ours: &[u64], theirs: &[u64]) -> usize {
    let mut theirs = theirs.iter().peekable();
    let mut shared = 0;
    for gram in ours {
        while theirs.next_if(|their| *their < gram).is_some() {}
        shared += usize::from(theirs.next_if_eq(&gram).is_some());
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_pair() {
        // Characters 2 of 3 and 2, pairs 1 of 2 and 1, no reference of three.
        let (precision, recall) = ((2.0 / 3.0 + 0.5) / 2.0, 1.0);
        let expected = 2.0 * precision * recall / (precision + recall);
        assert!((chrf("CCO", "C C", 1.0) - expected).abs() < 1e-12);
        assert!(chrf("CCO", "CC", 2.0) > chrf("CCO", "CC", 1.0));
        assert_eq!((chrf("", "CC", 1.0), chrf("N", "C", 1.0), chrf("", "", 1.0)), (0.0, 0.0, 0.0));
    }

    proptest! {
        #[test]
        fn identity_symmetry_and_bounds(a in "[abc]{1,20}", b in "[abc]{1,20}", beta in 0.5..3.0f64) {
            prop_assert!((chrf(&a, &a, beta) - 1.0).abs() < 1e-12);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&chrf(&a, &b, beta)));
            // Precision one way is recall the other, and beta 1 weighs them alike.
            prop_assert!((chrf(&a, &b, 1.0) - chrf(&b, &a, 1.0)).abs() < 1e-12);
            prop_assert!((chrf(&a, &b, beta) - chrf(&b, &a, 1.0 / beta)).abs() < 1e-12);
        }
    }
}
