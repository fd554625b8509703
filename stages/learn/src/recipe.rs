//! What a training is given, and what it comes to.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batches::{Example, TokenLimit};
use crate::checkpoint::{CheckpointError, LeftAside};
use crate::curves::{Point, Throughput};
use crate::device::{DeviceError, DeviceName};
use crate::objectives::Objective;
use crate::optimiser::AdamW;
use crate::precision::Precision;
use crate::schedule::Schedule;

/// How a model is fitted. All of it decides the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
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
    /// How often per epoch the validation rows are looked at.
    pub validations_per_epoch: usize,
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

/// A training in which something went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There is nothing to learn from.
    #[error("there are no rows to learn from")]
    NoExamples,
    /// An objective that learns from good and bad outputs has one kind only.
    #[error("all {rows} rows are {label}: there is nothing to tell them from")]
    OneLabel {
        /// How many rows there are.
        rows: usize,
        /// What all of them are.
        label: &'static str,
    },
    /// The reference has another vocabulary.
    #[error("the reference has a vocabulary of {reference}, and the model one of {model}")]
    OtherVocabulary {
        /// The reference's.
        reference: usize,
        /// The model's.
        model: usize,
    },
    /// What is known of the reference is of other rows.
    #[error(
        "the reference was asked about {found:?} rows to learn from and to validate with, and there are {expected:?}"
    )]
    OtherRows {
        /// How many rows it was asked about.
        found: [usize; 2],
        /// How many there are.
        expected: [usize; 2],
    },
    /// What is known of the reference is not enough.
    #[error("this objective asks its reference anew in each step, about other pairs of prompts and outputs")]
    NeedsReferenceModel,
    /// The loss is not a number any more.
    #[error(
        "the loss became {loss} in step {step} of {steps} (learning rate {learning_rate:e}, rows {rows})"
    )]
    Diverged {
        /// The loss.
        loss: f64,
        /// The step, from 1.
        step: usize,
        /// All steps.
        steps: usize,
        /// The learning rate of the step.
        learning_rate: f64,
        /// The rows of its batch, or the first of them.
        rows: String,
    },
    /// A device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A checkpoint could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Whoever asked for the training does not want it any more.
    #[error("the training was cancelled")]
    Cancelled,
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// All steps.
    pub steps: usize,
    /// The step whose weights were kept.
    pub kept_step: usize,
    /// The lowest validation loss, where there were validation rows.
    pub validation_loss: Option<f64>,
    /// The step at which a killed training went on.
    pub resumed_at: Option<usize>,
    /// The curves.
    pub points: Vec<Point>,
    /// What each step took of the machine.
    pub throughput: Vec<Throughput>,
}

/// What a training tells while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// The curves have one point more.
    Point {
        /// The point.
        point: &'a Point,
        /// What a step took of the machine.
        throughput: Option<&'a Throughput>,
        /// How many steps there are.
        steps: usize,
    },
    /// A checkpoint of a killed training is no use, and is not gone on from.
    LeftAside(&'a LeftAside),
}

/// Who watches a training, and where it keeps what a kill must not cost.
pub struct Watch<'a> {
    /// How many threads compute.
    pub threads: usize,
    /// Further devices, each of which computes its share of a batch's shards on a copy of the model.
    pub others: &'a [DeviceName],
    /// Whether layers are computed once more on the way back instead of being kept.
    pub recomputes: bool,
    /// A folder for checkpoints, or none are made.
    pub checkpoints: Option<&'a Path>,
    /// Hears of every point and of what is left aside; says whether to go on.
    pub hear: &'a mut dyn FnMut(News<'_>) -> bool,
}
