//! What several kinds share: rows in and out, prompts, devices, memory.

pub(crate) mod adapters;
pub(crate) mod devices;
pub(crate) mod examples;
pub(crate) mod judgements;
pub(crate) mod kept;
pub(crate) mod memory;
pub(crate) mod parallel;
pub(crate) mod prompts;
pub(crate) mod rows;
pub(crate) mod tensorboard;
#[cfg(test)]
pub(crate) mod testing;
