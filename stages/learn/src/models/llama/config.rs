//! The sizes of a LLaMA, from parameters or from `config.json`, and what its parameters are called.

use choice::FieldError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::network::{FromScratch, ModelConfig, Reader, Shape, UnusableConfig};

/// The version of what a model made from scratch begins with.
pub(crate) const VERSION: u32 = 1;

/// The sizes of a model made from scratch, by transformers' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Llama {
    /// The width of the residual stream.
    pub hidden_size: u32,
    /// The width of the MLP.
    pub intermediate_size: u32,
    /// The layers.
    pub num_hidden_layers: u32,
    /// The heads of a layer's attention.
    pub num_attention_heads: u32,
    /// The heads that have keys and values of their own; as many as heads if not given.
    pub num_key_value_heads: Option<u32>,
    /// The longest text, in tokens.
    pub max_position_embeddings: u32,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The base of the rotary frequencies.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
}

fn default_theta() -> f64 {
    10_000.0
}

impl Llama {
    /// Returns the configuration of such a model with a vocabulary of this size.
    fn config(&self, vocab_size: usize) -> LlamaConfig {
        let heads = self.num_attention_heads as usize;
        LlamaConfig {
            naming: TensorNaming::Llama,
            vocab_size,
            hidden_size: self.hidden_size as usize,
            intermediate_size: self.intermediate_size as usize,
            layers: self.num_hidden_layers as usize,
            heads,
            key_value_heads: self.num_key_value_heads.map_or(heads, |heads| heads as usize),
            head_size: self.hidden_size as usize / heads.max(1),
            max_positions: self.max_position_embeddings as usize,
            epsilon: 1e-5,
            tied: self.tie_word_embeddings,
            attention_bias: false,
            mlp_bias: false,
            rope: RopeConfig { theta: self.rope_theta, scaling: RopeScaling::None },
            initializer_range: 0.02,
        }
    }
}

impl Shape for Llama {
    fn check(&self) -> Result<(), FieldError> {
        FieldError::check_counts([
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads.unwrap_or(1)),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden % (2 * heads) != 0 {
            let message =
                format!("a `hidden_size` of {hidden} does not give {heads} heads an even width each");
            return Err(FieldError::new("hidden_size", message)
                .help(format!("choose a multiple of {}, or other `num_attention_heads`", 2 * heads)));
        }
        match self.num_key_value_heads {
            Some(keys) if heads % keys != 0 => {
                let message =
                    format!("{keys} `num_key_value_heads` do not divide {heads} `num_attention_heads`");
                Err(FieldError::new("num_key_value_heads", message))
            }
            _ if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) => {
                let message = format!("`rope_theta` is a number above 1, not {}", self.rope_theta);
                Err(FieldError::new("rope_theta", message))
            }
            _ => Ok(()),
        }
    }
}

impl FromScratch for Llama {
    fn model_config(&self, vocabulary_size: usize, _pad: u32) -> Box<dyn ModelConfig> {
        Box::new(self.config(vocabulary_size))
    }
}

/// The sizes of a model, and what else its configuration says of how it computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LlamaConfig {
    pub naming: TensorNaming,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub key_value_heads: usize,
    pub head_size: usize,
    pub max_positions: usize,
    pub epsilon: f64,
    pub tied: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    pub rope: RopeConfig,
    pub initializer_range: f64,
}

/// What the parameters are called, and how the projections before attention lie in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorNaming {
    /// Transformers'.
    Llama,
    /// InternLM2's: one projection for queries, keys and values.
    InternLm2,
}

/// What the parameters are called, those of a layer without its number.
pub(super) struct Names {
    pub embed_tokens: &'static str,
    pub input_layernorm: &'static str,
    pub o_proj: &'static str,
    pub post_attention_layernorm: &'static str,
    pub gate_proj: &'static str,
    pub up_proj: &'static str,
    pub down_proj: &'static str,
    pub lm_head: &'static str,
}

impl TensorNaming {
    /// Returns the names of the embedding and of the head.
    pub(crate) fn embedding_and_head(self) -> (&'static str, &'static str) {
        let names = self.names();
        (names.embed_tokens, names.lm_head)
    }

    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Llama => &Names {
                embed_tokens: "model.embed_tokens.weight",
                input_layernorm: "input_layernorm.weight",
                o_proj: "self_attn.o_proj",
                post_attention_layernorm: "post_attention_layernorm.weight",
                gate_proj: "mlp.gate_proj",
                up_proj: "mlp.up_proj",
                down_proj: "mlp.down_proj",
                lm_head: "lm_head.weight",
            },
            Self::InternLm2 => &Names {
                embed_tokens: "model.tok_embeddings.weight",
                input_layernorm: "attention_norm.weight",
                o_proj: "attention.wo",
                post_attention_layernorm: "ffn_norm.weight",
                gate_proj: "feed_forward.w1",
                up_proj: "feed_forward.w3",
                down_proj: "feed_forward.w2",
                lm_head: "output.weight",
            },
        }
    }
}

/// How positions turn into angles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How a context longer than the first one is reached.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RopeScaling {
    /// As trained. `dynamic` is this too: it changes angles beyond `max_position_embeddings` only,
    /// and no text gets there.
    None,
    /// Every angle divided.
    Linear { factor: f64 },
    /// Low frequencies divided, high ones kept: LLaMA 3.1.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original: f64 },
}

impl LlamaConfig {
    /// Reads `config.json`.
    pub(crate) fn read(config: &Map<String, Value>) -> Result<Self, UnusableConfig> {
        let read = Reader::new(config);
        let heads = read.size("num_attention_heads")?;
        let hidden_size = read.size("hidden_size")?;
        let key_value_heads = read.size_or("num_key_value_heads", heads)?;
        let head_size = match read.optional_size("head_dim")? {
            Some(size) => size,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => {
                return Err(read.unusable(
                    "num_attention_heads",
                    format!("{heads} heads do not divide a hidden size of {hidden_size}"),
                ));
            }
        };
        if heads % key_value_heads != 0 {
            let message = format!("{key_value_heads} key-value heads do not divide {heads} heads");
            return Err(read.unusable("num_key_value_heads", message));
        }
        if head_size % 2 != 0 {
            return Err(
                read.unusable("head_dim", format!("rotary positions need an even one, not {head_size}"))
            );
        }
        let activation = read.text_or("hidden_act", "silu")?;
        if activation != "silu" && activation != "swish" {
            return Err(read.unusable("hidden_act", format!("`{activation}` is not known; `silu` is")));
        }
        Ok(Self {
            naming: TensorNaming::Llama,
            vocab_size: read.size("vocab_size")?,
            hidden_size,
            intermediate_size: read.size("intermediate_size")?,
            layers: read.size("num_hidden_layers")?,
            heads,
            key_value_heads,
            head_size,
            max_positions: read.size_or("max_position_embeddings", 2048)?,
            epsilon: read.positive_or("rms_norm_eps", 1e-6)?,
            tied: read.truth_or("tie_word_embeddings", false)?,
            attention_bias: read.truth_or("attention_bias", false)?,
            mlp_bias: read.truth_or("mlp_bias", false)?,
            rope: RopeConfig::read(&read)?,
            initializer_range: read.number_or("initializer_range", 0.02)?,
        })
    }

    /// Writes `config.json` for a model made from scratch.
    pub(crate) fn write(&self) -> Map<String, Value> {
        let config = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "dtype": "float32",
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions,
            "mlp_bias": self.mlp_bias,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "rms_norm_eps": self.epsilon,
            // Older readers know the first spelling, newer ones the second.
            "rope_theta": self.rope.theta,
            "rope_parameters": { "rope_theta": self.rope.theta, "rope_type": "default" },
            "tie_word_embeddings": self.tied,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        match config {
            Value::Object(config) => config,
            _ => unreachable!("it is written as an object"),
        }
    }
}

impl RopeConfig {
    /// Reads either spelling: `rope_parameters`, or `rope_theta` and `rope_scaling`.
    fn read(read: &Reader<'_>) -> Result<Self, UnusableConfig> {
        let parameters = match read.table("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => read.table("rope_scaling")?,
        };
        let Some(parameters) = parameters else {
            return Ok(Self { theta: read.positive_or("rope_theta", 10_000.0)?, scaling: RopeScaling::None });
        };
        let theta = parameters.positive_or("rope_theta", read.number_or("rope_theta", 10_000.0)?)?;
        let older = parameters.text_or("type", "default")?;
        let scaling = match parameters.text_or("rope_type", older)? {
            "default" => RopeScaling::None,
            "dynamic" => {
                parameters.positive("factor")?;
                RopeScaling::None
            }
            "linear" => RopeScaling::Linear { factor: parameters.positive("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: parameters.positive("factor")?,
                low_freq_factor: parameters.positive("low_freq_factor")?,
                high_freq_factor: parameters.positive("high_freq_factor")?,
                original: parameters.positive("original_max_position_embeddings")?,
            },
            other => {
                let message =
                    format!("`{other}` is not known; `default`, `linear`, `dynamic` and `llama3` are");
                return Err(parameters.unusable("rope_type", message));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// Returns radians per position for each pair of dimensions of a head.
    pub(crate) fn frequencies(&self, head_size: usize) -> Vec<f64> {
        let plain = (0..head_size / 2).map(|pair| {
            // In single precision, as transformers computes them.
            let exponent = (2 * pair) as f32 / head_size as f32;
            1.0 / (self.theta as f32).powf(exponent)
        });
        plain.map(|frequency| f64::from(self.scaling.apply(frequency))).collect()
    }
}

impl RopeScaling {
    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let wavelength = std::f32::consts::TAU / frequency;
                let (low, high) = (original / low_freq_factor, original / high_freq_factor);
                if f64::from(wavelength) < high {
                    frequency
                } else if f64::from(wavelength) > low {
                    frequency / factor as f32
                } else {
                    let smooth = (original as f32 / wavelength - low_freq_factor as f32)
                        / (high_freq_factor - low_freq_factor) as f32;
                    (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
                }
            }
        }
    }
}
