//! IPO: Azar et al., 2023, eq. 17: `(log pi/ref(y_w|x) - log pi/ref(y_l|x) - 1 / (2 beta))^2`.
//!
//! `beta` is the paper's `tau`, by default 0.1: TRL. As in TRL, and on the authors' advice, the
//! log-ratios are means over an output's tokens, not sums.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, default_beta};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Identity preference optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ipo {
    /// How strongly the model is held to the reference: the difference of log-ratios is drawn to
    /// `1 / (2 beta)`.
    #[serde(default = "default_beta")]
    pub beta: f64,
}

impl Loss for Ipo {
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
        let (chosen, rejected) = (example.chosen, example.rejected());
        let tokens = [chosen.tokens as f64, rejected.tokens as f64];
        let off = chosen.ratio() / tokens[0] - rejected.ratio() / tokens[1] - 0.5 / self.beta;
        let rewards = [self.beta * chosen.ratio(), self.beta * rejected.ratio()];
        Share::of_pair(micro_batch, off * off, [2.0 * off / tokens[0], -2.0 * off / tokens[1]], rewards)
    }
}
