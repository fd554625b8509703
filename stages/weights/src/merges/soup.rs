//! Model soup: Wortsman et al., 2022, section 2: θ = Σ wᵢ θᵢ / Σ wᵢ.
//!
//! A ratio is taken as shares; weights that are given as they are, are not divided by their sum
//! (mergekit's `linear` with `normalize: false`). Departs from mergekit 0.1.5, which adds up in
//! f32: sums are in f64 and rounded once, so that a soup of equals is exactly itself.

use super::common::{Merge, PerTensor, at_least};
use crate::error::MergeError;
use crate::expert::Normalization;
use crate::ops::interpolate;
use crate::tensors::Tensors;
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised when the same parameters give other numbers.
pub const VERSION: u32 = 1;

/// A weighted mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Soup {}

impl Merge for Soup {
    fn needs_base(&self) -> bool {
        false
    }

    fn passes(&self) -> u64 {
        1
    }

    fn check(&self, models: &[&str], _: Normalization) -> Result<(), FieldError> {
        at_least(2, models)
    }

    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError> {
        let normalization = tensors.normalization();
        Ok(Box::new(move |tensor| {
            let weights = match normalization {
                Normalization::SumToOne => tensor.shares(),
                Normalization::None => tensor.weights.clone(),
            };
            Ok(Box::new(move |piece, out| interpolate(&piece.models, &weights, out)))
        }))
    }
}
