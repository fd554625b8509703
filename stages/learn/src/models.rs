//! Models: one file each, with the names and the numbers of transformers.

mod config;
pub(crate) mod llama;
mod open;

pub use config::UnusableConfig;
pub use open::OpenError;
pub(crate) use open::{open, save};
