//! Models: one file each, with the names and the numbers of transformers.

mod cache;
pub(crate) mod chemnet;
mod config;
pub(crate) mod deberta;
pub(crate) mod internlm2;
pub(crate) mod llama;
mod network;
mod open;
mod source;
pub(crate) mod t5;

pub use chemnet::{ChemNet, ChemNetError};
pub use config::UnusableConfig;
pub use deberta::TensorError;
pub(crate) use network::Network;
pub use open::OpenError;
pub(crate) use open::{open, save};
#[cfg(test)]
pub(crate) use source::Source;
pub(crate) use source::Untrained;

/// What hides a token from others. Large, and not infinite: a row of nothing but filling has
/// nothing to look at, and must not become NaN.
const HIDDEN: f32 = -1e30;
