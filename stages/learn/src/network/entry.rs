//! What a model's file says of it in the list of models.

use choice::FieldError;
use std::fmt::Debug;

use serde_json::{Map, Value};

use super::config::UnusableConfig;
use super::language_model::Network;
use super::outline::Outline;
use super::source::{TensorError, WeightSource};
use super::tensors::FolderTensors;

/// Reads something from `config.json`.
pub(crate) type ReadConfig<T> = fn(&Map<String, Value>) -> Result<T, UnusableConfig>;

/// A kind of model that can be opened, trained and written with.
pub(crate) struct LanguageModelEntry {
    /// What `config.json` has as `model_type`.
    pub model_type: &'static str,
    /// What it has in `architectures`; the first is what is said to be known.
    pub architectures: &'static [&'static str],
    /// Reads `config.json`.
    pub read: ReadConfig<Box<dyn ModelConfig>>,
}

/// A kind of model that reads texts and writes none.
pub(crate) struct EncoderEntry {
    /// What `config.json` has as `model_type`, if there is one.
    pub model_type: Option<&'static str>,
    /// What the network is called.
    pub architecture: &'static str,
    /// Reads `config.json`, as far as memory goes.
    pub outline: Option<ReadConfig<Outline>>,
}

/// The configuration of a language model.
pub(crate) trait ModelConfig: Debug {
    /// Makes the model of a folder's tensors, some of which may lie under other names or twice.
    fn open(&self, tensors: &mut FolderTensors<'_>) -> Result<Network, TensorError>;

    /// Says whether a folder may hold a tensor that the model does not have.
    fn may_lie_beside(&self, _tensor: &str) -> bool {
        false
    }

    /// Makes the model of what a source has.
    fn build(&self, source: &mut dyn WeightSource) -> Result<Network, TensorError>;

    /// Returns what memory is estimated from.
    fn outline(&self) -> Outline;

    /// Writes `config.json` for a model made from scratch.
    fn write(&self) -> Map<String, Value>;

    /// Returns how far the first numbers of a matrix are spread, as transformers draws them.
    fn initial_std(&self, parameter: &str) -> f64;
}

/// The sizes of a model made from scratch.
pub trait Shape {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), FieldError>;
}

/// Sizes that a configuration can be made of.
pub(crate) trait FromScratch {
    /// Returns the configuration of such a model with a vocabulary of this size, in which `pad` fills
    /// a text.
    fn model_config(&self, vocabulary_size: usize, pad: u32) -> Box<dyn ModelConfig>;
}
