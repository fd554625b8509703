//! Words of a text: the runs between white space.
//!
//! White space is Unicode's property `White_Space` and, as in Python's `str.split()`, the four
//! separators U+001C to U+001F too.

/// Returns the words of a text, as Python's `str.split()` does.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Returns how many words a text has.
pub fn count(text: &str) -> usize {
    split(text).count()
}

fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_of_white_space_part_words() {
        assert_eq!(split("  a b\t\nc. ").collect::<Vec<_>>(), ["a", "b", "c."]);
        assert_eq!((count(""), count(" \u{a0}\u{3000}"), count("a\u{2009}b")), (0, 0, 2));
    }

    #[test]
    fn the_separators_of_python_count() {
        // len("a\x1cb\x1fc\u200bd".split()) is 3: a zero-width space is not white.
        assert_eq!(count("a\u{1c}b\u{1f}c\u{200b}d"), 3);
    }

    proptest! {
        #[test]
        fn words_joined_are_split_again(words in prop::collection::vec("[^\\s\u{1c}-\u{1f}]{1,5}", 0..9)) {
            let text = words.join(" ");
            prop_assert_eq!(split(&text).collect::<Vec<_>>(), words);
        }
    }
}
