//! Task arithmetic: Ilharco et al., 2023, section 3: θ = θ₀ + λ Σ wᵢ (θᵢ - θ₀).
//!
//! A ratio is taken as shares, so 1:18 is w = 1/19 and 18/19; weights that are given as they
//! are may be negative, which unlearns a task. `lambda` defaults to 1: the paper tunes it, and
//! mergekit 0.1.5 has 1. Departs from mergekit, which computes in the type of the models, in
//! that intermediate results are f32 unless asked otherwise.

use super::common::{ComputeDtype, Merge, PerTensor, at_least};
use crate::error::MergeError;
use crate::expert::Normalization;
use crate::ops::{add, scale, subtract, sum};
use crate::tensors::Tensors;
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised when the same parameters give other numbers.
pub const VERSION: u32 = 1;

/// The base and a weighted sum of task vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskArithmetic {
    /// What the sum is multiplied with.
    #[serde(default = "super::common::default_lambda")]
    lambda: f64,
    /// In which numbers it is computed.
    #[serde(default)]
    compute_dtype: ComputeDtype,
}

impl Merge for TaskArithmetic {
    fn needs_base(&self) -> bool {
        true
    }

    fn passes(&self) -> u64 {
        1
    }

    fn check(&self, models: &[&str], _: Normalization) -> Result<(), FieldError> {
        at_least(1, models)
    }

    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError> {
        let normalization = tensors.normalization();
        let round = |value| self.compute_dtype.round(value);
        let lambda = self.lambda as f32;
        Ok(Box::new(move |tensor| {
            let weights = match normalization {
                Normalization::SumToOne => tensor.shares(),
                Normalization::None => tensor.weights.clone(),
            };
            let weights: Vec<f32> = weights.iter().map(|weight| round(*weight as f32)).collect();
            Ok(Box::new(move |piece, out| {
                for (model, weight) in piece.models.iter_mut().zip(&weights) {
                    subtract(model, &piece.base, round);
                    scale(model, *weight, round);
                }
                sum(&piece.models, out);
                scale(out, 1.0, round);
                scale(out, lambda, round);
                add(out, &piece.base, round);
            }))
        }))
    }
}
