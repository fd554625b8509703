//! Trainings: examples in, a model with other weights out.

pub(crate) mod adamw;
pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod curves;
mod error;
mod events;
pub(crate) mod gradients;
mod lr_schedule;
mod reference;
mod replica;
mod steps;
mod trainer;

pub use adamw::AdamW;
pub use checkpoint::{CheckpointError, LeftAside};
pub use config::{Examples, Length, TrainingConfig};
pub use curves::{Point, Rewards, StepPoint, Throughput, ValidationPoint};
pub use error::TrainError;
pub use events::{TrainEvent, TrainHooks, TrainReport};
pub use lr_schedule::{LearningRate, Schedule};
pub use reference::{ReferenceLogps, ReferenceSource, reference_logps};
pub use trainer::train;
