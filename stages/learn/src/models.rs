//! Models: one file each, with the names and the numbers of transformers.

pub(crate) mod chemnet;
mod config;
pub(crate) mod deberta;
pub(crate) mod llama;
mod open;

pub use chemnet::{ChemNet, ChemNetError};
pub use config::UnusableConfig;
pub use deberta::TensorError;
pub use open::OpenError;
pub(crate) use open::{open, save};
