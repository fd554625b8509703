//! Model folders: weights in by name, and out again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value};
use weights::{Dtype, Durability, MOST_SHARD_BYTES, ModelFolder, ModelWriter, TensorSpec};

use super::config::UnusableConfig;
use super::internlm2;
use super::llama::{self, LlamaForCausalLM};
use super::network::Network;
use super::source::Source;
use super::t5::{self, T5ForConditionalGeneration};
use crate::parameters::Parameters;

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
    /// A tensor is not there.
    #[error("{}: there is no tensor `{tensor}`", .folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{tensor}` has shape {found:?}, and `config.json` makes it {expected:?}", .file.display())]
    Shape {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// The shape it should have.
        expected: Vec<u64>,
    },
    /// A tensor belongs to no part of the model.
    #[error("{}: tensor `{tensor}` belongs to no part of the model that `config.json` describes", .file.display())]
    Extra {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that repeats another one has other numbers.
    #[error("{}: tensor `{tensor}` should repeat `{other}`, and has other numbers", .file.display())]
    Differs {
        /// The file that the tensor is in.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The one that it should repeat.
        other: &'static str,
    },
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

/// The types of models that are known, each with the names of its network.
const KNOWN: [(&str, &[&str]); 3] = [
    ("llama", &["LlamaForCausalLM", "LLaMAForCausalLM"]),
    ("internlm2", &["InternLM2ForCausalLM"]),
    ("t5", &["T5ForConditionalGeneration", "T5WithLMHeadModel"]),
];

fn known_types() -> String {
    let types: Vec<String> = KNOWN.iter().map(|(found, _)| format!("`{found}`")).collect();
    let (last, others) = types.split_last().expect("some are known");
    format!("{} and {last}", others.join(", "))
}

/// Finds out which of the known types a folder is of.
fn known_type(folder: &ModelFolder) -> Result<&'static str, OpenError> {
    let path = || folder.path().to_owned();
    let listed = folder.architectures();
    let by_type = folder.model_type().map(|found| KNOWN.iter().find(|(known, _)| *known == found));
    let by_network =
        || KNOWN.iter().find(|(_, networks)| networks.iter().any(|known| listed.contains(known)));
    // A configuration without a type is known by its network alone.
    let Some((known, networks)) = by_type.unwrap_or_else(by_network) else {
        let found = folder.model_type().map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`"));
        return Err(OpenError::UnknownType { folder: path(), found });
    };
    match listed.first() {
        Some(found) if !listed.iter().any(|listed| networks.contains(listed)) => {
            let found = (*found).to_owned();
            Err(OpenError::UnknownArchitecture { folder: path(), found, known: networks[0] })
        }
        _ => Ok(known),
    }
}

/// Reads tensors of a folder, each checked against what is asked for.
struct Read<'a> {
    folder: &'a ModelFolder,
    device: &'a Device,
    seen: BTreeSet<String>,
    /// Tensors that are in the folder under another name.
    found_as: BTreeMap<&'static str, &'static str>,
}

impl Read<'_> {
    fn numbers(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, OpenError> {
        let folder = || self.folder.path().to_owned();
        let name = self.found_as.get(name).copied().unwrap_or(name);
        let missing = || OpenError::Missing { folder: folder(), tensor: name.to_owned() };
        let tensor = self.folder.tensor(name).ok_or_else(missing)?;
        let expected: Vec<u64> = expected.iter().map(|size| *size as u64).collect();
        if tensor.shape != expected {
            let (file, found) = (self.folder.path().join(&tensor.file), tensor.shape.clone());
            return Err(OpenError::Shape { file, tensor: name.to_owned(), found, expected });
        }
        self.seen.insert(name.to_owned());
        self.folder.read_f32(name).map_err(|source| OpenError::Folder { folder: folder(), source })
    }

    /// Says whether the folder has both tensors, with the same numbers.
    fn repeats(&self, one: &str, other: &str) -> Result<bool, OpenError> {
        let [Some(found), Some(wanted)] = [one, other].map(|name| self.folder.tensor(name)) else {
            return Ok(false);
        };
        let raw = |name: &str| {
            let folder = || self.folder.path().to_owned();
            self.folder.raw(name).map_err(|source| OpenError::Folder { folder: folder(), source })
        };
        Ok(found.shape == wanted.shape && found.dtype == wanted.dtype && raw(one)? == raw(other)?)
    }

    /// Says whether the head is the embedding: a folder that has a head with other numbers has one
    /// of its own, whatever the configuration says; so does transformers 5.
    fn is_tied(&self, configured: bool, head: &str, embedding: &str) -> Result<bool, OpenError> {
        Ok(configured && (self.folder.tensor(head).is_none() || self.repeats(head, embedding)?))
    }

    fn file(&self, tensor: &str) -> PathBuf {
        let file = self.folder.tensor(tensor).map(|tensor| tensor.file.as_str());
        self.folder.path().join(file.unwrap_or_default())
    }
}

impl Source<OpenError> for Read<'_> {
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, OpenError> {
        Ok(Tensor::from_data(TensorData::new(self.numbers(name, &shape)?, shape), self.device))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, OpenError> {
        Ok(Tensor::from_data(TensorData::new(self.numbers(name, &[length])?, [length]), self.device))
    }
}

/// Opens a model and checks that every tensor of its folder has a place in it.
pub(crate) fn open(folder: &ModelFolder, device: &Device) -> Result<Network, OpenError> {
    let known = known_type(folder)?;
    let unusable = |source| OpenError::Config { folder: folder.path().to_owned(), source };
    let mut read = Read { folder, device, seen: BTreeSet::new(), found_as: BTreeMap::new() };
    let network = match known {
        "t5" => {
            let config = t5::Config::read(folder.config()).map_err(unusable)?;
            Network::EncoderDecoder(read_t5(config, &mut read)?)
        }
        known => {
            let config = match known {
                "internlm2" => internlm2::read(folder.config()),
                _ => llama::Config::read(folder.config()),
            };
            Network::Decoder(read_llama(config.map_err(unusable)?, &mut read)?)
        }
    };
    match folder.tensors().iter().find(|tensor| !read.seen.contains(&tensor.name)) {
        Some(extra) => {
            let (file, tensor) = (folder.path().join(&extra.file), extra.name.clone());
            Err(OpenError::Extra { file, tensor })
        }
        None => Ok(network),
    }
}

fn read_llama(mut config: llama::Config, read: &mut Read<'_>) -> Result<LlamaForCausalLM, OpenError> {
    let (embedding, head) = config.spelling.embedding_and_head();
    config.tied = read.is_tied(config.tied, head, embedding)?;
    if config.tied {
        read.seen.insert(head.to_owned());
    }
    // What older versions of transformers wrote beside the weights.
    let left_over = read.folder.tensors().iter().map(|tensor| &tensor.name);
    read.seen.extend(left_over.filter(|name| name.ends_with("rotary_emb.inv_freq")).cloned());
    LlamaForCausalLM::build(config, read.device, read)
}

fn read_t5(mut config: t5::Config, read: &mut Read<'_>) -> Result<T5ForConditionalGeneration, OpenError> {
    const SHARED: &str = "shared.weight";
    const HEAD: &str = "lm_head.weight";
    const REPEATED: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
    // What the first version of transformers wrote and never used.
    read.seen.insert("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight".to_owned());
    let has = |name: &&str| read.folder.tensor(name).is_some();
    let embedding = [SHARED].into_iter().chain(REPEATED).find(has).unwrap_or(SHARED);
    read.found_as.insert(SHARED, embedding);
    for repeated in REPEATED.into_iter().filter(|repeated| read.folder.tensor(repeated).is_some()) {
        if !read.repeats(repeated, embedding)? {
            let (file, tensor) = (read.file(repeated), repeated.to_owned());
            return Err(OpenError::Differs { file, tensor, other: embedding });
        }
        read.seen.insert(repeated.to_owned());
    }
    config.tied = read.is_tied(config.tied, HEAD, embedding)?;
    if config.tied {
        read.seen.insert(HEAD.to_owned());
    }
    T5ForConditionalGeneration::build(config, read)
}

/// Writes a model in single floats, with a configuration.
pub(crate) fn save(
    model: &mut Network,
    config: &Map<String, Value>,
    folder: &Path,
) -> Result<(), weights::ModelError> {
    let (mut tensors, mut specs) = (Vec::new(), Vec::new());
    model.visit(&mut |name, slot| {
        if !name.contains(".lora_") {
            let shape = slot.shape().iter().map(|size| *size as u64).collect();
            specs.push(TensorSpec { name: name.clone(), dtype: Dtype::F32, shape });
            tensors.push((name, slot.flat()));
        }
    });
    let writer = ModelWriter::create(folder, config, specs, MOST_SHARD_BYTES)?;
    for (name, numbers) in tensors {
        let numbers = numbers.into_data().try_into_vec::<f32>().expect("parameters are single floats");
        writer.write_f32(&name, &numbers)?;
    }
    writer.finish(Durability::Buffered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;
    use weights::Tensor as Entry;

    fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

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
        open(&ModelFolder::open(folder.path()).unwrap(), &Device::flex())
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
        let scaled = |name: &str, config: &[(&str, Value)]| match opened(&changed(name, config, same)) {
            Ok(Network::EncoderDecoder(model)) => (model.config.scaled, model.config.tied),
            other => unreachable!("{other:?}"),
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
            let mut model = open(&folder, &Device::flex()).unwrap();
            save(&mut model, folder.config(), to.path()).unwrap();
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
