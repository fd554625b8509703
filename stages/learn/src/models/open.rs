//! Model folders: weights in by name, and out again.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, Value};
use weights::{Dtype, Durability, MOST_SHARD_BYTES, ModelFolder, ModelWriter, TensorSpec};

use super::config::UnusableConfig;
use super::llama::{Config, LlamaForCausalLM, Source};
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
    #[error("{}: `config.json` says `model_type` {found}; `llama` is known", .folder.display())]
    UnknownType {
        /// The folder.
        folder: PathBuf,
        /// The type.
        found: String,
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
    #[error("{}: tensor `{tensor}` has shape {found:?}, and `config.json` makes it {expected:?}", .folder.display())]
    Shape {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// The shape it should have.
        expected: Vec<u64>,
    },
    /// A tensor belongs to no part of the model.
    #[error("{}: tensor `{tensor}` belongs to no part of the model that `config.json` describes", .folder.display())]
    Extra {
        /// The folder.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
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

/// Reads tensors of a folder, each checked against what is asked for.
struct Read<'a> {
    folder: &'a ModelFolder,
    device: &'a Device,
    seen: std::collections::BTreeSet<String>,
}

impl Read<'_> {
    fn numbers(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, OpenError> {
        let folder = || self.folder.path().to_owned();
        let missing = || OpenError::Missing { folder: folder(), tensor: name.to_owned() };
        let tensor = self.folder.tensor(name).ok_or_else(missing)?;
        let expected: Vec<u64> = expected.iter().map(|size| *size as u64).collect();
        if tensor.shape != expected {
            let (tensor, found) = (name.to_owned(), tensor.shape.clone());
            return Err(OpenError::Shape { folder: folder(), tensor, found, expected });
        }
        self.seen.insert(name.to_owned());
        self.folder.read_f32(name).map_err(|source| OpenError::Folder { folder: folder(), source })
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
pub(crate) fn open(folder: &ModelFolder, device: &Device) -> Result<LlamaForCausalLM, OpenError> {
    let path = || folder.path().to_owned();
    match folder.model_type() {
        Some("llama") => {}
        found => {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`"));
            return Err(OpenError::UnknownType { folder: path(), found });
        }
    }
    let config =
        Config::read(folder.config()).map_err(|source| OpenError::Config { folder: path(), source })?;
    let mut read = Read { folder, device, seen: std::collections::BTreeSet::new() };
    let model = LlamaForCausalLM::build(config, device, &mut read)?;
    // What older versions of transformers wrote beside the weights, and what a tied head repeats.
    let is_known =
        |name: &str| name.ends_with("rotary_emb.inv_freq") || (model.config.tied && name == "lm_head.weight");
    let extra =
        folder.tensors().iter().find(|tensor| !read.seen.contains(&tensor.name) && !is_known(&tensor.name));
    match extra {
        Some(extra) => Err(OpenError::Extra { folder: path(), tensor: extra.name.clone() }),
        None => Ok(model),
    }
}

/// Writes a model in single floats, with a configuration.
pub(crate) fn save(
    model: &mut LlamaForCausalLM,
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
