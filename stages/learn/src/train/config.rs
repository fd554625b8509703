//! What a training is given.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objectives::Objective;
use crate::tensor::precision::Precision;
use crate::text::sequence::{Example, TokenLimit};
use crate::train::adamw::AdamW;
use crate::train::lr_schedule::Schedule;

/// How a model is fitted. All of it decides the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingConfig {
    /// What is minimised.
    pub objective: Objective,
    /// How weights move.
    pub optimizer: AdamW,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// The share of the steps in which it rises.
    pub warmup_ratio: f64,
    /// How long training lasts.
    pub length: Length,
    /// The rows of a step.
    pub batch_size: usize,
    /// The rows that an objective's means are taken over.
    pub micro_batch_size: usize,
    /// The norm that all gradients together are cut to.
    pub max_grad_norm: f64,
    /// How many evaluations there are in an epoch.
    pub evals_per_epoch: usize,
    /// What products are computed in.
    pub precision: Precision,
    /// What everything random follows from.
    pub seed: u64,
}

/// How long training lasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Passes over the rows; part of one is possible.
    Epochs(f64),
    /// Moves of the optimiser; with none a model stays as it began.
    Steps(u32),
}

/// What a model is fitted to.
#[derive(Debug, Clone)]
pub struct Examples {
    /// The rows to learn from.
    pub train: Vec<Example>,
    /// The rows that tell which weights are best; without any, the last ones are.
    pub validation: Vec<Example>,
    /// How many tokens a prompt and an output have at most, where an objective puts the output of
    /// one row behind the prompt of another.
    pub limit: TokenLimit,
}
