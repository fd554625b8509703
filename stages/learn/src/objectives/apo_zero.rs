//! APO-zero: D'Oosterlinck et al., 2024, eq. 5: `-sigmoid(r_w) + sigmoid(r_l)`, with rewards
//! `r = beta log pi/ref`: the chosen output becomes likelier and the rejected one less so, each
//! by itself. It is for chosen outputs that are better than the model's own.
//!
//! `beta` defaults to 0.1: TRL, which adds 1 to make the least loss 0, as is done here.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, default_beta, sigmoid};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Anchored preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApoZero {
    /// How strongly the model is held to the reference.
    #[serde(default = "default_beta")]
    pub beta: f64,
}

impl Loss for ApoZero {
    fn feed(&self) -> Feed {
        Feed::Pairs
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let rewards = [self.beta * example.chosen.ratio(), self.beta * example.rejected().ratio()];
        let ((chosen, chosen_gradient), (rejected, rejected_gradient)) =
            (sigmoid(rewards[0]), sigmoid(rewards[1]));
        let gradients = [-self.beta * chosen_gradient, self.beta * rejected_gradient];
        Share::of_pair(micro_batch, 1.0 - chosen + rejected, gradients, rewards)
    }
}
