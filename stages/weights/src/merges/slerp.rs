//! SLERP: Shoemake, 1985: sin((1-t)ρ)/sin(ρ) θ₁ + sin(tρ)/sin(ρ) θ₂, with ρ the angle between
//! the models.
//!
//! `t` is the second model's share of the ratio: 1:18 is t = 18/19. As in mergekit 0.1.5, ρ is
//! that of each tensor by itself, taken from the normalised tensors, while the tensors that are
//! interpolated are not; and where |cos ρ| > 0.9995 it is a line instead of an arc. `angle` can
//! be that of the whole models, and `vectors` can be the task vectors: both in `Less for More`.
//!
//! Departs from mergekit: lengths and angles are summed in f64; and a tensor that is 0 in one
//! model and not in the other, which has no angle, is an error (mergekit takes it for
//! orthogonal). A task vector of 0 only says that this tensor was not tuned: then it is a line.

use super::common::{Merge, PerTensor, Scope};
use crate::error::MergeError;
use crate::expert::Normalization;
use crate::operands::Operands;
use crate::ops::{Angle, add, interpolate, slerp_weights, subtract};
use crate::tensors::Tensors;
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Raised when the same parameters give other numbers.
pub const VERSION: u32 = 1;

/// Along the arc between two models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slerp {
    /// What is interpolated: the models, or what tuning added to their base.
    #[serde(default)]
    vectors: Vectors,
    /// Whether each tensor has its own angle, or all have that of the whole models.
    #[serde(default)]
    angle: Scope,
}

/// What is taken for a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Vectors {
    /// The weights of a model.
    #[default]
    Weights,
    /// What was added to the base.
    Task,
}

impl Slerp {
    fn angle(&self, tensor: &Operands) -> Angle {
        let mut angle = Angle::default();
        tensor.read(|_, piece| {
            if self.needs_base() {
                piece.models.iter_mut().for_each(|model| subtract(model, &piece.base, |value| value));
            }
            angle.update(&piece.models[0], &piece.models[1]);
        });
        angle
    }

    fn cosine(&self, angle: &Angle, tensor: Option<&Operands>) -> Result<f64, MergeError> {
        let zero = match (angle.first == 0.0, angle.second == 0.0) {
            (true, false) => 0,
            (false, true) => 1,
            // Whatever the angle between two zeros, what lies between them is zero.
            (true, true) => return Ok(1.0),
            (false, false) => return Ok(angle.cosine()),
        };
        match (self.vectors, tensor) {
            (Vectors::Task, _) | (_, None) => Ok(1.0),
            (Vectors::Weights, Some(tensor)) => Err(MergeError::NoAngle {
                tensor: tensor.place.name.clone(),
                zero: tensor.labels()[zero].clone(),
                other: tensor.labels()[1 - zero].clone(),
            }),
        }
    }
}

impl Merge for Slerp {
    fn needs_base(&self) -> bool {
        self.vectors == Vectors::Task
    }

    fn passes(&self) -> u64 {
        2
    }

    fn check(&self, models: &[&str], normalization: Normalization) -> Result<(), FieldError> {
        if normalization == Normalization::None {
            let message = "slerp needs a `ratio`: weights that are not shares mean nothing to it";
            return Err(FieldError::new("", message));
        }
        if models.len() == 2 {
            return Ok(());
        }
        let message = format!("slerp is between two models, and there are {}", models.len());
        Err(FieldError::new("", message).help("`soup` takes any number"))
    }

    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError> {
        let whole = match self.angle {
            Scope::Tensor => None,
            Scope::Model => {
                let mut whole = Angle::default();
                // In the order of the tensors, or the last bits depend on the threads.
                tensors.map(|tensor| Ok(self.angle(tensor)))?.iter().for_each(|angle| whole.add(angle));
                Some(self.cosine(&whole, None)?)
            }
        };
        Ok(Box::new(move |tensor| {
            let cosine = match whole {
                Some(cosine) => cosine,
                None => self.cosine(&self.angle(tensor), Some(tensor))?,
            };
            let weights = slerp_weights(cosine, tensor.shares()[1]);
            Ok(Box::new(move |piece, out| {
                if self.needs_base() {
                    piece.models.iter_mut().for_each(|model| subtract(model, &piece.base, |value| value));
                }
                interpolate(&piece.models, &weights, out);
                if self.needs_base() {
                    add(out, &piece.base, |value| value);
                }
            }))
        }))
    }
}
