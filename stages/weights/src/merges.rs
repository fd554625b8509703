//! The methods of merging: one file each, composed of the functions in `ops.rs`.

use crate::error::MergeError;
use crate::expert::Normalization;
use crate::operands::{Operands, Piece};
use crate::setting::{PerModel, Setting};
use crate::tensors::Tensors;
use choice::choices;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod dare;
pub mod slerp;
pub mod soup;
pub mod task_arithmetic;
pub mod ties;

choices! {
    /// How models are merged.
    pub enum Method: Merge in "merge" {
        /// Spherical interpolation between two models.
        slerp::Slerp,
        /// Trimmed task vectors, merged where their signs agree.
        ties::Ties,
        /// The base and a weighted sum of task vectors.
        task_arithmetic::TaskArithmetic,
        /// A weighted mean.
        soup::Soup,
        /// Task vectors of which a random part is dropped.
        dare::Dare,
    }
}

/// A method of merging. It works on numbers, never on files.
pub trait Merge: std::fmt::Debug + Sync {
    /// Returns whether it needs the model that the others were tuned from.
    fn needs_base(&self) -> bool;

    /// Returns how often it reads every number: the passes over the models.
    fn passes(&self) -> u64;

    /// Checks what is known before any model is opened: the names of the models, and how
    /// their weights are normalised.
    fn check(&self, models: &[&str], normalization: Normalization) -> Result<(), String>;

    /// Computes what depends on all tensors, and returns the function that merges one tensor.
    fn begin<'a>(&'a self, tensors: &Tensors) -> Result<PerTensor<'a>, MergeError>;
}

/// Returns the function that merges the pieces of a tensor.
pub type PerTensor<'a> = Box<dyn Fn(&Operands) -> Result<PerPiece<'a>, MergeError> + Sync + 'a>;

/// Merges numbers: the pieces of a tensor come in order.
pub type PerPiece<'a> = Box<dyn FnMut(&mut Piece, &mut [f32]) + 'a>;

/// The type of intermediate results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Intermediates {
    /// f32: with inputs of bf16 nothing is rounded before the result.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// bf16 after every step, as mergekit computes with inputs of bf16.
    #[serde(rename = "bf16")]
    Bf16,
}

impl Intermediates {
    /// Rounds an intermediate result.
    fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => crate::floats::rounded(safetensors::Dtype::BF16, value),
        }
    }
}

/// The numbers among which magnitudes are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Each tensor by itself.
    #[default]
    Tensor,
    /// The whole model at once.
    Model,
}

/// The share of numbers to keep, in (0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "PerModel", into = "PerModel")]
pub struct Density(PerModel);

impl TryFrom<PerModel> for Density {
    type Error = String;

    fn try_from(settings: PerModel) -> Result<Self, String> {
        let is_density = |number: f64| number > 0.0 && number <= 1.0;
        for setting in settings.settings() {
            setting.check("a density: they are above 0 and at most 1", is_density)?;
        }
        Ok(Self(settings))
    }
}

impl From<Density> for PerModel {
    fn from(density: Density) -> Self {
        density.0
    }
}

impl Density {
    /// The same density everywhere.
    ///
    /// # Errors
    /// If it is not above 0 and at most 1.
    pub fn of(density: f64) -> Result<Self, String> {
        PerModel::All(Setting::Number(density)).try_into()
    }

    /// Checks that every model has one, and that no other has.
    fn check(&self, models: &[&str]) -> Result<(), String> {
        if let PerModel::Each(settings) = &self.0 {
            if let Some(name) = settings.keys().find(|name| !models.contains(&name.as_str())) {
                return Err(format!("`density` names `{name}`, which is not among the models"));
            }
            if let Some(name) = models.iter().find(|name| !settings.contains_key(**name)) {
                return Err(format!("`density` leaves out `{name}`"));
            }
        }
        Ok(())
    }

    /// Returns the densities of the models in a tensor; what no rule fits is kept whole.
    fn at(&self, tensor: &Operands) -> Vec<f64> {
        let of = |name: &String| self.0.of(name).and_then(|setting| setting.at(&tensor.place));
        tensor.labels().iter().map(|name| of(name).unwrap_or(1.0)).collect()
    }
}

/// Checks that there is something to merge.
fn at_least(least: usize, models: &[&str]) -> Result<(), String> {
    if models.len() >= least {
        return Ok(());
    }
    Err(format!("at least {least} models are needed, and there are {}", models.len()))
}

/// The default factor of the sum.
fn default_lambda() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::schema_for;

    fn method(written: &str) -> Result<Method, String> {
        serde_json::from_str(written).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_written_out() {
        for (written, expected) in [
            (r#"{"slerp":{}}"#, r#"{"slerp":{"vectors":"weights","angle":"tensor"}}"#),
            (
                r#"{"ties":{}}"#,
                r#"{"ties":{"density":0.2,"rule":"mergekit","trim":"tensor","lambda":1.0,"intermediates":"f32"}}"#,
            ),
            (r#"{"task-arithmetic":{}}"#, r#"{"task-arithmetic":{"lambda":1.0,"intermediates":"f32"}}"#),
            (r#"{"soup":{}}"#, r#"{"soup":{}}"#),
            (
                r#"{"dare":{"density":[0.2,1]}}"#,
                r#"{"dare":{"density":[0.2,1.0],"seed":0,"join":"sum","lambda":1.0}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&method(written).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn densities_are_above_zero_and_at_most_one() {
        for density in ["0", "-0.1", "1.1", "[0.5, 0]", "[]", r#"{"a":2}"#, r#"[{"value":0}]"#, "\"x\""] {
            let message = method(&format!(r#"{{"ties":{{"density":{density}}}}}"#)).unwrap_err();
            assert!(message.contains("density") || message.contains("empty") || message.contains("expected"));
        }
        let each = method(r#"{"ties":{"density":{"a":0.5,"b":[1,0.1]}}}"#).unwrap();
        assert_eq!(each.check(&["a", "b"], Normalization::SumToOne), Ok(()));
        assert!(each.check(&["a", "c"], Normalization::SumToOne).unwrap_err().contains("names `b`"));
        assert!(
            each.check(&["a", "b", "c"], Normalization::SumToOne).unwrap_err().contains("leaves out `c`")
        );
    }

    #[test]
    fn slerp_takes_two_and_a_ratio() {
        let slerp = method(r#"{"slerp":{}}"#).unwrap();
        assert!(slerp.check(&["a", "b", "c"], Normalization::SumToOne).unwrap_err().contains("there are 3"));
        assert!(slerp.check(&["a", "b"], Normalization::None).unwrap_err().contains("`ratio`"));
        assert!(!slerp.needs_base());
        assert!(method(r#"{"slerp":{"vectors":"task"}}"#).unwrap().needs_base());
    }

    #[test]
    fn the_schema_tells_settings_from_tables() {
        let schema = schema_for!(Method).to_value().to_string();
        for word in ["task-arithmetic", "name_has", "numbers spread over the layers", "embeddings"] {
            assert!(schema.contains(word), "{word}: {schema}");
        }
    }
}
