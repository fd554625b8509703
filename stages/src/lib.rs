//! The stage kinds: `ls stages/src` is the list of them.
//!
//! Only this crate knows both worlds: the engine's stages and the libraries that do the work.
//! A file here is glue, and short.
//!
//! ```
//! assert!(stages::KINDS.iter().any(|kind| kind.name() == "subset"));
//! ```

pub mod artifacts;
mod command;
mod compose;
mod evaluate;
mod generate;
mod judge;
mod merge;
mod negatives;
mod reference;
mod source;
mod subset;
mod support;
mod tokenizer;
mod tools;
mod train;

use engine::Kind;

pub use evaluate::{Better, MetricSummary, metrics};
pub use learn::{KnownModel, Precision, known_models};
pub use source::describe_model;
pub use support::devices::{check_device, devices};
pub use tools::bench::{
    ModelBench, ModelMeasured, bench_model, check_shape, check_weight_type, write_random_model,
};
pub use tools::bench_matmul::{MatmulMeasured, bench_matmul};
pub use tools::bench_training::{
    QloraBench, QloraMeasured, TrainBench, TrainMeasured, bench_qlora, bench_train,
};
pub use tools::mergekit::import_mergekit;
pub use tools::model_needs::{ModelNeeds, model_needs};

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
