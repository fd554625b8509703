//! Length deviation: how much longer an output is than its reference, below 0 where it is shorter.
//!
//! Units are characters (Unicode scalar values) of a molecule's SMILES, and words between white
//! space of a caption. A corpus has the mean over its rows.

use crate::words;

/// Returns the deviation in characters.
pub fn deviation_characters(output: &str, reference: &str) -> i64 {
    output.chars().count() as i64 - reference.chars().count() as i64
}

/// Returns the deviation in words.
pub fn deviation_words(output: &str, reference: &str) -> i64 {
    words::count(output) as i64 - words::count(reference) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_is_positive() {
        assert_eq!((deviation_characters("CCO", "C"), deviation_characters("é", "CC")), (2, -1));
        assert_eq!((deviation_words("a b", "a b c"), deviation_words("", "a")), (-1, -1));
    }
}
