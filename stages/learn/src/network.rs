//! What every model is made of, and what the rest asks of it.

mod config;
mod decoding;
mod entry;
mod key_value_cache;
mod language_model;
mod outline;
mod source;
mod tensors;

pub(crate) use config::Reader;
pub use config::UnusableConfig;
pub(crate) use decoding::{Continuation, MASK_VALUE};
pub use entry::Shape;
pub(crate) use entry::{EncoderEntry, FromScratch, LanguageModelEntry, ModelConfig};
pub(crate) use key_value_cache::KeyValueCache;
pub(crate) use language_model::{LanguageModel, Network, Segments};
pub(crate) use outline::{LayerStack, Limit, ListedParameter, Outline, list, list_stacks};
pub use source::TensorError;
pub(crate) use source::{RandomInit, WeightSource};
pub(crate) use tensors::FolderTensors;
