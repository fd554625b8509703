//! Outputs of a model: one token after the other, the keys and values of earlier ones kept.

mod beam;
pub(crate) mod generation;
mod greedy;
mod sampling;
pub(crate) mod strategy;
mod task;

pub use beam::{Beam, EarlyStopping};
pub use generation::{Generation, generate};
pub use greedy::Greedy;
pub use sampling::Sample;
pub use strategy::Strategy;
pub use task::{CheckStrategy, GenerateError, Generated};
