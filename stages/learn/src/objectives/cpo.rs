//! CPO: Xu et al., 2024, eq. 5 and 6:
//! `-log sigmoid(beta (log pi(y_w|x) - log pi(y_l|x)))` plus `alpha` times the negative
//! log-likelihood of `y_w`. There is no reference model.
//!
//! `beta` defaults to 0.1: ALMol, section 3.2, and TRL. `alpha` defaults to 1: the equation, and
//! TRL's `cpo_alpha`. As in TRL, log-probabilities are sums over the output's tokens, the first
//! term is the mean over pairs, and the second one mean over all tokens of the chosen outputs of
//! a micro-batch (not a mean of the sequences' means).

use super::{Divisors, Loss, Outputs, Share, log_sigmoid};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub const VERSION: u32 = 1;

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
}

fn default_beta() -> f64 {
    0.1
}

fn default_alpha() -> f64 {
    1.0
}

impl Loss for Cpo {
    fn is_paired(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), String> {
        match () {
            () if !(self.beta.is_finite() && self.beta > 0.0) => {
                Err(format!("`beta` is a number above 0, not {}", self.beta))
            }
            () if !(self.alpha.is_finite() && self.alpha >= 0.0) => {
                Err(format!("`alpha` is a number from 0, not {}", self.alpha))
            }
            () => Ok(()),
        }
    }

    fn share(&self, example: &Outputs, micro_batch: &Divisors) -> Share {
        let (chosen, rejected) = (example.chosen, example.rejected());
        let (preference, slope) = log_sigmoid(self.beta * (chosen.sum - rejected.sum));
        let pairs = micro_batch.examples as f64;
        let likelihood = self.alpha / micro_batch.target_tokens as f64;
        Share {
            loss: -preference / pairs - likelihood * chosen.sum,
            chosen_slope: -self.beta * slope / pairs - likelihood,
            rejected_slope: self.beta * slope / pairs,
            rewards: Some([self.beta * chosen.sum, self.beta * rejected.sum]),
        }
    }
}
