//! What the methods share: their trait, and the types of their parameters.

use crate::error::MergeError;
use crate::expert::Normalization;
use crate::operands::{Operands, Piece};
use crate::setting::{PerModel, Setting};
use crate::tensors::Tensors;
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A method of merging. It works on numbers, never on files.
pub trait Merge: std::fmt::Debug + Sync {
    /// Returns whether it needs the model that the others were tuned from.
    fn needs_base(&self) -> bool;

    /// Returns how often it reads every number: the passes over the models.
    fn passes(&self) -> u64;

    /// Checks what is known before any model is opened: the names of the models, and how
    /// their weights are normalised.
    fn check(&self, models: &[&str], normalization: Normalization) -> Result<(), FieldError>;

    /// Computes what depends on all tensors, and returns the function that merges one tensor.
    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError>;
}

/// Returns the function that merges the pieces of a tensor.
pub type PerTensor<'a> = Box<dyn Fn(&Operands) -> Result<PerPiece<'a>, MergeError> + Sync + 'a>;

/// Merges numbers: the pieces of a tensor come in order.
pub(super) type PerPiece<'a> = Box<dyn FnMut(&mut Piece, &mut [f32]) + 'a>;

/// The type of intermediate results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) enum ComputeDtype {
    /// f32: with inputs of bf16 nothing is rounded before the result.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// bf16 after every step, as mergekit computes with inputs of bf16.
    #[serde(rename = "bf16")]
    Bf16,
}

impl ComputeDtype {
    /// Rounds an intermediate result.
    pub(super) fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => crate::floats::rounded(safetensors::Dtype::BF16, value),
        }
    }
}

/// The numbers among which magnitudes are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// Each tensor by itself.
    #[default]
    Tensor,
    /// The whole model at once.
    Model,
}

/// The share of numbers to keep, in (0, 1]. [`Merge::check`] checks it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Density(PerModel);

impl Density {
    /// The same density everywhere.
    pub(super) fn of(density: f64) -> Self {
        Self(PerModel::All(Setting::Number(density)))
    }

    /// Checks that every model has one, that no other has, and that each is above 0 and at most 1.
    pub(super) fn check(&self, models: &[&str]) -> Result<(), FieldError> {
        if let PerModel::Each(settings) = &self.0 {
            if let Some(name) = settings.keys().find(|name| !models.contains(&name.as_str())) {
                let message = format!("`density` names `{name}`, which is not among the models");
                return Err(FieldError::new(format!("density.{name}"), message));
            }
            if let Some(name) = models.iter().find(|name| !settings.contains_key(**name)) {
                return Err(FieldError::new("density", format!("`density` leaves out `{name}`")));
            }
        }
        for (model, setting) in self.0.settings() {
            setting
                .check("a density: they are above 0 and at most 1", |number| number > 0.0 && number <= 1.0)
                .map_err(|error| model.into_iter().fold(error, FieldError::within).within("density"))?;
        }
        Ok(())
    }

    /// Returns the densities of the models in a tensor; what no rule fits is kept whole.
    pub(super) fn at(&self, tensor: &Operands) -> Vec<f64> {
        let of = |name: &String| self.0.of(name).and_then(|setting| setting.at(&tensor.place));
        tensor.labels().iter().map(|name| of(name).unwrap_or(1.0)).collect()
    }
}

/// Checks that there is something to merge.
pub(super) fn at_least(least: usize, models: &[&str]) -> Result<(), FieldError> {
    if models.len() >= least {
        return Ok(());
    }
    let message = format!("at least {least} models are needed, and there are {}", models.len());
    Err(FieldError::new("", message))
}

/// The default factor of the sum.
pub(super) fn default_lambda() -> f64 {
    1.0
}
