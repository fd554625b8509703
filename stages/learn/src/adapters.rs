//! What is learned beside frozen weights.

mod check;
mod lora;
mod qlora;

use choice::choices;

pub use check::CheckAdapter;
pub use lora::Lora;
pub use qlora::Qlora;

choices! {
    /// What is learned instead of all weights.
    pub enum AdapterMethod: CheckAdapter in "adapter" {
        /// A low-rank product beside each projection.
        lora::Lora,
        /// The same beside projections in four bits.
        qlora::Qlora,
    }
}
