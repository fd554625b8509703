//! The steps of a training: which rows each takes, and which are followed by an evaluation.

use crate::text::batches::order;
use crate::train::config::{Length, TrainingConfig};
use crate::train::lr_schedule::LearningRate;

/// Which rows a step takes, and after which steps there is an evaluation.
pub(super) struct Steps {
    examples: usize,
    batch_size: usize,
    per_epoch: usize,
    pub all: usize,
    evals_per_epoch: usize,
    pub rate: LearningRate,
    seed: u64,
}

impl Steps {
    pub(super) fn new(config: &TrainingConfig, examples: usize) -> Self {
        let per_epoch = examples.div_ceil(config.batch_size);
        let all = match config.length {
            Length::Epochs(epochs) => ((epochs * per_epoch as f64).ceil() as usize).max(1),
            Length::Steps(steps) => steps as usize,
        };
        let rate = LearningRate {
            peak: config.learning_rate,
            warmup_steps: LearningRate::warmup(config.warmup_ratio, all),
            steps: all,
            schedule: config.schedule,
        };
        Self {
            examples,
            batch_size: config.batch_size,
            per_epoch,
            all,
            evals_per_epoch: config.evals_per_epoch,
            rate,
            seed: config.seed,
        }
    }

    pub(super) fn evaluates(&self, step: usize) -> bool {
        let (pass, times) = (self.per_epoch, self.evals_per_epoch);
        // The k-th evaluation of an epoch is after the first step that completes k shares of it.
        let evaluations = |step: usize| step * times / pass;
        step == 0 || step == self.all || (times > 0 && evaluations(step) > evaluations(step - 1))
    }

    /// Returns the rows of a step.
    pub(super) fn rows(&self, step: usize) -> Vec<usize> {
        let begin = step % self.per_epoch * self.batch_size;
        let end = (begin + self.batch_size).min(self.examples);
        order(self.seed, step / self.per_epoch, self.examples)[begin..end].to_vec()
    }

    pub(super) fn epoch(&self, step: usize) -> f64 {
        step as f64 / self.per_epoch as f64
    }
}
