//! Model folders: weights in by name, and out again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn_tensor::{Device, Tensor};
use serde_json::{Map, Value};
use weights::{Dtype, Durability, MOST_SHARD_BYTES, ModelFolder, ModelWriter, TensorSpec};

use crate::models::LANGUAGE_MODELS;
use crate::network::{FolderTensors, LanguageModelEntry, Network, TensorError, UnusableConfig};
use crate::tensor::layers::Storage;
use crate::tensor::parameters::Parameters as _;

/// A folder that no model can be made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder is not a model's.
    #[error("{}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: weights::ModelError,
    },
    /// Its configuration says what cannot be.
    #[error("{}", .folder.display())]
    Config {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: UnusableConfig,
    },
    /// It is of a type that is not known.
    #[error("{}: `config.json` says `model_type` {found}; {} are known", .folder.display(), known_types())]
    UnknownType {
        /// The folder.
        folder: PathBuf,
        /// The type.
        found: String,
    },
    /// It is of a known type, and another network than the one that is known.
    #[error("{}: `config.json` says `architectures` `{found}`; `{known}` is known", .folder.display())]
    UnknownArchitecture {
        /// The folder.
        folder: PathBuf,
        /// The architecture.
        found: String,
        /// The one of this type that is known.
        known: &'static str,
    },
    /// Its tensors do not make the model.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// The tokenizer has tokens that the model has no embedding for.
    #[error("{}: the tokenizer has {tokens} tokens, and the model embeds {embedded}", .folder.display())]
    Vocabulary {
        /// The folder.
        folder: PathBuf,
        /// The tokens.
        tokens: usize,
        /// The rows of the embedding.
        embedded: usize,
    },
}

fn known_types() -> String {
    let types: Vec<String> =
        LANGUAGE_MODELS.iter().map(|(_, entry)| format!("`{}`", entry.model_type)).collect();
    let (last, others) = types.split_last().expect("some are known");
    format!("{} and {last}", others.join(", "))
}

/// Finds out which of the known models a folder is of.
fn known_model(folder: &ModelFolder) -> Result<&'static LanguageModelEntry, OpenError> {
    let path = || folder.path().to_owned();
    let listed = folder.architectures();
    let mut known = LANGUAGE_MODELS.iter().map(|(_, entry)| entry);
    let found = match folder.model_type() {
        Some(model_type) => known.find(|entry| entry.model_type == model_type),
        // A configuration without a type is known by its network alone.
        None => known.find(|entry| entry.architectures.iter().any(|name| listed.contains(name))),
    };
    let Some(entry) = found else {
        let found = folder.model_type().map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`"));
        return Err(OpenError::UnknownType { folder: path(), found });
    };
    match listed.first() {
        Some(found) if !listed.iter().any(|listed| entry.architectures.contains(listed)) => {
            let (found, known) = ((*found).to_owned(), entry.architectures[0]);
            Err(OpenError::UnknownArchitecture { folder: path(), found, known })
        }
        _ => Ok(entry),
    }
}

/// Opens a model and checks that every tensor of its folder has a place in it. Projections are kept
/// as `storage` says.
pub(crate) fn open(folder: &ModelFolder, storage: Storage, device: &Device) -> Result<Network, OpenError> {
    let unusable = |source| OpenError::Config { folder: folder.path().to_owned(), source };
    let config = (known_model(folder)?.read)(folder.config()).map_err(unusable)?;
    let mut tensors = FolderTensors::new(folder, storage, device);
    let network = config.open(&mut tensors)?;
    tensors.finish(|name| config.may_lie_beside(name))?;
    Ok(network)
}

/// Writes a model in f32, with a configuration: the weights of projections with what
/// their adapters add, and packed ones as the numbers that they stand for. Tensors are written one
/// by one, and no second model is made of them.
pub(crate) fn save(
    model: &mut Network,
    config: &Map<String, Value>,
    folder: &Path,
    device: &Device,
) -> Result<(), weights::ModelError> {
    let mut specs = BTreeMap::new();
    let mut announce = |name: String, shape: &[usize]| {
        let shape = shape.iter().map(|size| *size as u64).collect();
        specs.insert(name.clone(), TensorSpec { name, dtype: Dtype::F32, shape });
    };
    model.visit(&mut |name, parameter| {
        if !is_adapter(&name) {
            announce(name, &parameter.shape());
        }
    });
    for (path, linear) in model.linears() {
        announce(format!("{path}.weight"), &linear.weight.shape());
    }
    let writer = ModelWriter::create(folder, config, specs.into_values().collect(), MOST_SHARD_BYTES)?;
    let write = |name: &str, numbers: Tensor<1>| {
        let numbers = numbers.into_data().try_into_vec::<f32>().expect("parameters are f32");
        writer.write_f32(name, &numbers)
    };
    let mut merged = BTreeSet::new();
    for (path, linear) in model.linears() {
        if linear.adapter.is_some() || linear.is_packed() {
            let name = format!("{path}.weight");
            write(&name, linear.merged(device).flatten(0, 1))?;
            merged.insert(name);
        }
    }
    let mut written = Ok(());
    model.visit(&mut |name, parameter| {
        if written.is_ok() && !is_adapter(&name) && !merged.contains(&name) {
            written = write(&name, parameter.flat());
        }
    });
    written?;
    writer.finish(Durability::Buffered)
}

/// Says whether a parameter is one of an adapter.
fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::t5::T5ForConditionalGeneration;
    use crate::testing::golden;
    use tempfile::TempDir;
    use weights::Tensor as Entry;

    /// A copy of a model with another configuration and, of the tensors that stay, other ones:
    /// those that `change` gives for each.
    fn changed(
        name: &str,
        config: &[(&str, Value)],
        change: impl Fn(&Entry, Vec<f32>) -> Vec<(String, Vec<u64>, Vec<f32>)>,
    ) -> TempDir {
        let (from, to) = (ModelFolder::open(golden(name)).unwrap(), TempDir::new().unwrap());
        let mut written = from.config().clone();
        for (field, value) in config {
            written.insert((*field).to_owned(), value.clone());
        }
        let read = |entry: &Entry| change(entry, from.read_f32(&entry.name).unwrap());
        let tensors: Vec<_> = from.tensors().iter().flat_map(read).collect();
        let spec = |(name, shape, _): &(String, Vec<u64>, Vec<f32>)| TensorSpec {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: shape.clone(),
        };
        let specs = tensors.iter().map(spec).collect();
        let writer = ModelWriter::create(to.path(), &written, specs, MOST_SHARD_BYTES).unwrap();
        for (name, _, numbers) in &tensors {
            writer.write_f32(name, numbers).unwrap();
        }
        writer.finish(Durability::Buffered).unwrap();
        to
    }

    fn same(entry: &Entry, numbers: Vec<f32>) -> Vec<(String, Vec<u64>, Vec<f32>)> {
        vec![(entry.name.clone(), entry.shape.clone(), numbers)]
    }

    fn opened(folder: &TempDir) -> Result<Network, OpenError> {
        open(&ModelFolder::open(folder.path()).unwrap(), Storage::Dense, &Device::flex())
    }

    fn refused(folder: &TempDir) -> String {
        let error = opened(folder).unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}").replace(&folder.path().display().to_string(), "F")
    }

    #[test]
    fn what_is_not_known_is_said() {
        let with = |name: &str, field: &str, value: Value| refused(&changed(name, &[(field, value)], same));
        assert_eq!(
            with("llama", "model_type", "mamba".into()),
            "F: `config.json` says `model_type` `mamba`; `llama`, `internlm2` and `t5` are known"
        );
        assert_eq!(
            with("t5_v10", "architectures", serde_json::json!(["T5EncoderModel"])),
            "F: `config.json` says `architectures` `T5EncoderModel`; `T5ForConditionalGeneration` is known"
        );
        assert_eq!(
            with("llama", "rope_parameters", serde_json::json!({ "rope_type": "spiral" })),
            "F: `config.json`: `rope_parameters.rope_type`: `spiral` is not known; \
             `default`, `linear`, `dynamic` and `llama3` are"
        );
        assert_eq!(
            with("t5_v10", "feed_forward_proj", "gated-mish".into()),
            "F: `config.json`: `feed_forward_proj`: `gated-mish` is not known; \
             `relu`, `gelu`, `gelu_new` and `silu` are, alone or after `gated-`"
        );
        assert_eq!(
            with("t5_v10", "relative_attention_max_distance", 16.into()),
            "F: `config.json`: `relative_attention_max_distance`: is above half of the 32 buckets, not 16"
        );
        assert_eq!(
            with("t5_v10", "decoder_start_token_id", 150.into()),
            "F: `config.json`: `decoder_start_token_id`: 150 is no token of a vocabulary of 150"
        );
        assert_eq!(with("t5_v10", "d_ff", Value::Null), "F: `config.json`: `d_ff`: is missing");
        // By its network alone.
        assert!(opened(&changed("t5_v10", &[("model_type", Value::Null)], same)).is_ok());
    }

    #[test]
    fn tensors_that_do_not_fit_are_named_with_their_file() {
        let drop = |name: &'static str| {
            move |entry: &Entry, numbers| if entry.name == name { Vec::new() } else { same(entry, numbers) }
        };
        let missing = |model: &str, name: &'static str| refused(&changed(model, &[], drop(name)));
        for (model, name) in [
            ("t5_v11", "lm_head.weight"),
            ("t5_v10", "shared.weight"),
            ("t5_v10", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
            ("t5_v11", "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"),
            ("internlm2", "model.layers.1.attention.wqkv.weight"),
            ("llama", "model.norm.weight"),
        ] {
            assert_eq!(missing(model, name), format!("F: there is no tensor `{name}`"));
        }
        let more = changed("t5_v10", &[], |entry, numbers| {
            let mut found = same(entry, numbers);
            if entry.name == "shared.weight" {
                found.push(("decoder.block.2.layer_norm.weight".to_owned(), vec![1], vec![0.0]));
            }
            found
        });
        assert_eq!(
            refused(&more),
            "F/model.safetensors: tensor `decoder.block.2.layer_norm.weight` belongs to no part of the \
             model that `config.json` describes"
        );
        assert_eq!(
            refused(&changed("t5_v11", &[("d_kv", 6.into())], same)),
            "F/model.safetensors: tensor `encoder.block.0.layer.0.SelfAttention.q.weight` has shape \
             [32, 32], and `config.json` makes it [24, 32]"
        );
        assert_eq!(
            refused(&changed("internlm2", &[("num_key_value_heads", 4.into())], same)),
            "F/model.safetensors: tensor `model.layers.0.attention.wqkv.weight` has shape [64, 32], and \
             `config.json` makes it [96, 32]"
        );
    }

    /// As files have it that transformers 4 wrote, and as some converters do.
    #[test]
    fn repeated_embeddings_are_taken_for_what_they_are() {
        let repeated = |names: &'static [&'static str], less: f32| {
            move |entry: &Entry, numbers: Vec<f32>| {
                let mut found = same(entry, numbers.clone());
                if entry.name == "shared.weight" {
                    let numbers: Vec<f32> = numbers.iter().map(|number| number - less).collect();
                    let more = |name: &&str| ((*name).to_owned(), entry.shape.clone(), numbers.clone());
                    found.extend(names.iter().map(more));
                }
                found
            }
        };
        let all = &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
        let mut tied = opened(&changed("t5_v10", &[], repeated(all, 0.0))).unwrap();
        assert!(!tied.names().contains(&"lm_head.weight".to_owned()));
        let mut own = opened(&changed("t5_v10", &[], repeated(&["lm_head.weight"], 1.0))).unwrap();
        assert_eq!(own.head_name(), "lm_head.weight");
        assert_eq!(own.names().last().unwrap(), "lm_head.weight");
        assert_eq!(
            refused(&changed("t5_v10", &[], repeated(&["encoder.embed_tokens.weight"], 1.0))),
            "F/model.safetensors: tensor `encoder.embed_tokens.weight` should repeat `shared.weight`, \
             and has other numbers"
        );
        let renamed = changed("t5_v10", &[], |entry, numbers| {
            let name = entry.name.replace("shared.weight", "encoder.embed_tokens.weight");
            vec![(name, entry.shape.clone(), numbers)]
        });
        assert_eq!(opened(&renamed).unwrap().head_name(), "shared.weight");
    }

    /// Since version 5 transformers says of a 1.1 model that it is tied, and writes its head.
    #[test]
    fn scaling_is_what_the_configuration_says_or_implies() {
        let scaled = |name: &str, config: &[(&str, Value)]| {
            let changed = changed(name, config, same);
            let folder = ModelFolder::open(changed.path()).unwrap();
            let device = Device::flex();
            let mut tensors = FolderTensors::new(&folder, Storage::Dense, &device);
            let config = crate::models::t5::T5Config::read(folder.config()).unwrap();
            let model = T5ForConditionalGeneration::open(config, &mut tensors).unwrap();
            (model.config.scaled, model.config.tied)
        };
        assert_eq!(scaled("t5_v10", &[]), (true, true));
        assert_eq!(scaled("t5_v11", &[]), (false, false));
        let newer = [("tie_word_embeddings", true.into()), ("scale_decoder_outputs", false.into())];
        assert_eq!(scaled("t5_v11", &newer), (false, false));
    }

    #[test]
    fn a_saved_model_is_the_same_model() {
        for name in ["llama", "internlm2", "t5_v10", "t5_v11", "t5_other"] {
            let (folder, to) = (ModelFolder::open(golden(name)).unwrap(), TempDir::new().unwrap());
            let mut model = open(&folder, Storage::Dense, &Device::flex()).unwrap();
            save(&mut model, folder.config(), to.path(), &Device::flex()).unwrap();
            let saved = ModelFolder::open(to.path()).unwrap();
            let names = |folder: &ModelFolder| -> Vec<(String, Vec<u64>)> {
                folder.tensors().iter().map(|entry| (entry.name.clone(), entry.shape.clone())).collect()
            };
            assert_eq!(names(&saved), names(&folder), "{name}");
            for entry in folder.tensors() {
                let bytes = |folder: &ModelFolder| folder.raw(&entry.name).unwrap().to_vec();
                assert_eq!(bytes(&saved), bytes(&folder), "{name}: {}", entry.name);
            }
        }
    }
}
