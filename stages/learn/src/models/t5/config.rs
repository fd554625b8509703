//! The sizes of a T5, from parameters or from `config.json`.

use burn_tensor::Tensor;
use burn_tensor::activation::{gelu_approximate, relu, silu};
use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::network::{FromScratch, ModelConfig, Reader, Shape, UnusableConfig};
use crate::tensor::fused::gelu;

/// The version of what a model made from scratch begins with.
pub(crate) const VERSION: u32 = 1;

/// The sizes of a model made from scratch, by transformers' names and with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct T5 {
    /// The width of the residual stream.
    pub d_model: u32,
    /// The width of a head.
    pub d_kv: u32,
    /// The width of the MLP.
    pub d_ff: u32,
    /// The layers of the encoder.
    pub num_layers: u32,
    /// The layers of the decoder; as many as the encoder's if not given.
    pub num_decoder_layers: Option<u32>,
    /// The heads of a layer's attention.
    pub num_heads: u32,
    /// What the MLP is: version 1.0's or 1.1's.
    #[serde(default)]
    pub feed_forward_proj: FeedForwardProj,
    /// How many relative positions are told apart.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: u32,
    /// From where on positions are not told apart.
    #[serde(default = "default_distance")]
    pub relative_attention_max_distance: u32,
    /// The share of numbers that a training step leaves out.
    #[serde(default = "default_dropout")]
    pub dropout_rate: f64,
    /// The longest prompt, and the longest output, in tokens.
    #[serde(default = "default_positions")]
    pub n_positions: u32,
    /// Whether the head is the embedding, and states are scaled before it.
    #[serde(default = "default_tied")]
    pub tie_word_embeddings: bool,
}

fn default_buckets() -> u32 {
    32
}

fn default_distance() -> u32 {
    128
}

fn default_dropout() -> f64 {
    0.1
}

fn default_positions() -> u32 {
    512
}

fn default_tied() -> bool {
    true
}

/// The MLPs that a model made from scratch can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeedForwardProj {
    /// One projection and ReLU: version 1.0.
    #[default]
    Relu,
    /// Two projections, one of them gating by GELU: version 1.1.
    GatedGelu,
}

impl T5 {
    /// Returns the configuration of such a model with a vocabulary of this size.
    fn config(&self, vocab_size: usize, start: u32) -> T5Config {
        let (gated, activation) = match self.feed_forward_proj {
            FeedForwardProj::Relu => (false, T5Activation::Relu),
            FeedForwardProj::GatedGelu => (true, T5Activation::GeluNew),
        };
        T5Config {
            vocab_size,
            d_model: self.d_model as usize,
            d_kv: self.d_kv as usize,
            d_ff: self.d_ff as usize,
            layers: self.num_layers as usize,
            decoder_layers: self.num_decoder_layers.unwrap_or(self.num_layers) as usize,
            heads: self.num_heads as usize,
            buckets: self.relative_attention_num_buckets as usize,
            max_distance: self.relative_attention_max_distance as usize,
            dropout: self.dropout_rate,
            epsilon: 1e-6,
            gated,
            activation,
            tied: self.tie_word_embeddings,
            scaled: self.tie_word_embeddings,
            start,
            positions: Some(self.n_positions as usize),
            initializer_factor: 1.0,
        }
    }
}

impl Shape for T5 {
    fn check(&self) -> Result<(), FieldError> {
        FieldError::check_counts([
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_decoder_layers", self.num_decoder_layers.unwrap_or(1)),
            ("num_heads", self.num_heads),
            ("n_positions", self.n_positions),
        ])?;
        if !(0.0..1.0).contains(&self.dropout_rate) {
            let message = format!("`dropout_rate` is a share from 0 to below 1, not {}", self.dropout_rate);
            return Err(FieldError::new("dropout_rate", message));
        }
        check_buckets(
            self.relative_attention_num_buckets as usize,
            self.relative_attention_max_distance as usize,
        )
        .map_err(|(field, problem)| FieldError::new(field, format!("`{field}` {problem}")))
    }
}

impl FromScratch for T5 {
    fn model_config(&self, vocabulary_size: usize, pad: u32) -> Box<dyn ModelConfig> {
        Box::new(self.config(vocabulary_size, pad))
    }
}

/// Says what is wrong with how relative positions are told apart.
fn check_buckets(buckets: usize, max_distance: usize) -> Result<(), (&'static str, String)> {
    // The encoder halves them by direction, and both halve them by whether they are exact.
    if buckets < 4 || !buckets.is_multiple_of(2) {
        return Err(("relative_attention_num_buckets", format!("is an even number from 4, not {buckets}")));
    }
    if max_distance <= buckets / 2 {
        let problem = format!("is above half of the {buckets} buckets, not {max_distance}");
        return Err(("relative_attention_max_distance", problem));
    }
    Ok(())
}

/// The sizes of a model, and what else its configuration says of how it computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct T5Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_kv: usize,
    pub d_ff: usize,
    pub layers: usize,
    pub decoder_layers: usize,
    pub heads: usize,
    pub buckets: usize,
    pub max_distance: usize,
    pub dropout: f64,
    pub epsilon: f64,
    pub gated: bool,
    pub activation: T5Activation,
    /// Whether the configuration says that the head is the embedding. A file may hold another.
    pub tied: bool,
    /// Whether states are scaled before the head.
    pub scaled: bool,
    /// The token that an output is begun with.
    pub start: u32,
    pub positions: Option<usize>,
    pub initializer_factor: f64,
}

/// What the MLP does between its projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum T5Activation {
    Relu,
    Gelu,
    GeluNew,
    Silu,
}

impl T5Activation {
    pub(crate) fn apply(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Relu => relu(x),
            Self::Gelu => gelu(x),
            Self::GeluNew => gelu_approximate(x),
            Self::Silu => silu(x),
        }
    }
}

impl T5Config {
    /// Reads `config.json`. What is not there is what transformers takes it for.
    pub(crate) fn read(config: &Map<String, Value>) -> Result<Self, UnusableConfig> {
        let read = Reader::new(config);
        let layers = read.size("num_layers")?;
        let buckets = read.size_or("relative_attention_num_buckets", 32)?;
        let max_distance = read.size_or("relative_attention_max_distance", 128)?;
        check_buckets(buckets, max_distance).map_err(|(field, problem)| read.unusable(field, problem))?;
        let dropout = read.number_or("dropout_rate", 0.1)?;
        if !(0.0..1.0).contains(&dropout) {
            return Err(read.unusable("dropout_rate", format!("{dropout} is no share from 0 to below 1")));
        }
        let written = read.text_or("feed_forward_proj", "relu")?;
        let (gated, name) = match written.split_once('-') {
            Some(("gated", name)) => (true, name),
            _ => (false, written),
        };
        let activation = match name {
            "relu" => T5Activation::Relu,
            // The paper's first code and transformers both take the tangent form for it.
            "gelu" if gated => T5Activation::GeluNew,
            "gelu" => T5Activation::Gelu,
            "gelu_new" => T5Activation::GeluNew,
            "silu" | "swish" => T5Activation::Silu,
            _ => {
                let known = "`relu`, `gelu`, `gelu_new` and `silu` are, alone or after `gated-`";
                return Err(read.unusable("feed_forward_proj", format!("`{written}` is not known; {known}")));
            }
        };
        let tied = read.truth_or("tie_word_embeddings", true)?;
        let vocab_size = read.size("vocab_size")?;
        let pad = read.token_or("pad_token_id", 0)?;
        let start = read.token_or("decoder_start_token_id", pad)?;
        if start as usize >= vocab_size {
            let problem = format!("{start} is no token of a vocabulary of {vocab_size}");
            return Err(read.unusable("decoder_start_token_id", problem));
        }
        Ok(Self {
            vocab_size,
            d_model: read.size("d_model")?,
            d_kv: read.size_or("d_kv", 64)?,
            d_ff: read.size("d_ff")?,
            layers,
            decoder_layers: read.size_or("num_decoder_layers", layers)?,
            heads: read.size("num_heads")?,
            buckets,
            max_distance,
            dropout,
            epsilon: read.positive_or("layer_norm_epsilon", 1e-6)?,
            gated,
            activation,
            tied,
            // Since version 5 transformers writes of a 1.1 model that it is tied, and this.
            scaled: read.truth_or("scale_decoder_outputs", tied)?,
            start,
            positions: read.optional_size("n_positions")?,
            initializer_factor: read.number_or("initializer_factor", 1.0)?,
        })
    }

    /// Writes `config.json` for a model made from scratch.
    pub(crate) fn write(&self) -> Map<String, Value> {
        let (feed_forward_proj, activation) =
            if self.gated { ("gated-gelu", "gelu_new") } else { ("relu", "relu") };
        let config = json!({
            "architectures": ["T5ForConditionalGeneration"],
            "model_type": "t5",
            "d_ff": self.d_ff,
            "d_kv": self.d_kv,
            "d_model": self.d_model,
            "decoder_start_token_id": self.start,
            "dense_act_fn": activation,
            "dropout_rate": self.dropout,
            "dtype": "float32",
            "feed_forward_proj": feed_forward_proj,
            "initializer_factor": self.initializer_factor,
            "is_encoder_decoder": true,
            "is_gated_act": self.gated,
            "layer_norm_epsilon": self.epsilon,
            "n_positions": self.positions,
            "num_decoder_layers": self.decoder_layers,
            "num_heads": self.heads,
            "num_layers": self.layers,
            "relative_attention_max_distance": self.max_distance,
            "relative_attention_num_buckets": self.buckets,
            "tie_word_embeddings": self.tied,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        match config {
            Value::Object(config) => config,
            _ => unreachable!("it is written as an object"),
        }
    }

    /// Returns how far the first numbers of a matrix are spread, as transformers draws them.
    pub(crate) fn std(&self, name: &str) -> f64 {
        let root = |width: usize| (width as f64).powf(-0.5);
        let parts: Vec<&str> = name.rsplit('.').collect();
        let spread = match parts.get(1).copied().unwrap_or_default() {
            "q" => root(self.d_model * self.d_kv),
            "o" => root(self.heads * self.d_kv),
            "wo" => root(self.d_ff),
            "shared" | "lm_head" => 1.0,
            _ => root(self.d_model),
        };
        spread * self.initializer_factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::t5::T5ForConditionalGeneration;
    use crate::network::{RandomInit, list};
    use crate::tensor::parameters::Parameters as _;
    use burn_tensor::Device;

    fn shape(text: &str) -> T5 {
        serde_json::from_str(text).unwrap()
    }

    const SMALL: &str = r#"{"d_model": 64, "d_kv": 20, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}"#;

    #[test]
    fn numbers_begin_as_spread_as_transformers_has_them() {
        let config = shape(SMALL).config(300, 0);
        let (device, sizes) = (Device::flex(), config.clone());
        let std = |name: &str| sizes.std(name);
        let mut source = RandomInit::new(1, &std, &device);
        let mut model = T5ForConditionalGeneration::build(config, &mut source).unwrap();
        let wanted = |name: &str| -> f64 {
            match name {
                "shared.weight" => 1.0,
                _ if name.ends_with(".q.weight") => (64.0 * 20.0f64).powf(-0.5),
                _ if name.ends_with(".o.weight") => (4.0 * 20.0f64).powf(-0.5),
                _ if name.ends_with(".wo.weight") => 96f64.powf(-0.5),
                _ if name.ends_with("norm.weight") => 0.0,
                _ => 64f64.powf(-0.5),
            }
        };
        let mut seen = 0;
        model.visit(&mut |name, parameter| {
            let numbers: Vec<f32> = parameter.flat().into_data().try_into_vec().unwrap();
            let count = numbers.len() as f64;
            let mean = numbers.iter().map(|number| f64::from(*number)).sum::<f64>() / count;
            let squares = numbers.iter().map(|number| (f64::from(*number) - mean).powi(2)).sum::<f64>();
            let (found, wanted) = ((squares / count).sqrt(), wanted(&name));
            // Four standard errors of a standard deviation.
            assert!(
                (found - wanted).abs() <= 4.0 * wanted / (2.0 * count).sqrt(),
                "{name}: {found} {wanted}"
            );
            seen += 1;
        });
        assert_eq!(seen, 1 + 2 * (5 + 3) + (10 + 3) + 4);
    }

    #[test]
    fn what_is_listed_is_what_there_is() {
        for more in ["}", r#", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#] {
            let (config, device) = (shape(&SMALL.replace('}', more)).config(300, 0), Device::flex());
            let mut model = config.build(&mut RandomInit::new(1, &|_| 0.1, &device)).unwrap();
            let mut found = Vec::new();
            model.visit(&mut |name, parameter| found.push((name, parameter.shape())));
            let listed = list(|source| config.build(source).map(drop)).into_iter();
            let mut listed: Vec<_> = listed.map(|parameter| (parameter.name, parameter.shape)).collect();
            found.sort();
            listed.sort();
            assert_eq!(found, listed);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for more in
            ["}", r#", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "dropout_rate": 0}"#]
        {
            let config = shape(&SMALL.replace('}', more)).config(300, 7);
            assert_eq!(T5Config::read(&config.write()).unwrap(), config);
        }
    }
}
