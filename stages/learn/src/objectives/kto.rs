//! KTO: Ethayarajh et al., 2024, eq. 8: `w (1 - sigmoid(r - z))` for desirable outputs and
//! `w (1 - sigmoid(z - r))` for undesirable ones, with `r = beta log pi/ref` and `z = beta` times
//! the divergence of the model from the reference, through which nothing is learned.
//!
//! The divergence is estimated as in TRL, on each prompt with the output of the one before, and is
//! never below 0; the mean is over all rows of a step, desirable and undesirable together, so that
//! a micro-batch of one row has one too. `beta` defaults to 0.1 and both weights to 1: TRL, and
//! Less for More, section 3.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share, above_0, default_beta, from_0, sigmoid};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Kahneman-Tversky optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kto {
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

pub(super) fn default_weight() -> f64 {
    1.0
}

impl Loss for Kto {
    fn feed(&self) -> Feed {
        Feed::Labelled
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn needs_divergence(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), FieldError> {
        above_0("beta", self.beta)?;
        from_0("desirable_weight", self.desirable_weight)?;
        from_0("undesirable_weight", self.undesirable_weight)
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let weights = [self.desirable_weight, self.undesirable_weight];
        anchored(example, micro_batch, self.beta, weights, self.beta * micro_batch.divergence)
    }
}

/// Returns the share of an output whose reward is held against `anchor`.
pub(super) fn anchored(
    example: &Outputs,
    micro_batch: &MicroBatch,
    beta: f64,
    [desirable_weight, undesirable_weight]: [f64; 2],
    anchor: f64,
) -> Share {
    let reward = beta * example.chosen.ratio();
    let desirable = example.desirable();
    // Up if it is good, down if it is bad.
    let (sign, weight) = if desirable { (1.0, desirable_weight) } else { (-1.0, undesirable_weight) };
    let (value, gradient) = sigmoid(sign * (reward - anchor));
    let rows = micro_batch.examples as f64;
    Share {
        loss: weight * (1.0 - value) / rows,
        chosen_gradient: -weight * sign * gradient * beta / rows,
        rejected_gradient: 0.0,
        chosen_reward: desirable.then_some(reward),
        rejected_reward: (!desirable).then_some(reward),
    }
}
