//! Texts to token ids and back, through Hugging Face's `tokenizers`.
//!
//! What a text holds and the tokenizer has no token for is an error, as SMILES with a hole in them
//! are other molecules. Only Unigram tokenizers go on with `<unk>`: T5's have no token for some
//! characters of SMILES, and the published models were trained with that.

use choice::FieldError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::json;
use tokenizers::{Encoding, ModelWrapper, Tokenizer as Inner};

use super::growth::{Growth, MOST_BYTES};

/// The file that a tokenizer is in.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// One way to find tokens.
pub trait TrainTokenizer {
    /// Says what is wrong with the parameters.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), FieldError>;

    /// Returns how many tokens there will be at most.
    fn most_tokens(&self) -> usize;

    /// Trains a tokenizer on texts.
    ///
    /// # Errors
    /// [`TokenizerError::Untrainable`].
    fn train(&self, texts: &[String]) -> Result<Tokenizer, TokenizerError>;
}

/// The tokens that every tokenizer made here begins with.
pub(super) const PAD: &str = "<pad>";
pub(super) const BEGIN: &str = "<s>";
pub(super) const END: &str = "</s>";

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
    /// It is a tokenizer, and none that gives the same tokens each time.
    #[error("cannot use the tokenizer {}: {detail}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// A text is longer than any model takes, or would become so.
    #[error(
        "a text of {bytes} bytes is too long: the tokenizer may make {grown} bytes of it, and {} MiB are the most",
        MOST_BYTES >> 20
    )]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What normalizers can make of it.
        grown: u64,
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

/// The largest file that is read as a tokenizer; those of the largest vocabularies have 40 MB.
const MOST_FILE_BYTES: u64 = 1 << 29;

/// Turns texts into token ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    unknown: Option<u32>,
    /// How much longer normalizers can make a text.
    normalizing: Growth,
    /// The same of decoders.
    decoding: Growth,
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
        let unreadable = |detail: String| TokenizerError::Unreadable { path: path.to_owned(), detail };
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        // A pipe may never end.
        if !metadata.is_file() {
            return Err(unreadable("it is no file".to_owned()));
        }
        if metadata.len() > MOST_FILE_BYTES {
            let most = MOST_FILE_BYTES >> 20;
            return Err(unreadable(format!("it has {} bytes, and {most} MiB are the most", metadata.len())));
        }
        let inner = guarded(|| Inner::from_file(path)).map_err(unreadable)?;
        let tokenizer = Self::of(inner);
        let unusable = |detail: String| TokenizerError::Unusable { path: path.to_owned(), detail };
        tokenizer.check().map_err(unusable)?;
        Ok(tokenizer)
    }

    /// Checks that nothing but the text decides what the tokens are.
    fn check(&self) -> Result<(), String> {
        if let ModelWrapper::BPE(bpe) = self.inner.get_model()
            && let Some(dropout) = bpe.dropout.filter(|dropout| *dropout != 0.0)
        {
            return Err(format!(
                "`model.dropout` is {dropout}, so that one text has other tokens each time: set it to `null`"
            ));
        }
        // Which of two tokens a number stands for would follow from the order of a hash map.
        let mut tokens: Vec<(u32, String)> =
            self.inner.get_vocab(false).into_iter().map(|(token, id)| (id, token)).collect();
        tokens.sort_unstable();
        match tokens.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some([(id, first), (_, second)]) => {
                Err(format!("`{first}` and `{second}` both have the number {id}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn of(mut inner: Inner) -> Self {
        // A file may carry the truncation and padding of whoever saved it; neither is wanted.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let model = serde_json::to_value(inner.get_model()).unwrap_or_default();
        let falls_back = model.get("byte_fallback").and_then(serde_json::Value::as_bool) == Some(true);
        let unknown = model.get("unk_token").and_then(serde_json::Value::as_str);
        let unknown = unknown.filter(|_| !falls_back).and_then(|token| inner.token_to_id(token));
        let json = |part: Result<serde_json::Value, _>| part.unwrap_or_default();
        let normalizing = Growth::of(&json(serde_json::to_value(inner.get_normalizer())));
        let decoding = Growth::of(&json(serde_json::to_value(inner.get_decoder())));
        Self { inner, unknown, normalizing, decoding }
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

    /// Returns how many tokens there are, gaps between their numbers counted: how many rows an
    /// embedding needs.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |last| last as usize + 1)
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
        Ok(self.encoding(text, false)?.get_tokens().to_vec())
    }

    fn encoding(&self, text: &str, special: bool) -> Result<Encoding, TokenizerError> {
        check_growth(self.normalizing, text.len())?;
        guarded(|| self.inner.encode(text, special))
            .map_err(|detail| TokenizerError::Failed { text: shortened(text), detail })
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.encoding(text, special)?;
        if let Some(unknown) = self.unknown.filter(|unknown| encoding.get_ids().contains(unknown)) {
            let places = encoding.get_ids().iter().zip(encoding.get_offsets());
            let pieces = places.filter(|(id, _)| **id == unknown);
            let mut pieces: Vec<_> = pieces.filter_map(|(_, (begin, end))| text.get(*begin..*end)).collect();
            pieces.sort_unstable();
            pieces.dedup();
            let characters = pieces.iter().map(|piece| format!("`{piece}`")).collect::<Vec<_>>().join(", ");
            return Err(TokenizerError::Unknown {
                characters: shortened(&characters),
                text: shortened(text),
            });
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`TokenizerError::Failed`] if a token is none of the tokenizer's.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let longest = |id: &u32| self.inner.id_to_token(*id).map_or(0, |token| token.len());
        check_growth(self.decoding, ids.iter().map(longest).sum())?;
        guarded(|| self.inner.decode(ids, true))
            .map_err(|detail| TokenizerError::Failed { text: shortened(&format!("{ids:?}")), detail })
    }
}

/// Refuses a text of which too much may become.
fn check_growth(growth: Growth, bytes: usize) -> Result<(), TokenizerError> {
    let grown = growth.of_bytes(bytes);
    if grown <= MOST_BYTES as f64 {
        Ok(())
    } else {
        Err(TokenizerError::TooLong { bytes, grown: grown as u64 })
    }
}

/// Returns as much of a text as a message has room for.
fn shortened(text: &str) -> String {
    const MOST: usize = 2000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Calls the library, which panics at some files and at some texts for them.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // What it was called with is not used again after a failure, but for vocabularies, which do not
    // change, and caches, whose locks are taken again.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing");
            Err(format!("`tokenizers` panicked: {}", said.chars().take(200).collect::<String>()))
        }
    }
}

/// The ids of `<pad>`, `<s>` and `</s>` in tokenizers made here.
pub(crate) fn made_here(tokenizer: &Tokenizer) -> Option<[u32; 3]> {
    Some([tokenizer.id(PAD)?, tokenizer.id(BEGIN)?, tokenizer.id(END)?])
}

#[cfg(test)]
mod tests;
