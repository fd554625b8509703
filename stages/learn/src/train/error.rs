//! What can go wrong in a training.

use crate::tensor::device::DeviceError;
use crate::train::checkpoint::CheckpointError;

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
    #[error(
        "this objective needs the reference model itself: in each step it is run on other pairs of prompts and outputs"
    )]
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
