//! SFT: the mean negative log-likelihood of the target's tokens, prompt masked, end token counted.
//!
//! The mean is over all target tokens of a micro-batch, as transformers' Trainer and TRL have it,
//! not over sequences. Where batches are accumulated the trainer divides by the tokens of all.

use super::loss::{Feed, Loss, MicroBatch, Outputs, Share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {}

impl Loss for Sft {
    fn feed(&self) -> Feed {
        Feed::Targets
    }

    fn share(&self, example: &Outputs, micro_batch: &MicroBatch) -> Share {
        let nothing = Share {
            loss: 0.0,
            chosen_gradient: 0.0,
            rejected_gradient: 0.0,
            chosen_reward: None,
            rejected_reward: None,
        };
        nothing.with_likelihood(1.0, &example.chosen, micro_batch)
    }
}
