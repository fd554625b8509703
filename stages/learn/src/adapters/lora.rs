//! LoRA: Hu et al., 2021, eq. 3: `h = W x + (alpha / r) B A x`.
//!
//! `A` begins as PEFT begins it, evenly from `-1/sqrt(in)` to `1/sqrt(in)` (Kaiming's bound at a
//! negative slope of `sqrt 5`), `B` at zero, so that the first step computes what the base does.
//! `r` defaults to 64, `alpha` to 16 and `dropout` to 0.1: Less for More, section 4.

use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::CheckAdapter;

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// How low-rank adapters are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// The rank.
    #[serde(default = "default_r")]
    pub r: u32,
    /// What the product is scaled by, times the rank.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// The share of an adapter's inputs that a training step leaves out.
    #[serde(default = "default_dropout")]
    pub dropout: f64,
    /// The projections that get one, by the last part of their name; all but the head if empty.
    #[serde(default)]
    pub target_modules: Vec<String>,
}

pub(super) fn default_r() -> u32 {
    64
}

pub(super) fn default_alpha() -> f64 {
    16.0
}

pub(super) fn default_dropout() -> f64 {
    0.1
}

impl CheckAdapter for Lora {
    fn check(&self) -> Result<(), FieldError> {
        let Self { r, alpha, dropout, .. } = self;
        if *r == 0 {
            return Err(FieldError::new("r", "`r` is the rank of an adapter: at least 1"));
        }
        if !(alpha.is_finite() && *alpha > 0.0) {
            return Err(FieldError::new("alpha", format!("`alpha` is a number above 0, not {alpha}")));
        }
        if !(0.0..1.0).contains(dropout) {
            let message = format!("`dropout` is a share from 0 to below 1, not {dropout}");
            return Err(FieldError::new("dropout", message));
        }
        Ok(())
    }
}
