//! TIES: Yadav et al., 2023, algorithm 1: trim each task vector to its largest values, elect the
//! sign of each number, add λ times the mean of the values that have it to the base.
//!
//! - `density` defaults to 0.2: the paper's k = 20 %, and that of `Less for More`.
//! - `rule = "mergekit"`, the default, is mergekit 0.1.5: the sign of the weighted sum is elected,
//!   0 counts as plus; the weighted sum of what agrees is divided by the sum of its weights.
//!   So at 1:18, where only one model survives trimming, its weight cancels, and its value
//!   enters in full. Weights that are given as they are, are not divided by their sum.
//! - `rule = "paper"` is `Less for More`: ½ (τ₁ + τ₂), where in a conflict of signs only the
//!   larger value counts. The divisor is the number of models, whatever survives; the weights
//!   are equal, whatever the ratio.
//! - `trim = "tensor"` (mergekit) or `"model"` (the code of Yadav et al.) says what the share of
//!   values is a share of. Of values that are equally large the first ones are kept, by the
//!   names of the tensors and then their order in them.
//! - `lambda` defaults to 1, as in both.
//!
//! With inputs of f32 the result is mergekit's bit for bit. With inputs of bf16 mergekit rounds
//! every step to bf16; `compute_dtype = "bf16"` does so too, the default loses nothing.

use super::common::{ComputeDtype, Density, Merge, PerTensor, Scope, at_least};
use crate::error::MergeError;
use crate::expert::Normalization;
use crate::magnitudes::{Cut, Magnitudes, kept};
use crate::operands::{Operands, Piece};
use crate::ops::{add, disjoint_sum, divide, elect_sign, magnitude_consensus, scale, subtract, sum, trim};
use crate::tensors::Tensors;
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised when the same parameters give other numbers.
pub const VERSION: u32 = 1;

/// What is largest in each task vector, where their signs agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ties {
    /// The share of each task vector that is kept.
    #[serde(default = "default_density")]
    density: Density,
    /// What happens where models disagree, and what the sum is divided by.
    #[serde(default)]
    rule: Rule,
    /// Whether the largest of each tensor are kept, or of the whole model.
    #[serde(default)]
    trim: Scope,
    /// What the mean is multiplied with.
    #[serde(default = "super::common::default_lambda")]
    lambda: f64,
    /// In which numbers it is computed.
    #[serde(default)]
    compute_dtype: ComputeDtype,
}

fn default_density() -> Density {
    Density::of(0.2)
}

/// How task vectors are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// The sign of the weighted sum, and the weighted mean of what agrees.
    #[default]
    Mergekit,
    /// The larger wins, and half of the sum.
    Paper,
}

impl Ties {
    /// Makes task vectors of the models.
    fn subtract(&self, piece: &mut Piece) {
        let Piece { base, models } = piece;
        models.iter_mut().for_each(|model| subtract(model, base, |value| self.compute_dtype.round(value)));
    }

    /// Shows the task vectors of a tensor to what counts them.
    fn count(&self, tensor: &Operands, mut counted: Vec<Magnitudes>) -> Vec<Magnitudes> {
        tensor.read(|_, piece| {
            self.subtract(piece);
            counted.iter_mut().zip(&piece.models).for_each(|(counted, model)| counted.count(model));
        });
        counted
    }

    /// Finds the cuts in one tensor.
    fn cuts(&self, tensor: &Operands) -> Vec<Option<Cut>> {
        let densities = self.density.at(tensor);
        let elements = tensor.elements() as u64;
        let coarse =
            densities.iter().map(|density| Magnitudes::of_largest(kept(*density, elements))).collect();
        let fine = self.count(tensor, coarse).iter().map(Magnitudes::closer).collect();
        let cuts = self.count(tensor, fine);
        // All of the numbers are kept without a look, or a 0 more would be one too many.
        cuts.iter().zip(densities).map(|(cut, density)| (density < 1.0).then(|| cut.cut())).collect()
    }

    /// Finds the cuts in the whole of each model, and what is left of them for each tensor.
    fn cuts_of_all(&self, tensors: &Tensors) -> Result<Vec<Vec<Option<Cut>>>, MergeError> {
        let elements = tensors.map(|tensor| Ok((tensor.elements() as f64, self.density.at(tensor))))?;
        let models = elements.first().map_or(0, |(_, densities)| densities.len());
        // With a list of densities the share of the whole is the mean, weighted by size.
        let wanted = |model: usize| {
            let kept: f64 = elements.iter().map(|(count, densities)| count * densities[model]).sum();
            (kept as u64).max(1)
        };
        let count = |counted: Vec<Magnitudes>| -> Result<Vec<Magnitudes>, MergeError> {
            let seen = tensors.map(|tensor| Ok(self.count(tensor, counted.clone())))?;
            let mut all = counted;
            for seen in seen {
                all.iter_mut().zip(&seen).for_each(|(all, seen)| all.add(seen));
            }
            Ok(all)
        };
        let coarse = count((0..models).map(|model| Magnitudes::of_largest(wanted(model))).collect())?;
        let fine = count(coarse.iter().map(Magnitudes::closer).collect())?;
        let cuts: Vec<Cut> = fine.iter().map(Magnitudes::cut).collect();
        let equal = tensors.map(|tensor| {
            let mut equal = vec![0; models];
            tensor.read(|_, piece| {
                self.subtract(piece);
                for ((equal, cut), model) in equal.iter_mut().zip(&cuts).zip(&piece.models) {
                    *equal += cut.count_equal(model);
                }
            });
            Ok(equal)
        })?;
        let mut before = vec![0; models];
        let mut each = Vec::with_capacity(equal.len());
        for equal in equal {
            each.push(cuts.iter().zip(&before).map(|(cut, before)| Some(cut.after(*before))).collect());
            before.iter_mut().zip(equal).for_each(|(before, equal)| *before += equal);
        }
        Ok(each)
    }
}

impl Merge for Ties {
    fn needs_base(&self) -> bool {
        true
    }

    fn passes(&self) -> u64 {
        match self.trim {
            Scope::Tensor => 3,
            Scope::Model => 4,
        }
    }

    fn check(&self, models: &[&str], _: Normalization) -> Result<(), FieldError> {
        self.density.check(models)?;
        at_least(1, models)
    }

    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError> {
        let normalization = tensors.normalization();
        let known = match self.trim {
            Scope::Tensor => None,
            Scope::Model => Some(self.cuts_of_all(tensors)?),
        };
        let join =
            Join { rule: self.rule, normalization, lambda: self.lambda, compute_dtype: self.compute_dtype };
        Ok(Box::new(move |tensor| {
            let mut cuts = match &known {
                Some(known) => known[tensor.number].clone(),
                None => self.cuts(tensor),
            };
            let mut join = join.of(&tensor.weights);
            Ok(Box::new(move |piece, out| {
                self.subtract(piece);
                for (model, cut) in piece.models.iter_mut().zip(&mut cuts) {
                    if let Some(cut) = cut {
                        trim(model, cut);
                    }
                }
                join(piece, out);
            }))
        }))
    }
}

/// How trimmed task vectors are joined into one model.
#[derive(Clone, Copy)]
pub(super) struct Join {
    pub rule: Rule,
    pub normalization: Normalization,
    pub lambda: f64,
    pub compute_dtype: ComputeDtype,
}

impl Join {
    /// Returns what joins the pieces of a tensor.
    pub(super) fn of(self, weights: &[f64]) -> impl FnMut(&mut Piece, &mut [f32]) + use<> {
        let round = move |value| self.compute_dtype.round(value);
        let weights: Vec<f32> = weights.iter().map(|weight| round(*weight as f32)).collect();
        let mut scratch = [Vec::new(), Vec::new()];
        move |piece, out| {
            let Piece { base, models } = piece;
            scratch.iter_mut().for_each(|buffer| buffer.resize(out.len(), 0.0));
            let [one, other] = &mut scratch;
            match self.rule {
                Rule::Mergekit => {
                    for (model, weight) in models.iter_mut().zip(&weights) {
                        scale(model, *weight, round);
                    }
                    elect_sign(models, one);
                    disjoint_sum(models, &weights, one, out, other);
                    if self.normalization == Normalization::SumToOne {
                        divide(out, other, round);
                    }
                }
                Rule::Paper => {
                    magnitude_consensus(models, one, other);
                    sum(models, out);
                    other.fill(models.len() as f32);
                    divide(out, other, round);
                }
            }
            if self.compute_dtype != ComputeDtype::F32 {
                scale(out, 1.0, round);
            }
            if self.lambda != 1.0 {
                scale(out, self.lambda as f32, round);
            }
            add(out, base, round);
        }
    }
}
