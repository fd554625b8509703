//! What is learnt beside frozen weights.

mod lora;

use choice::choices;

pub use lora::Lora;
pub(crate) use lora::{Adapter, Dropout, save};

choices! {
    /// What is learnt instead of all weights.
    pub enum AdapterMethod: CheckAdapter in "adapter" {
        /// A low-rank product beside each projection.
        lora::Lora,
    }
}

/// What every adapter can say of its parameters.
pub trait CheckAdapter {
    /// Says what is wrong with them.
    ///
    /// # Errors
    /// The parameter and what it may be.
    fn check(&self) -> Result<(), String>;
}
