//! What will be done: stages with one variant of each axis, their inputs and their keys. Pure.

pub(crate) mod combine;
pub(crate) mod expand;
pub(crate) mod graph;
pub(crate) mod join;
pub(crate) mod key;
pub(crate) mod lookup;
pub(crate) mod memory_forecast;
pub(crate) mod node;
pub(crate) mod order;
pub(crate) mod resolved;
pub(crate) mod seeds;
pub(crate) mod stage_graph;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod wanted;
