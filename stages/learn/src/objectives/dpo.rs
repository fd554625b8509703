//! DPO: Rafailov et al., 2023, eq. 7:
//! `-log sigmoid(beta (log pi/ref(y_w|x) - log pi/ref(y_l|x)))`.
//!
//! `beta` defaults to 0.1: the paper, TRL, and Less for More, section 4. `label_smoothing` is
//! cDPO's (Mitchell, 2023, eq. 3). `alpha` adds the target's negative log-likelihood, as TRL's
//! `loss_type = ["sigmoid", "sft"]` does. Log-probabilities are sums over the output's tokens and
//! the loss is the mean over pairs.

use super::loss::{
    Feed, Loss, MicroBatch, Outputs, Share, above_0, below_half, default_beta, from_0, smoothed,
};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Direct preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dpo {
    /// How strongly the model is held to the reference.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The share of preferences that are taken to be the wrong way round.
    #[serde(default)]
    pub label_smoothing: f64,
    /// The weight of the target's negative log-likelihood.
    #[serde(default)]
    pub alpha: f64,
}

impl Loss for Dpo {
    fn feed(&self) -> Feed {
        Feed::Pairs
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        below_half("label_smoothing", self.label_smoothing)?;
        from_0("alpha", self.alpha)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let rewards = [self.beta * example.chosen.ratio(), self.beta * example.rejected().ratio()];
        let (loss, gradient) = smoothed(rewards[0] - rewards[1], self.label_smoothing);
        let gradients = [self.beta * gradient, -self.beta * gradient];
        let share = Share::of_pair(micro_batch, loss, gradients, rewards);
        share.with_likelihood(self.alpha, &example.chosen, micro_batch)
    }
}
