//! CPO: Xu et al., 2024, eq. 5 and 6:
//! `-log sigmoid(beta (log pi(y_w|x) - log pi(y_l|x)))` plus `alpha` times the negative
//! log-likelihood of `y_w`. There is no reference model.
//!
//! `beta` defaults to 0.1: ALMol, section 3.2, and TRL. `alpha` defaults to 1: the equation, and
//! TRL's `cpo_alpha`. As in TRL, log-probabilities are sums over the output's tokens, the first
//! term is the mean over pairs, and the second one mean over all tokens of the chosen outputs of
//! a micro-batch (not a mean of the sequences' means).

use super::loss::{
    Feed, Loss, MicroBatch, Outputs, Share, above_0, below_half, default_beta, from_0, smoothed,
};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Contrastive preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cpo {
    /// How strongly a difference of log-probabilities counts.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The weight of the target's negative log-likelihood.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// The share of preferences that are taken to be the wrong way round.
    #[serde(default)]
    pub label_smoothing: f64,
}

fn default_alpha() -> f64 {
    1.0
}

impl Loss for Cpo {
    fn feed(&self) -> Feed {
        Feed::Pairs
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        from_0("alpha", self.alpha)?;
        below_half("label_smoothing", self.label_smoothing)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let (chosen, rejected) = (example.chosen, example.rejected());
        let (loss, gradient) = smoothed(self.beta * (chosen.sum - rejected.sum), self.label_smoothing);
        let gradients = [self.beta * gradient, -self.beta * gradient];
        let rewards = [self.beta * chosen.sum, self.beta * rejected.sum];
        Share::of_pair(micro_batch, loss, gradients, rewards).with_likelihood(
            self.alpha,
            &chosen,
            micro_batch,
        )
    }
}
