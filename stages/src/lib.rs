//! The stage kinds: `ls stages/src` is the list of them.
//!
//! Only this crate knows both worlds: the engine's stages and the libraries that do the work.
//! A file here is glue, and short.
//!
//! ```
//! assert!(stages::KINDS.iter().any(|kind| kind.name() == "subset"));
//! ```

mod adapters;
pub mod artifacts;
mod bench;
mod command;
mod compose;
mod devices;
mod evaluate;
mod examples;
mod generate;
mod judge;
mod judgements;
mod kept;
mod memory;
mod merge;
mod mergekit;
mod negatives;
mod prompts;
mod reference;
mod rows;
mod source;
mod subset;
mod tensorboard;
mod tokenizer;
mod train;

use engine::Kind;

pub use bench::{
    ModelBench, ModelMeasured, QloraBench, QloraMeasured, bench_model, bench_qlora, write_random_model,
};
pub use devices::{check_device, devices};
pub use learn::Precision;
pub use memory::{ModelNeeds, model_needs};
pub use mergekit::import_mergekit;
pub use source::describe_model;

/// All kinds of stages, in the order in which the manual shows them.
pub const KINDS: &[Kind] = &[
    Kind::of::<source::Source>(),
    Kind::of::<compose::Compose>(),
    Kind::of::<tokenizer::Tokenizer>(),
    Kind::of::<subset::Subset>(),
    Kind::of::<negatives::Negatives>(),
    Kind::of::<reference::Reference>(),
    Kind::of::<train::Train>(),
    Kind::of::<merge::Merge>(),
    Kind::of::<generate::Generate>(),
    Kind::of::<judge::Judge>(),
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<command::Command>(),
];
