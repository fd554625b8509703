//! Running a plan: what runs when, and each stage from its inputs to its committed outputs.

pub(crate) mod demand;
pub(crate) mod events;
pub(crate) mod executor;
pub(crate) mod fixed;
pub(crate) mod outputs;
pub(crate) mod repair;
pub(crate) mod scheduler;
pub(crate) mod worker;
