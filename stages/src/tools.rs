//! What commands need beyond stages: measuring and describing models, importing recipes.

pub(crate) mod bench;
pub(crate) mod bench_matmul;
pub(crate) mod bench_training;
pub(crate) mod mergekit;
pub(crate) mod model_needs;
