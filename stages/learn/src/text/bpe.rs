//! Byte-level BPE: Sennrich et al., 2016, algorithm 1, over bytes as in GPT-2.
//!
//! Texts are first parted where GPT-2 parts them (letters, digits, the rest, and space before
//! them); pairs that occur once are not merged. It has tokens for all bytes, so that no text is
//! beyond it. The first three tokens are `<pad>`, `<s>` and `</s>`; `<s>` is put before a prompt.

use choice::FieldError;
use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, TokenizerImpl};

use super::tokenizer::{BEGIN, END, PAD, Tokenizer, TokenizerError, TrainTokenizer};

/// The version of what it makes.
pub(super) const VERSION: u32 = 1;

/// Byte-level BPE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bpe {
    /// The most tokens, those of the bytes among them.
    pub vocab_size: u32,
}

/// The 256 bytes and the three special tokens.
const LEAST: u32 = 259;

impl TrainTokenizer for Bpe {
    fn check(&self) -> Result<(), FieldError> {
        let size = self.vocab_size;
        if size < LEAST {
            let message = format!("a byte-level vocabulary has at least {LEAST} tokens, not {size}");
            return Err(FieldError::new("vocab_size", message));
        }
        Ok(())
    }

    fn most_tokens(&self) -> usize {
        self.vocab_size as usize
    }

    fn train(&self, texts: &[String]) -> Result<Tokenizer, TokenizerError> {
        self.check().map_err(|error| TokenizerError::Untrainable(error.message))?;
        if texts.iter().all(|text| text.trim().is_empty()) {
            return Err(TokenizerError::Untrainable("there is no text to learn from".to_owned()));
        }
        let byte_level = ByteLevel::new(false, true, true);
        let mut trained =
            TokenizerImpl::<_, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel>::new(
                BPE::default(),
            );
        trained.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
        let special = [PAD, BEGIN, END].map(|token| AddedToken::from(token, true));
        let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(self.vocab_size as usize)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(special.to_vec())
            .initial_alphabet(alphabet)
            .build();
        let untrainable = |error: &dyn std::fmt::Display| TokenizerError::Untrainable(error.to_string());
        trained.train(&mut trainer, texts.iter().map(String::as_str)).map_err(|error| untrainable(&error))?;
        let begin = trained.token_to_id(BEGIN).expect("the special tokens are in the vocabulary");
        let template = TemplateProcessing::builder()
            .try_single(format!("{BEGIN} $A"))
            .map_err(|error| untrainable(&error))?
            .special_tokens(vec![(BEGIN, begin)])
            .build()
            .map_err(|error| untrainable(&error))?;
        trained.with_post_processor(Some(template));
        let text = serde_json::to_string(&trained).map_err(|error| untrainable(&error))?;
        text.parse().map(Tokenizer::of).map_err(|error: tokenizers::Error| untrainable(&error))
    }
}
