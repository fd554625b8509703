//! Robust DPO: Chowdhury et al., 2024, eq. 11: DPO's loss, made unbiased where a share of the
//! preferences is the wrong way round:
//! `(-(1 - e) log sigmoid(x) + e log sigmoid(-x)) / (1 - 2 e)`.
//!
//! `beta` defaults to 0.1 and `label_smoothing`, the share, to 0.1: TRL's example values.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, below_half, default_beta, log_sigmoid};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// DPO that allows for preferences that are the wrong way round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RobustDpo {
    /// How strongly the model is held to the reference.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The share of preferences that are the wrong way round.
    #[serde(default = "default_label_smoothing")]
    pub label_smoothing: f64,
}

fn default_label_smoothing() -> f64 {
    0.1
}

impl Loss for RobustDpo {
    fn feed(&self) -> Feed {
        Feed::Pairs
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        below_half("label_smoothing", self.label_smoothing)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let rewards = [self.beta * example.chosen.ratio(), self.beta * example.rejected().ratio()];
        let (margin, wrong) = (rewards[0] - rewards[1], self.label_smoothing);
        let ((likely, gradient), (unlikely, other_gradient)) = (log_sigmoid(margin), log_sigmoid(-margin));
        let loss = (-(1.0 - wrong) * likely + wrong * unlikely) / (1.0 - 2.0 * wrong);
        let gradient = (-(1.0 - wrong) * gradient - wrong * other_gradient) / (1.0 - 2.0 * wrong);
        Share::of_pair(micro_batch, loss, [self.beta * gradient, -self.beta * gradient], rewards)
    }
}
