//! Models: one file each, with the names and the numbers of transformers.

mod cache;
pub(crate) mod chemnet;
pub(crate) mod config;
pub(crate) mod deberta;
pub(crate) mod decoding;
mod drawn;
pub(crate) mod internlm2;
pub(crate) mod llama;
pub(crate) mod memory_estimate;
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
