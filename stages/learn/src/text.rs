//! Texts as token ids: tokenizers, sequences, and the batches that a device computes.

pub(crate) mod batches;
mod bpe;
mod growth;
pub(crate) mod sequence;
pub(crate) mod tokenizer;

use choice::choices;

use tokenizer::TrainTokenizer;

choices! {
    /// How a tokenizer finds its tokens.
    pub enum TokenizerModel: TrainTokenizer in "tokenizer" {
        bpe::Bpe,
    }
}
