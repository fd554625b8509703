//! Models: one file each, with the names and the numbers of transformers.

mod cache;
pub(crate) mod chemnet;
mod config;
pub(crate) mod deberta;
mod drawn;
pub(crate) mod internlm2;
pub(crate) mod llama;
mod network;
mod open;
mod source;
pub(crate) mod t5;
mod tensors;

pub use chemnet::{ChemNet, ChemNetError};
pub use config::UnusableConfig;
pub use drawn::{DrawError, shape, shapes, write_random};
pub(crate) use llama::Spelling;
pub(crate) use network::Network;
pub use open::OpenError;
pub(crate) use open::{open, save};
#[cfg(test)]
pub(crate) use source::Source;
pub(crate) use source::Untrained;
pub use tensors::TensorError;

/// What hides a token from others. Large, and not infinite: a row of nothing but filling has
/// nothing to look at, and must not become NaN.
const HIDDEN: f32 = -1e30;
