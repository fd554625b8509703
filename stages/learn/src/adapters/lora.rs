//! LoRA: Hu et al., 2021, eq. 3: `h = W x + (alpha / r) B A x`.
//!
//! `A` begins as PEFT begins it, evenly from `-1/sqrt(in)` to `1/sqrt(in)` (Kaiming's bound at a
//! negative slope of `sqrt 5`), `B` at zero, so that the first step computes what the base does.
//! `r` defaults to 64, `alpha` to 16 and `dropout` to 0.1: Less for More, section 4.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CheckAdapter;
use crate::model::ModelError;
use crate::parameters::{Parameter, Slot};
use crate::precision::Precision;
use crate::random::{Purpose, Random};

/// The version of what it computes.
pub const VERSION: u32 = 1;

/// How low-rank adapters are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// The rank.
    #[serde(default = "default_r")]
    pub r: u32,
    /// What the product is scaled by, times the rank.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// The share of an adapter's inputs that a training step leaves out.
    #[serde(default = "default_dropout")]
    pub dropout: f64,
    /// The projections that get one, by the last part of their name; all but the head if empty.
    #[serde(default)]
    pub target_modules: Vec<String>,
}

pub(super) fn default_r() -> u32 {
    64
}

pub(super) fn default_alpha() -> f64 {
    16.0
}

pub(super) fn default_dropout() -> f64 {
    0.1
}

impl CheckAdapter for Lora {
    fn check(&self) -> Result<(), String> {
        match () {
            () if self.r == 0 => Err("`r` is the rank of an adapter: at least 1".to_owned()),
            () if !(self.alpha.is_finite() && self.alpha > 0.0) => {
                Err(format!("`alpha` is a number above 0, not {}", self.alpha))
            }
            () if !(0.0..1.0).contains(&self.dropout) => {
                Err(format!("`dropout` is a share from 0 to below 1, not {}", self.dropout))
            }
            () => Ok(()),
        }
    }
}

/// The low-rank product beside one projection.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    /// `[r, in]`.
    pub a: Parameter<2>,
    /// `[out, r]`.
    pub b: Parameter<2>,
    /// `alpha / r`.
    pub scale: f64,
    /// What this step leaves out of the input, where it is training.
    pub dropout: Option<Dropout>,
}

/// Which inputs one step leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// The share.
    pub probability: f64,
    /// The experiment's seed.
    pub seed: u64,
    /// A number that no other adapter and step has.
    pub occasion: u64,
}

impl Adapter {
    /// Begins the adapter number `number` of a model, beside a projection of shape `[out, in]`.
    pub fn new(lora: &Lora, [output, input]: [usize; 2], seed: u64, number: u64, device: &Device) -> Self {
        let rank = lora.r as usize;
        let mut random = Random::new(seed, Purpose::Adapter, number);
        let a = TensorData::new(random.uniform(rank * input, 1.0 / (input as f32).sqrt()), [rank, input]);
        let a = Tensor::from_data(a, device);
        let b = Tensor::zeros([output, rank], device);
        let scale = lora.alpha / f64::from(lora.r);
        Self { a: Parameter::new(a), b: Parameter::new(b), scale, dropout: None }
    }

    /// Returns what it adds: `[tokens, in]` to `[tokens, out]`.
    pub fn forward(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let x = match self.dropout {
            Some(Dropout { probability, seed, occasion }) if probability > 0.0 => {
                let [tokens, width] = x.dims();
                let kept =
                    Random::new(seed, Purpose::Dropout, occasion).dropout(tokens * width, probability as f32);
                let kept = Tensor::from_data(TensorData::new(kept, [tokens, width]), &x.device());
                x * kept
            }
            _ => x,
        };
        let low = precision.linear(x, self.a.get());
        precision.linear(low, self.b.get()).mul_scalar(self.scale)
    }

    /// Returns `(alpha / r) B A`, what it adds to the weight.
    pub fn delta(&self) -> Tensor<2> {
        self.b.get().matmul(self.a.get()).mul_scalar(self.scale)
    }

    /// Shows its parameters, by PEFT's names without the prefix.
    pub fn visit(&mut self, path: &str, see: &mut dyn FnMut(String, Slot<'_>)) {
        see(format!("{path}.lora_A.weight"), Slot::Matrix(&mut self.a));
        see(format!("{path}.lora_B.weight"), Slot::Matrix(&mut self.b));
    }
}

/// Writes adapters as PEFT does: `adapter_config.json` and `adapter_model.safetensors`.
pub(crate) fn save(
    folder: &Path,
    config: &serde_json::Value,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
) -> Result<(), ModelError> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, numbers)| numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the bytes fit the shape");
        (name.as_str(), view)
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let file = safetensors::serialize(views, Some(metadata)).expect("the tensors fit their shapes");
    let config = serde_json::to_string_pretty(config).expect("a table is JSON") + "\n";
    let files = [("adapter_model.safetensors", file), ("adapter_config.json", config.into_bytes())];
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|source| ModelError::Copy { path, source })?;
    }
    Ok(())
}
