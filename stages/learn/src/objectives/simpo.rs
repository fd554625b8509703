//! SimPO: Meng et al., 2024, eq. 6: `-log sigmoid(beta (mean log pi(y_w|x) - mean log pi(y_l|x)) -
//! gamma)`, means over an output's tokens. There is no reference model.
//!
//! `beta` defaults to 2 and `gamma` to 0.5: the paper's section 3, and TRL's `simpo_gamma`. An
//! `alpha` above 0 adds the target's negative log-likelihood: CPO-SimPO.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, below_half, from_0, smoothed};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Simple preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Simpo {
    /// How strongly a difference of log-probabilities per token counts.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// By how much the chosen output's reward is to be the higher one.
    #[serde(default = "default_gamma")]
    pub gamma: f64,
    /// The weight of the target's negative log-likelihood.
    #[serde(default)]
    pub alpha: f64,
    /// The share of preferences that are taken to be the wrong way round.
    #[serde(default)]
    pub label_smoothing: f64,
}

fn default_beta() -> f64 {
    2.0
}

fn default_gamma() -> f64 {
    0.5
}

impl Loss for Simpo {
    fn feed(&self) -> Feed {
        Feed::Pairs
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        from_0("gamma", self.gamma)?;
        from_0("alpha", self.alpha)?;
        below_half("label_smoothing", self.label_smoothing)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let (chosen, rejected) = (example.chosen, example.rejected());
        let tokens = [chosen.tokens as f64, rejected.tokens as f64];
        let rewards = [self.beta * chosen.sum / tokens[0], self.beta * rejected.sum / tokens[1]];
        let (loss, gradient) = smoothed(rewards[0] - rewards[1] - self.gamma, self.label_smoothing);
        let gradients = [self.beta * gradient / tokens[0], -self.beta * gradient / tokens[1]];
        Share::of_pair(micro_batch, loss, gradients, rewards).with_likelihood(
            self.alpha,
            &chosen,
            micro_batch,
        )
    }
}
