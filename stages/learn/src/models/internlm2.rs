//! InternLM2: Cai et al., 2024: LLaMA under other names, with queries, keys and values made by one
//! projection, `wqkv`: for each key-value head its query heads, then its key, then its value.
//!
//! As the model's public code has it (`modeling_internlm2.py`): `bias` is about `wqkv` and `wo`, and
//! holds if nothing is said. Its `dynamic` rope scaling changes angles beyond
//! `max_position_embeddings` only, which is as long as a text gets here.

use serde_json::{Map, Value};

use super::llama::{LlamaConfig, TensorNaming};
use crate::network::{LanguageModelEntry, Reader, UnusableConfig};

/// Says what it is in the list of models.
pub(crate) const ENTRY: LanguageModelEntry = LanguageModelEntry {
    model_type: "internlm2",
    architectures: &["InternLM2ForCausalLM"],
    read: |config| Ok(Box::new(read(config)?)),
};

/// Reads `config.json`.
pub(crate) fn read(config: &Map<String, Value>) -> Result<LlamaConfig, UnusableConfig> {
    let attention_bias = Reader::new(config).truth_or("bias", true)?;
    Ok(LlamaConfig {
        naming: TensorNaming::InternLm2,
        attention_bias,
        mlp_bias: false,
        ..LlamaConfig::read(config)?
    })
}
