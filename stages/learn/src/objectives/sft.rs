//! SFT: the mean negative log-likelihood of the target's tokens, prompt masked, end token counted.
//!
//! The mean is over all target tokens of a micro-batch, as transformers' Trainer and TRL have it,
//! not over sequences. Where batches are accumulated the trainer divides by the tokens of all.

use super::{Divisors, Loss, Outputs, Share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what it computes.
pub const VERSION: u32 = 1;

/// Supervised fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {}

impl Loss for Sft {
    fn is_paired(&self) -> bool {
        false
    }

    fn share(&self, example: &Outputs, micro_batch: &Divisors) -> Share {
        let slope = -1.0 / micro_batch.target_tokens as f64;
        Share { loss: example.chosen.sum * slope, chosen_slope: slope, rejected_slope: 0.0, rewards: None }
    }
}
