//! QLoRA: Dettmers et al., 2023: LoRA beside projections that are packed into NF4.
//!
//! What is packed is what PEFT and bitsandbytes pack: the projections of the blocks, and neither
//! the embedding nor the head nor the norms. The packed weights stay packed in memory; each is
//! unpacked for its product and dropped, forwards and backwards. The defaults are LoRA's, and
//! double quantisation: Less for More, section 4.

use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::CheckAdapter;
use super::lora::Lora;

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// How low-rank adapters are made beside weights in four bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Qlora {
    /// The rank.
    #[serde(default = "super::lora::default_r")]
    pub r: u32,
    /// What the product is scaled by, times the rank.
    #[serde(default = "super::lora::default_alpha")]
    pub alpha: f64,
    /// The share of an adapter's inputs that a training step leaves out.
    #[serde(default = "super::lora::default_dropout")]
    pub dropout: f64,
    /// The projections that get one, by the last part of their name; all but the head if empty.
    #[serde(default)]
    pub target_modules: Vec<String>,
    /// Whether the scales of the blocks are packed too, in eight bits.
    #[serde(default = "default_double_quantization")]
    pub double_quantization: bool,
}

fn default_double_quantization() -> bool {
    true
}

impl Qlora {
    /// Returns the adapters by themselves.
    pub fn lora(&self) -> Lora {
        let Self { r, alpha, dropout, target_modules, .. } = self.clone();
        Lora { r, alpha, dropout, target_modules }
    }
}

impl CheckAdapter for Qlora {
    fn check(&self) -> Result<(), FieldError> {
        self.lora().check()
    }
}
