//! Models: one file each, with the names and the numbers of transformers.

pub(crate) mod chemnet;
pub(crate) mod deberta;
pub(crate) mod internlm2;
pub(crate) mod llama;
pub(crate) mod t5;

use choice::choices;
use serde_json::{Map, Value};

pub use chemnet::{ChemNet, ChemNetError};

use crate::network::{EncoderEntry, FromScratch, LanguageModelEntry, ModelConfig, Shape};

/// Lists the language models, and makes a choice of those that can be made from scratch.
macro_rules! language_models {
    ($( $module:ident $( { $(#[$meta:meta])* $Shape:ident } )?, )+) => {
        /// The models that are trained and write outputs, each with the name of its file.
        pub(crate) const LANGUAGE_MODELS: &[(&str, LanguageModelEntry)] =
            &[$( (stringify!($module), $module::ENTRY) ),+];

        choices! {
            /// The architecture of a model made from scratch.
            pub enum Architecture: Shape in "model" {
                $( $( $(#[$meta])* $module::$Shape, )? )+
            }
        }

        impl Architecture {
            /// Returns the configuration of such a model with a vocabulary of this size, in which
            /// `pad` fills a text.
            pub(crate) fn model_config(&self, vocabulary_size: usize, pad: u32) -> Box<dyn ModelConfig> {
                match self {
                    $( $( Self::$Shape(shape) => shape.model_config(vocabulary_size, pad), )? )+
                }
            }
        }
    };
}

// Those with a type in braces can be made from scratch.
language_models! {
    llama {
        /// A decoder of LLaMA's kind.
        Llama
    },
    internlm2,
    t5 {
        /// An encoder and a decoder of T5's kind.
        T5
    },
}

/// The models that read texts and write none, each with the name of its file.
pub(crate) const ENCODERS: &[(&str, EncoderEntry)] =
    &[("deberta", deberta::ENTRY), ("chemnet", chemnet::ENTRY)];

impl Architecture {
    /// Returns the `config.json` that such a model has with a vocabulary of this size.
    pub fn config(&self, vocabulary_size: usize) -> Map<String, Value> {
        self.model_config(vocabulary_size, 0).write()
    }
}

/// A model that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownModel {
    /// The file that it is in, below `models`, without its ending.
    pub file: &'static str,
    /// Its `model_type` in `config.json`, if it has a `config.json`.
    pub model_type: Option<&'static str>,
    /// What its network is called in `architectures`.
    pub architecture: &'static str,
}

/// Returns the models that are known: those that write outputs, then those that only read texts.
pub fn known_models() -> Vec<KnownModel> {
    let writing = LANGUAGE_MODELS.iter().map(|(file, entry)| KnownModel {
        file,
        model_type: Some(entry.model_type),
        architecture: entry.architectures[0],
    });
    let reading = ENCODERS.iter().map(|(file, entry)| KnownModel {
        file,
        model_type: entry.model_type,
        architecture: entry.architecture,
    });
    writing.chain(reading).collect()
}
