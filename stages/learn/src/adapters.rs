//! What is learnt beside frozen weights.

mod lora;
mod qlora;

use choice::choices;

pub use lora::Lora;
pub(crate) use lora::{Adapter, Dropout, save};
pub use qlora::Qlora;

choices! {
    /// What is learnt instead of all weights.
    pub enum AdapterMethod: CheckAdapter in "adapter" {
        /// A low-rank product beside each projection.
        lora::Lora,
        /// The same beside projections in four bits.
        qlora::Qlora,
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
