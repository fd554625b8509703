//! Hinge: Zhao et al., 2023 (SLiC-HF), eq. 1 and 2: `max(0, 1 - beta (log pi(y_w|x) - log
//! pi(y_l|x)))` plus `alpha` times the negative log-likelihood of `y_w`.
//!
//! As TRL's CPO has it (`loss_type = "hinge"`, `cpo_alpha` 1); with `use_reference` and an
//! `alpha` of 0, on log-ratios to a reference, as TRL's DPO has it. `beta` defaults to 0.1, as
//! in both.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, default_beta, from_0};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// A hinge on the difference of the outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hinge {
    /// How strongly a difference counts: the hinge opens at `1 / beta` nats.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// The weight of the target's negative log-likelihood.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Whether log-ratios to a reference are compared, not log-probabilities.
    #[serde(default)]
    pub use_reference: bool,
}

fn default_alpha() -> f64 {
    1.0
}

impl Loss for Hinge {
    fn feed(&self) -> Feed {
        Feed::Pairs
    }

    fn needs_reference(&self) -> bool {
        self.use_reference
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        from_0("alpha", self.alpha)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let (chosen, rejected) = (example.chosen, example.rejected());
        let rewards = if self.use_reference {
            [self.beta * chosen.ratio(), self.beta * rejected.ratio()]
        } else {
            [self.beta * chosen.sum, self.beta * rejected.sum]
        };
        let short = 1.0 - (rewards[0] - rewards[1]);
        let gradient = if short > 0.0 { self.beta } else { 0.0 };
        Share::of_pair(micro_batch, short.max(0.0), [-gradient, gradient], rewards).with_likelihood(
            self.alpha,
            &chosen,
            micro_batch,
        )
    }
}
