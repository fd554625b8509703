//! AdamW: Loshchilov and Hutter, 2019, algorithm 2, as PyTorch's `AdamW` orders it: weights
//! shrink first, then move by the bias-corrected moments, `epsilon` added outside the root.

use burn::tensor::Tensor;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The parameters of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// How slowly the mean of the gradients follows.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// How slowly the mean of their squares follows.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// What keeps the division finite.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// The share of a matrix that a step takes away, times the learning rate. As transformers'
    /// Trainer has it, norms and biases do not shrink.
    #[serde(default)]
    pub weight_decay: f64,
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_epsilon() -> f64 {
    1e-8
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: default_beta1(), beta2: default_beta2(), epsilon: default_epsilon(), weight_decay: 0.0 }
    }
}

impl AdamW {
    /// Says what is wrong with the numbers.
    ///
    /// # Errors
    /// The parameter and what it may be.
    pub fn check(&self) -> Result<(), String> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(format!("`optimizer.{name}` is from 0 to below 1, not {beta}"));
            }
        }
        for (name, number) in [("epsilon", self.epsilon), ("weight_decay", self.weight_decay)] {
            if !(number.is_finite() && number >= 0.0) {
                return Err(format!("`optimizer.{name}` is a number from 0, not {number}"));
            }
        }
        Ok(())
    }
}

/// What AdamW remembers of one parameter, in a row.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub mean: Tensor<1>,
    pub square: Tensor<1>,
}

/// One parameter on its way through a step.
pub(crate) struct Update {
    pub weights: Tensor<1>,
    pub gradient: Tensor<1>,
    pub moments: Moments,
    /// Whether it shrinks.
    pub decays: bool,
}

/// Moves parameters by one step, the one numbered `step` from 1.
pub(crate) fn step(
    adam: &AdamW,
    learning_rate: f64,
    step: usize,
    updates: Vec<Update>,
) -> Vec<(Tensor<1>, Moments)> {
    let first = 1.0 - adam.beta1.powi(step as i32);
    let second = 1.0 - adam.beta2.powi(step as i32);
    let move_one = |update: Update| {
        let Update { weights, gradient, moments, decays } = update;
        let square =
            moments.square.mul_scalar(adam.beta2) + gradient.clone().square().mul_scalar(1.0 - adam.beta2);
        let mean = moments.mean.mul_scalar(adam.beta1) + gradient.mul_scalar(1.0 - adam.beta1);
        let root = square.clone().sqrt().div_scalar(second.sqrt()).add_scalar(adam.epsilon);
        let weights = match decays && adam.weight_decay > 0.0 {
            true => weights.mul_scalar(1.0 - learning_rate * adam.weight_decay),
            false => weights,
        };
        let weights = weights - (mean.clone() / root).mul_scalar(learning_rate / first);
        (weights, Moments { mean, square })
    };
    updates.into_par_iter().map(move_one).collect()
}

/// Returns the norm of all gradients together.
pub(crate) fn global_norm(gradients: &[Tensor<1>]) -> f64 {
    let squares: Vec<f64> = gradients
        .par_iter()
        .map(|gradient| f64::from(gradient.clone().square().sum().into_scalar::<f32>()))
        .collect();
    squares.iter().sum::<f64>().sqrt()
}

/// Returns what gradients of a norm are multiplied by so that the norm is at most `most`:
/// `min(1, most / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_`.
pub(crate) fn clip_coefficient(norm: f64, most: f64) -> f64 {
    (most / (norm + 1e-6)).min(1.0)
}
