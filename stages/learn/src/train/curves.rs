//! What a training says of itself, step by step.

use serde::{Deserialize, Serialize};

use crate::objectives::Share;

/// One point of the curves of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Point {
    /// A step.
    Step(StepPoint),
    /// An evaluation.
    Validation(ValidationPoint),
}

/// What one step did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// The step, from 1.
    pub step: usize,
    /// Passes over the rows so far.
    pub epoch: f64,
    /// The loss of its batch, before the move.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The norm of all gradients together, before it was cut.
    pub gradient_norm: f64,
    /// The tokens of its targets.
    pub target_tokens: usize,
    /// For objectives with rewards, their means and how often the chosen one is higher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewards: Option<Rewards>,
}

/// The rewards that an objective implies, over a batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rewards {
    /// The mean of the chosen or desirable outputs'; none if the batch has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<f64>,
    /// The mean of the rejected or undesirable outputs'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<f64>,
    /// By how much the first is higher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The share of pairs in which the chosen output has the higher one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// How far the model is from the reference, where an objective needs it; nats per sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationPoint {
    /// The steps made so far.
    pub step: usize,
    /// Passes over the rows so far.
    pub epoch: f64,
    /// The objective's loss over all validation rows.
    pub validation_loss: f64,
    /// Whether it is the lowest so far.
    pub best: bool,
    /// As for a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_rewards: Option<Rewards>,
}

/// What a step took of the machine. It is another on each machine and in each run, and so no part
/// of the curves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// The step, from 1.
    pub step: usize,
    /// How long it took, without evaluations.
    pub seconds: f64,
    /// The tokens that went through the model: prompts and outputs, preferred and not.
    pub tokens: usize,
    /// These per second.
    pub tokens_per_second: f64,
    /// The memory that the process held after the step; none where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The most memory that the process has held so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What GPUs hold for the process, all of them together; none on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_memory_bytes: Option<u64>,
}

/// Returns the rewards of a batch, of objectives that imply any.
pub(crate) fn rewards(shares: &[Share], divergence: Option<f64>) -> Option<Rewards> {
    let mean = |of: &mut dyn Iterator<Item = f64>| {
        let found: Vec<f64> = of.collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let chosen = mean(&mut shares.iter().filter_map(|share| share.chosen_reward));
    let rejected = mean(&mut shares.iter().filter_map(|share| share.rejected_reward));
    let wins = shares.iter().filter_map(|share| Some(share.chosen_reward? > share.rejected_reward?));
    let accuracy = mean(&mut wins.map(|wins| f64::from(u8::from(wins))));
    let margin = chosen.zip(rejected).map(|(chosen, rejected)| chosen - rejected);
    (chosen.is_some() || rejected.is_some()).then_some(Rewards {
        chosen,
        rejected,
        margin,
        accuracy,
        divergence,
    })
}
