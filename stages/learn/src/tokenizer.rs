//! Texts to token ids and back, through Hugging Face's `tokenizers`.

mod bpe;

use std::path::{Path, PathBuf};

use choice::choices;
use serde_json::json;
use tokenizers::Tokenizer as Inner;

/// The file that a tokenizer is in.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

choices! {
    /// How a tokenizer finds its tokens.
    pub enum TokenizerModel: TrainTokenizer in "tokenizer" {
        bpe::Bpe,
    }
}

/// One way to find tokens.
pub trait TrainTokenizer {
    /// Says what is wrong with the parameters.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String>;

    /// Trains a tokenizer on texts.
    ///
    /// # Errors
    /// [`TokenizerError::Untrainable`].
    fn train(&self, texts: &[String]) -> Result<Tokenizer, TokenizerError>;
}

/// The tokens that every tokenizer made here begins with.
const PAD: &str = "<pad>";
const BEGIN: &str = "<s>";
const END: &str = "</s>";

/// What is wrong with a tokenizer, or with a text for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// There is no file, or it is no tokenizer.
    #[error("cannot read the tokenizer {}: {detail}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the library said.
        detail: String,
    },
    /// It could not be written.
    #[error("cannot write {}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No tokenizer can be made of these texts.
    #[error("cannot make a tokenizer: {0}")]
    Untrainable(String),
    /// A text holds what the tokenizer has no token for.
    #[error("the tokenizer lacks the characters {characters} of {text:?}")]
    Unknown {
        /// The characters.
        characters: String,
        /// The text.
        text: String,
    },
    /// The library failed.
    #[error("cannot tokenize {text:?}: {detail}")]
    Failed {
        /// The text.
        text: String,
        /// What the library said.
        detail: String,
    },
}

/// Turns texts into token ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    unknown: Option<u32>,
}

impl Tokenizer {
    /// Opens the tokenizer of a folder.
    ///
    /// # Errors
    /// [`TokenizerError::Unreadable`].
    pub fn open(folder: &Path) -> Result<Self, TokenizerError> {
        Self::open_file(&folder.join(TOKENIZER_FILE))
    }

    /// Opens a `tokenizer.json`, whatever it is called.
    ///
    /// # Errors
    /// [`TokenizerError::Unreadable`].
    pub fn open_file(path: &Path) -> Result<Self, TokenizerError> {
        let inner = Inner::from_file(path).map_err(|error| TokenizerError::Unreadable {
            path: path.to_owned(),
            detail: error.to_string(),
        })?;
        Ok(Self::of(inner))
    }

    fn of(mut inner: Inner) -> Self {
        // A file may carry the truncation and padding of whoever saved it; neither is wanted.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let model = serde_json::to_value(inner.get_model()).unwrap_or_default();
        let falls_back = model.get("byte_fallback").and_then(serde_json::Value::as_bool) == Some(true);
        let unknown = model.get("unk_token").and_then(serde_json::Value::as_str);
        let unknown = unknown.filter(|_| !falls_back).and_then(|token| inner.token_to_id(token));
        Self { inner, unknown }
    }

    /// Writes the tokenizer, and what transformers wants beside it.
    ///
    /// # Errors
    /// [`TokenizerError::Unwritable`].
    pub fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN,
            "eos_token": END,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": false,
        });
        let tokenizer = serde_json::to_string_pretty(&self.inner).expect("a tokenizer is JSON");
        let config = serde_json::to_string_pretty(&config).expect("a table is JSON");
        for (name, text) in [(TOKENIZER_FILE, tokenizer), ("tokenizer_config.json", config)] {
            let path = folder.join(name);
            std::fs::write(&path, text + "\n")
                .map_err(|source| TokenizerError::Unwritable { path, source })?;
        }
        Ok(())
    }

    /// Returns how many tokens there are.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Returns the id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns a prompt's tokens, with those that the tokenizer puts before and after a text.
    ///
    /// # Errors
    /// [`TokenizerError::Unknown`] if it lacks characters of the text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, true)
    }

    /// Returns a target's tokens, with nothing around them.
    ///
    /// # Errors
    /// [`TokenizerError::Unknown`] if it lacks characters of the text.
    pub fn encode_target(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode(text, false)
    }

    /// Returns a text's tokens as the vocabulary writes them, with nothing around them. What it
    /// lacks is its unknown token.
    ///
    /// # Errors
    /// [`TokenizerError::Failed`].
    pub fn tokens(&self, text: &str) -> Result<Vec<String>, TokenizerError> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|error| TokenizerError::Failed { text: text.to_owned(), detail: error.to_string() })?;
        Ok(encoding.get_tokens().to_vec())
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode(text, special)
            .map_err(|error| TokenizerError::Failed { text: text.to_owned(), detail: error.to_string() })?;
        if let Some(unknown) = self.unknown.filter(|unknown| encoding.get_ids().contains(unknown)) {
            let places = encoding.get_ids().iter().zip(encoding.get_offsets());
            let pieces = places.filter(|(id, _)| **id == unknown);
            let mut pieces: Vec<_> = pieces.filter_map(|(_, (begin, end))| text.get(*begin..*end)).collect();
            pieces.sort_unstable();
            pieces.dedup();
            let characters = pieces.iter().map(|piece| format!("`{piece}`")).collect::<Vec<_>>().join(", ");
            return Err(TokenizerError::Unknown { characters, text: text.to_owned() });
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`TokenizerError::Failed`] if a token is none of the tokenizer's.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, true)
            .map_err(|error| TokenizerError::Failed { text: format!("{ids:?}"), detail: error.to_string() })
    }
}

/// The ids of `<pad>`, `<s>` and `</s>` in tokenizers made here.
pub(crate) fn made_here(tokenizer: &Tokenizer) -> Option<[u32; 3]> {
    Some([tokenizer.id(PAD)?, tokenizer.id(BEGIN)?, tokenizer.id(END)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        let texts =
            ["The molecule is a nutrient.", "CC(=O)Oc1ccccc1C(=O)O", "The molecule is a drug: C1CCCCC1."];
        texts.iter().cycle().take(60).map(|text| (*text).to_owned()).collect()
    }

    fn bpe(vocabulary_size: u32) -> Result<Tokenizer, TokenizerError> {
        bpe::Bpe { vocabulary_size }.train(&texts())
    }

    #[test]
    fn a_text_comes_back_whatever_it_holds() {
        let tokenizer = bpe(300).unwrap();
        for text in ["The molecule is", "C[C@@H](N)C(=O)O", "\u{3b2}-carotene \u{1f9ea}", " two  spaces "] {
            let ids = tokenizer.encode_target(text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            let prompt = tokenizer.encode_prompt(text).unwrap();
            assert_eq!((prompt[0], &prompt[1..]), (1, &ids[..]));
        }
        assert_eq!(made_here(&tokenizer), Some([0, 1, 2]));
        assert!((259..=300).contains(&tokenizer.vocabulary_size()));
    }

    #[test]
    fn the_same_texts_give_the_same_bytes() {
        let made = || serde_json::to_string(&bpe(320).unwrap().inner).unwrap();
        let first = made();
        assert!((0..5).all(|_| made() == first));
    }

    #[test]
    fn a_saved_tokenizer_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = bpe(300).unwrap();
        tokenizer.save(folder.path()).unwrap();
        let opened = Tokenizer::open(folder.path()).unwrap();
        let text = "CC(=O)N";
        assert_eq!(opened.encode_prompt(text).unwrap(), tokenizer.encode_prompt(text).unwrap());
        let error = Tokenizer::open(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the tokenizer"), "{error}");
    }

    #[test]
    fn characters_without_a_token_are_named() {
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":null,"post_processor":null,"decoder":null,
            "model":{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,
            "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
            "vocab":{"<unk>":0,"C":1,"O":2},"merges":[]}}"#;
        let tokenizer = Tokenizer::of(json.parse().unwrap());
        assert_eq!(tokenizer.encode_target("CCO").unwrap(), [1, 1, 2]);
        let error = tokenizer.encode_target("CCN=P").unwrap_err().to_string();
        assert_eq!(error, "the tokenizer lacks the characters `=`, `N`, `P` of \"CCN=P\"");
        assert_eq!(tokenizer.tokens("CCN").unwrap(), ["C", "C", "<unk>"]);
    }

    #[test]
    fn what_cannot_be_trained_says_why() {
        let error = bpe(100).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot make a tokenizer: a byte-level vocabulary has at least 259 tokens, not 100"
        );
        assert!(bpe::Bpe { vocabulary_size: 300 }.train(&[]).is_err());
    }
}
