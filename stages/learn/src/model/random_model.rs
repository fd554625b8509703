//! Folders of random numbers in the shape of a model, to measure with.

use std::path::Path;

use serde_json::{Map, Value, json};
use weights::{Dtype, Durability, ModelWriter, TensorSpec};

use crate::models::LANGUAGE_MODELS;
use crate::network::{UnusableConfig, list};
use crate::text::tokenizer::TOKENIZER_FILE;

/// A shape by name: what it is, and its `config.json`.
struct Named {
    name: &'static str,
    sizes: [u32; 6],
    positions: u32,
}

/// `[hidden, MLP, layers, heads, key-value heads, vocabulary]`: one for trying, one that fills memory
/// a little, TinyLlama-1.1B, LLaMA-2-7B.
const SHAPES: [Named; 4] = [
    Named { name: "tiny", sizes: [128, 352, 4, 4, 4, 1000], positions: 512 },
    Named { name: "small", sizes: [512, 1408, 8, 8, 8, 8000], positions: 1024 },
    Named { name: "1b", sizes: [2048, 5632, 22, 32, 4, 32_000], positions: 2048 },
    Named { name: "7b", sizes: [4096, 11_008, 32, 32, 32, 32_000], positions: 4096 },
];

/// Returns the names of the shapes that [`shape`] knows.
pub fn shapes() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// Returns the `config.json` of a LLaMA of some size: `tiny` and `small` to try things with, `1b` as
/// TinyLlama-1.1B, `7b` as LLaMA-2-7B.
pub fn shape(name: &str) -> Option<Map<String, Value>> {
    let Named { sizes: [hidden, wide, layers, heads, keys, vocabulary], positions, .. } =
        SHAPES.iter().find(|shape| shape.name == name)?;
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "bos_token_id": 1,
        "eos_token_id": vocabulary - 1,
    });
    match config {
        Value::Object(config) => Some(config),
        _ => unreachable!("it is written as an object"),
    }
}

/// Why there is no folder of random numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RandomModelError {
    /// No model can be made of the configuration.
    #[error(transparent)]
    Config(#[from] UnusableConfig),
    /// The folder could not be written.
    #[error("cannot write the model")]
    Write(#[from] weights::ModelError),
    /// A file beside the weights could not be written.
    #[error("cannot write the tokenizer")]
    Tokenizer(#[from] std::io::Error),
}

/// Writes a model folder of random weights, in shards of at most so many bytes, with a tokenizer of
/// a few words. The numbers are the same each time, and mean nothing.
///
/// # Errors
/// [`RandomModelError`].
pub fn write_random(
    config: &Map<String, Value>,
    dtype: Dtype,
    most_shard_bytes: u64,
    folder: &Path,
) -> Result<(), RandomModelError> {
    let mut specs = listed(config)?;
    specs.iter_mut().for_each(|spec| spec.dtype = dtype);
    let writer = ModelWriter::create(folder, config, specs.clone(), most_shard_bytes)?;
    let mut state = 1u32;
    let mut next = || {
        // A linear congruential generator, evenly from -0.035 to 0.035.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.07
    };
    for TensorSpec { name, shape, .. } in &specs {
        let count: u64 = shape.iter().product();
        let numbers: Vec<f32> = match (shape.len(), name.ends_with(".bias")) {
            (1, true) => vec![0.0; count as usize],
            (1, false) => vec![1.0; count as usize],
            _ => (0..count).map(|_| next()).collect(),
        };
        writer.write_f32(name, &numbers)?;
    }
    writer.finish(Durability::Buffered)?;
    let words: Map<String, Value> = (0..16).map(|id| (format!("w{id}"), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "w0" },
    });
    std::fs::write(folder.join(TOKENIZER_FILE), tokenizer.to_string())?;
    Ok(())
}

/// Returns the tensors of a model, in f32; of a LLaMA where nothing is said of its type.
fn listed(config: &Map<String, Value>) -> Result<Vec<TensorSpec>, UnusableConfig> {
    let model_type = config.get("model_type").and_then(Value::as_str);
    let known = LANGUAGE_MODELS.iter().find(|(_, entry)| Some(entry.model_type) == model_type);
    let (_, entry) = known.unwrap_or(&LANGUAGE_MODELS[0]);
    let config = (entry.read)(config)?;
    let specs = list(|source| config.build(source).map(drop)).into_iter().map(|parameter| TensorSpec {
        name: parameter.name,
        dtype: Dtype::F32,
        shape: parameter.shape.iter().map(|size| *size as u64).collect(),
    });
    Ok(specs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::model::memory_estimate::{Kept, Sizes};

    #[test]
    fn what_is_drawn_opens_and_has_the_sizes_estimated() {
        let config = shape("tiny").unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_random(&config, Dtype::BF16, 600_000, folder.path()).unwrap();
        let read = weights::ModelFolder::open(folder.path()).unwrap();
        assert!(read.files().len() > 2, "{:?}", read.files());
        let sizes = Sizes::read(&config).unwrap();
        assert_eq!(sizes.parameters(), read.parameters());
        assert_eq!(sizes.weights(Kept::Bf16), read.bytes());
        let mut model = Model::open(folder.path(), &"cpu".parse().unwrap()).unwrap();
        assert_eq!(model.parameters().0, sizes.parameters());
        assert_eq!((shape("70b"), shapes().count()), (None, SHAPES.len()));
    }

    #[test]
    fn the_shapes_are_those_of_the_models() {
        let parameters = |name: &str| Sizes::read(&shape(name).unwrap()).unwrap().parameters();
        // As transformers counts TinyLlama-1.1B and LLaMA-2-7B.
        assert_eq!(parameters("1b"), 1_100_048_384);
        assert_eq!(parameters("7b"), 6_738_415_616);
    }
}
