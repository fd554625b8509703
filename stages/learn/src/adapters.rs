//! What is learnt beside frozen weights.

mod lora;

pub use lora::Lora;
pub(crate) use lora::{Adapter, Dropout, save};
