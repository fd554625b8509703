//! AdamW: Loshchilov and Hutter, 2019, algorithm 2, as PyTorch's `AdamW` orders it: weights
//! decay first, then move by the bias-corrected moments, `epsilon` added outside the root.

use burn_tensor::{Tensor, TensorData};
use choice::FieldError;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weights::wide;

use crate::tensor::device::is_cpu;

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
    /// Trainer has it, norms and biases do not decay.
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
    pub fn check(&self) -> Result<(), FieldError> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(FieldError::new(name, format!("`{name}` is from 0 to below 1, not {beta}")));
            }
        }
        for (name, number) in [("epsilon", self.epsilon), ("weight_decay", self.weight_decay)] {
            if !(number.is_finite() && number >= 0.0) {
                return Err(FieldError::new(name, format!("`{name}` is a number from 0, not {number}")));
            }
        }
        Ok(())
    }
}

/// What AdamW remembers of one parameter, in a row.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub first_moment: Tensor<1>,
    pub second_moment: Tensor<1>,
}

/// One parameter on its way through a step.
pub(crate) struct Update {
    pub weights: Tensor<1>,
    pub gradient: Tensor<1>,
    pub moments: Moments,
    /// Whether weight decay applies to it.
    pub decays: bool,
}

/// Moves parameters by one step, the one numbered `step` from 1, with all gradients times `clip`.
pub(crate) fn step(
    adam: &AdamW,
    learning_rate: f64,
    clip: f64,
    step: usize,
    updates: Vec<Update>,
) -> Vec<(Tensor<1>, Moments)> {
    let first = 1.0 - adam.beta1.powi(step as i32);
    let second = 1.0 - adam.beta2.powi(step as i32);
    let factors = |decays: bool| Factors {
        clip: clip as f32,
        first_moment: [adam.beta1 as f32, (1.0 - adam.beta1) as f32],
        second_moment: [adam.beta2 as f32, (1.0 - adam.beta2) as f32],
        sqrt_bias_correction2: second.sqrt() as f32,
        epsilon: adam.epsilon as f32,
        weight_decay_factor: if decays { (1.0 - learning_rate * adam.weight_decay) as f32 } else { 1.0 },
        step_size: (learning_rate / first) as f32,
    };
    let step_one = |update: Update| {
        let Update { weights, gradient, moments, decays } = update;
        let factors = factors(decays && adam.weight_decay > 0.0);
        if is_cpu(&weights.device()) {
            step_on_cpu(&factors, weights, gradient, moments)
        } else {
            step_on_device(&factors, weights, gradient, moments)
        }
    };
    updates.into_par_iter().map(step_one).collect()
}

/// The numbers of a step.
struct Factors {
    clip: f32,
    /// How much of the mean stays, and how much of a gradient comes.
    first_moment: [f32; 2],
    /// The same of the second moment.
    second_moment: [f32; 2],
    /// What the root of the second moment is divided by.
    sqrt_bias_correction2: f32,
    epsilon: f32,
    /// What weights are multiplied by first.
    weight_decay_factor: f32,
    step_size: f32,
}

fn step_on_device(
    factors: &Factors,
    weights: Tensor<1>,
    gradient: Tensor<1>,
    moments: Moments,
) -> (Tensor<1>, Moments) {
    let gradient = gradient.mul_scalar(factors.clip);
    let second_moment = moments.second_moment.mul_scalar(factors.second_moment[0])
        + gradient.clone().square().mul_scalar(factors.second_moment[1]);
    let first_moment = moments.first_moment.mul_scalar(factors.first_moment[0])
        + gradient.mul_scalar(factors.first_moment[1]);
    let denominator =
        second_moment.clone().sqrt().div_scalar(factors.sqrt_bias_correction2).add_scalar(factors.epsilon);
    let weights = weights.mul_scalar(factors.weight_decay_factor);
    let weights = weights - (first_moment.clone() / denominator).mul_scalar(factors.step_size);
    (weights, Moments { first_moment, second_moment })
}

/// The same in one pass.
fn step_on_cpu(
    factors: &Factors,
    weights: Tensor<1>,
    gradient: Tensor<1>,
    moments: Moments,
) -> (Tensor<1>, Moments) {
    let device = weights.device();
    let take = |tensor: Tensor<1>| tensor.into_data().try_into_vec::<f32>().expect("parameters are f32");
    let (mut weights, gradient) = (take(weights), take(gradient));
    let (mut first_moment, mut second_moment) = (take(moments.first_moment), take(moments.second_moment));
    step_all(factors, &mut weights, &gradient, &mut first_moment, &mut second_moment);
    let give = |numbers: Vec<f32>| {
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), &device)
    };
    (give(weights), Moments { first_moment: give(first_moment), second_moment: give(second_moment) })
}

wide! {
    fn step_all(
        factors: &Factors,
        weights: &mut [f32],
        gradient: &[f32],
        first_moment: &mut [f32],
        second_moment: &mut [f32],
    ) {
        let moments = first_moment.iter_mut().zip(second_moment);
        for ((weight, gradient), (first_moment, second_moment)) in weights.iter_mut().zip(gradient).zip(moments) {
            let gradient = gradient * factors.clip;
            *second_moment = *second_moment * factors.second_moment[0] + gradient * gradient * factors.second_moment[1];
            *first_moment = *first_moment * factors.first_moment[0] + gradient * factors.first_moment[1];
            let denominator = second_moment.sqrt() / factors.sqrt_bias_correction2 + factors.epsilon;
            *weight = *weight * factors.weight_decay_factor - *first_moment / denominator * factors.step_size;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use burn_tensor::{Device, Distribution};

    #[test]
    fn one_pass_does_what_many_do() {
        let factors = Factors {
            clip: 0.7,
            first_moment: [0.9, 0.1],
            second_moment: [0.999, 0.001],
            sqrt_bias_correction2: 0.05,
            epsilon: 1e-8,
            weight_decay_factor: 0.99,
            step_size: 0.01,
        };
        let random = || Tensor::<1>::random([37], Distribution::Normal(0.0, 1.0), &Device::flex());
        let (weights, gradient, first_moment, second_moment) =
            (random(), random(), random(), random().square());
        let moments = Moments { first_moment, second_moment };
        let (on_cpu, found) = step_on_cpu(&factors, weights.clone(), gradient.clone(), moments.clone());
        let (on_device, expected) = step_on_device(&factors, weights, gradient, moments);
        let pairs = [
            (on_cpu, on_device),
            (found.first_moment, expected.first_moment),
            (found.second_moment, expected.second_moment),
        ];
        for (found, expected) in pairs {
            assert!((found - expected).abs().max().into_scalar::<f32>() < 1e-6);
        }
    }
}
