//! APO-zero from single outputs: D'Oosterlinck et al., 2024, as TRL's KTO has it under
//! `loss_type = "apo_zero_unpaired"`: KTO's loss with rewards held against 0, so that no
//! divergence is needed.
//!
//! `beta` defaults to 0.1 and both weights to 1: TRL.

use super::kto::{anchored, default_weight};
use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, default_beta, from_0};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Anchored preference optimisation from single outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApoZeroUnpaired {
    /// How strongly the model is held to the reference.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The weight of desirable outputs.
    #[serde(default = "default_weight")]
    pub desirable_weight: f64,
    /// The weight of undesirable outputs.
    #[serde(default = "default_weight")]
    pub undesirable_weight: f64,
}

impl Loss for ApoZeroUnpaired {
    fn feed(&self) -> Feed {
        Feed::Labelled
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        from_0("desirable_weight", self.desirable_weight)?;
        from_0("undesirable_weight", self.undesirable_weight)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        anchored(example, micro_batch, self.beta, [self.desirable_weight, self.undesirable_weight], 0.0)
    }
}
