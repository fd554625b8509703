//! Doing it: what runs when, and one stage from its inputs to its committed outputs.

pub(crate) mod demand;
pub(crate) mod events;
pub(crate) mod executor;
pub(crate) mod fixed;
pub(crate) mod repair;
pub(crate) mod scheduler;
pub(crate) mod worker;
