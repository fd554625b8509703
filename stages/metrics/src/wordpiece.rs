//! WordPiece: Schuster and Nakajima, 2012, as BERT splits text: Devlin et al., 2018.
//!
//! A text is cleaned, lower-cased, freed of accents and split into words at white space and
//! around punctuation and Chinese characters; then each word is split into the longest pieces
//! that the vocabulary has, from the left, those after the first written `##piece`. A word that
//! cannot be split, or of more than 100 characters, is `[UNK]`.
//!
//! Semantics of Hugging Face's uncased `BertTokenizerFast` (`tokenizers` 0.23), character classes
//! included. As in the published scripts, special tokens written in a text are not split, at most
//! [`MOST_TOKENS`] tokens are kept, and then `[PAD]`, `[CLS]` and `[SEP]` are left out.

use std::collections::HashMap;

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

/// How many tokens of a text are kept, as in the published scripts.
pub const MOST_TOKENS: usize = 512;

/// The longest word, in characters, that is split into pieces.
const LONGEST_WORD: usize = 100;

const UNKNOWN: &str = "[UNK]";

/// Tokens that stand for themselves wherever they are written.
const SPECIAL: [&str; 5] = ["[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"];

/// Special tokens that the scripts do not count.
const LEFT_OUT: [&str; 3] = ["[PAD]", "[CLS]", "[SEP]"];

/// Says why a text is no vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// It has no pieces.
    #[error("the vocabulary is empty")]
    Empty,
    /// It has no piece for what cannot be split.
    #[error("the vocabulary has no `{UNKNOWN}`: is this a WordPiece vocabulary, one piece per line?")]
    NoUnknown,
}

/// A vocabulary of word pieces.
#[derive(Clone, Debug)]
pub struct WordPiece {
    /// Pieces that begin a word, and special tokens.
    first: HashMap<Box<str>, ()>,
    /// Pieces within a word, without their `##`, and with it.
    inner: HashMap<Box<str>, Box<str>>,
    /// The most bytes of any piece.
    longest: usize,
}

impl WordPiece {
    /// Reads a vocabulary: one piece per line.
    pub fn parse(vocabulary: &str) -> Result<Self, VocabularyError> {
        let (mut first, mut inner, mut longest) = (HashMap::new(), HashMap::new(), 0);
        let pieces = vocabulary.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            if let Some(rest) = piece.strip_prefix("##") {
                inner.insert(rest.into(), piece.into());
            }
            longest = longest.max(piece.len());
            first.insert(piece.into(), ());
        }
        match () {
            () if first.is_empty() => Err(VocabularyError::Empty),
            () if !first.contains_key(UNKNOWN) => Err(VocabularyError::NoUnknown),
            () => Ok(Self { first, inner, longest }),
        }
    }

    /// Splits a text into pieces.
    pub fn split<'a>(&'a self, text: &str) -> Vec<&'a str> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some((at, special)) = next_special(rest) {
            self.split_plain(&rest[..at], &mut tokens);
            tokens.push(special);
            rest = &rest[at + special.len()..];
        }
        self.split_plain(rest, &mut tokens);
        tokens.truncate(MOST_TOKENS);
        tokens.retain(|token| !LEFT_OUT.contains(token));
        tokens
    }

    fn split_plain<'a>(&'a self, text: &str, tokens: &mut Vec<&'a str>) {
        let text = normalize(text);
        for part in text.split(char::is_whitespace) {
            let mut rest = part;
            while let Some((at, mark)) = rest.char_indices().find(|(_, character)| is_punctuation(*character))
            {
                self.split_word(&rest[..at], tokens);
                let after = at + mark.len_utf8();
                self.split_word(&rest[at..after], tokens);
                rest = &rest[after..];
            }
            self.split_word(rest, tokens);
        }
    }

    fn split_word<'a>(&'a self, word: &str, tokens: &mut Vec<&'a str>) {
        if word.is_empty() {
            return;
        }
        let before = tokens.len();
        let mut start = 0;
        if word.chars().take(LONGEST_WORD + 1).count() <= LONGEST_WORD {
            while start < word.len() {
                let Some(piece) = self.longest_piece(&word[start..], start > 0) else { break };
                start += piece.len() - if start > 0 { "##".len() } else { 0 };
                tokens.push(piece);
            }
        }
        if start < word.len() {
            tokens.truncate(before);
            tokens.push(UNKNOWN);
        }
    }

    /// Returns the longest piece that a word, or the rest of one, begins with.
    fn longest_piece(&self, word: &str, is_inner: bool) -> Option<&str> {
        let mut end = word.len().min(self.longest);
        while end > 0 {
            if word.is_char_boundary(end) {
                let candidate = &word[..end];
                let piece = if is_inner {
                    self.inner.get(candidate).map(Box::as_ref)
                } else {
                    self.first.get_key_value(candidate).map(|(piece, ())| piece.as_ref())
                };
                if piece.is_some() {
                    return piece;
                }
            }
            end -= 1;
        }
        None
    }
}

/// Returns the leftmost special token and where it is.
fn next_special(text: &str) -> Option<(usize, &'static str)> {
    let bracket = text.find('[')?;
    let occurrence =
        SPECIAL.iter().filter_map(|special| Some((text[bracket..].find(special)? + bracket, *special)));
    occurrence.min_by_key(|(at, _)| *at)
}

/// Cleans a text, sets Chinese characters apart, takes accents off and lower-cases.
fn normalize(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_ascii_lowercase();
    }
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\0' | '\u{fffd}' => {}
            '\t' | '\n' | '\r' => clean.push(' '),
            // The order matters: some control characters are white space too, and are left out.
            _ if character.is_other() => {}
            _ if character.is_whitespace() => clean.push(' '),
            _ if is_chinese(character) => clean.extend([' ', character, ' ']),
            _ => clean.push(character),
        }
    }
    let decomposed = clean.nfd().map(|(character, _)| character);
    decomposed.filter(|character| !character.is_mark_nonspacing()).flat_map(char::to_lowercase).collect()
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || (!character.is_ascii() && character.is_punctuation())
}

fn is_chinese(character: char) -> bool {
    matches!(character,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}' | '\u{2b740}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces() -> WordPiece {
        let vocabulary =
            "[UNK]\n[CLS]\nmol\n##ec\n##ule\nacid\n##s\na\n##b\n-\n,\n(\ncafe\n\n中\n##中\nss\r\nß";
        WordPiece::parse(vocabulary).unwrap()
    }

    #[test]
    fn words_are_split_into_the_longest_pieces() {
        let pieces = pieces();
        assert_eq!(pieces.split("Molecules, acids"), ["mol", "##ec", "##ule", "##s", ",", "acid", "##s"]);
        assert_eq!(pieces.split("(mol-acid molx"), ["(", "mol", "-", "acid", "[UNK]"]);
        assert_eq!(
            pieces.split("Café caf\u{65}\u{301} ＊ 中a\u{200d}b"),
            ["cafe", "cafe", "[UNK]", "中", "a", "##b"]
        );
        assert_eq!(pieces.split(" \t\u{a0}\0\u{fffd}"), Vec::<&str>::new());
        assert_eq!(pieces.split("ß"), ["ß"]);
    }

    #[test]
    fn long_words_are_unknown_and_long_texts_are_cut() {
        let pieces = pieces();
        assert_eq!(pieces.split(&format!("a{}", "b".repeat(99))).len(), 100);
        assert_eq!(pieces.split(&format!("a{}", "b".repeat(100))), ["[UNK]"]);
        assert_eq!(pieces.split(&"a ".repeat(600)).len(), MOST_TOKENS);
    }

    #[test]
    fn special_tokens_are_kept_whole_and_most_left_out() {
        let pieces = pieces();
        assert_eq!(pieces.split("[CLS] acid[UNK]s [SEP][PAD] [MASK]"), ["acid", "[UNK]", "[UNK]", "[MASK]"]);
    }

    #[test]
    fn what_is_no_vocabulary_is_refused() {
        assert_eq!(WordPiece::parse("\n").unwrap_err(), VocabularyError::Empty);
        assert_eq!(WordPiece::parse("a\nb").unwrap_err(), VocabularyError::NoUnknown);
    }

    proptest! {
        #[test]
        fn any_text_is_split(text in "\\PC{0,60}") {
            pieces().split(&text);
        }

        #[test]
        fn pieces_make_up_their_words(text in "[ab ]{0,40}") {
            let vocabulary = WordPiece::parse("[UNK]\na\nb\n##a\n##b\n##ab").unwrap();
            let joined: String = vocabulary.split(&text).iter().map(|piece| piece.trim_start_matches("##")).collect();
            prop_assert_eq!(joined, text.replace(' ', ""));
        }
    }
}
