//! LLaMA: Touvron et al., 2023, as transformers' `LlamaForCausalLM` computes it.
//!
//! Pre-normalisation by RMSNorm, rotary positions (halves, not pairs), SwiGLU, grouped-query
//! attention where there are fewer key-value heads, and a head that is tied to the embedding or
//! not. `rope_type` `default`, `linear` and `llama3` are known.

use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{Reader, UnusableConfig};
use crate::layers::{Angles, Linear, Rope, Weight, places, rms_norm};
use crate::model::Shape;
use crate::parameters::{Parameter, Parameters, Slot};
use crate::random::{Purpose, Random};

/// The version of what a model made from scratch begins with.
pub const VERSION: u32 = 1;

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
    pub(crate) fn config(&self, vocab_size: usize) -> Config {
        let heads = self.num_attention_heads as usize;
        Config {
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
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads.unwrap_or(1)),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("`{name}` is at least 1"));
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden % (2 * heads) != 0 {
            return Err(format!(
                "a `hidden_size` of {hidden} does not give {heads} heads an even width each"
            ));
        }
        match self.num_key_value_heads {
            Some(keys) if heads % keys != 0 => {
                Err(format!("{keys} `num_key_value_heads` do not divide {heads} `num_attention_heads`"))
            }
            _ if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) => {
                Err(format!("`rope_theta` is a number above 1, not {}", self.rope_theta))
            }
            _ => Ok(()),
        }
    }

    fn parameters(&self, vocabulary_size: usize) -> u64 {
        let config = self.config(vocabulary_size);
        let (hidden, wide) = (config.hidden_size as u64, config.intermediate_size as u64);
        let keys = (config.key_value_heads * config.head_size) as u64;
        let layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * wide + 2 * hidden;
        let embeddings = if config.tied { 1 } else { 2 };
        config.layers as u64 * layer + hidden + embeddings * hidden * vocabulary_size as u64
    }
}

/// The sizes of a model, and what else its configuration says of how it computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
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

/// How positions turn into angles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How a context longer than the first one is reached.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RopeScaling {
    /// As trained.
    None,
    /// Every angle divided.
    Linear { factor: f64 },
    /// Low frequencies divided, high ones kept: LLaMA 3.1.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original: f64 },
}

impl Config {
    /// Reads `config.json`.
    pub fn read(config: &Map<String, Value>) -> Result<Self, UnusableConfig> {
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
            vocab_size: read.size("vocab_size")?,
            hidden_size,
            intermediate_size: read.size("intermediate_size")?,
            layers: read.size("num_hidden_layers")?,
            heads,
            key_value_heads,
            head_size,
            max_positions: read.size_or("max_position_embeddings", 2048)?,
            epsilon: read.number_or("rms_norm_eps", 1e-6)?,
            tied: read.truth_or("tie_word_embeddings", false)?,
            attention_bias: read.truth_or("attention_bias", false)?,
            mlp_bias: read.truth_or("mlp_bias", false)?,
            rope: RopeConfig::read(&read)?,
            initializer_range: read.number_or("initializer_range", 0.02)?,
        })
    }

    /// Writes `config.json` for a model made from scratch.
    pub fn write(&self) -> Map<String, Value> {
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
            return Ok(Self { theta: read.number_or("rope_theta", 10_000.0)?, scaling: RopeScaling::None });
        };
        let theta = parameters.number_or("rope_theta", read.number_or("rope_theta", 10_000.0)?)?;
        let older = parameters.text_or("type", "default")?;
        let scaling = match parameters.text_or("rope_type", older)? {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: parameters.number("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: parameters.number("factor")?,
                low_freq_factor: parameters.number("low_freq_factor")?,
                high_freq_factor: parameters.number("high_freq_factor")?,
                original: parameters.number("original_max_position_embeddings")?,
            },
            other => {
                let message = format!("`{other}` is not known; `default`, `linear` and `llama3` are");
                return Err(parameters.unusable("rope_type", message));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// Returns radians per position for each pair of dimensions of a head.
    pub fn frequencies(&self, head_size: usize) -> Vec<f64> {
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

/// A model with its weights.
#[derive(Debug, Clone)]
pub(crate) struct LlamaForCausalLM {
    pub config: Config,
    pub embed_tokens: Parameter<2>,
    pub layers: Vec<Block>,
    pub norm: Parameter<1>,
    /// Where it is not tied to the embedding.
    pub lm_head: Option<Parameter<2>>,
    rope: Rope,
}

/// What layers need besides their input.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    rows: usize,
    angles: Angles,
    bias: Tensor<4>,
}

impl Surroundings {
    /// Puts them beside a tape.
    pub fn autodiff(self) -> Self {
        Self { rows: self.rows, angles: self.angles.autodiff(), bias: self.bias.autodiff() }
    }
}

/// One layer.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub input_layernorm: Parameter<1>,
    pub q_proj: Linear,
    pub k_proj: Linear,
    pub v_proj: Linear,
    pub o_proj: Linear,
    pub post_attention_layernorm: Parameter<1>,
    pub gate_proj: Linear,
    pub up_proj: Linear,
    pub down_proj: Linear,
}

impl LlamaForCausalLM {
    /// Makes a model of a configuration, each parameter by a function of name and shape.
    pub fn build<E>(config: Config, device: &Device, source: &mut dyn Source<E>) -> Result<Self, E> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.heads * config.head_size, config.key_value_heads * config.head_size);
        let embed_tokens = source.matrix("model.embed_tokens.weight", [config.vocab_size, hidden])?;
        let mut layers = Vec::with_capacity(config.layers);
        for number in 0..config.layers {
            let path = format!("model.layers.{number}");
            let mut linear = |name: &str, shape: [usize; 2], has_bias: bool| -> Result<Linear, E> {
                let mut linear = Linear::new(source.matrix(&format!("{path}.{name}.weight"), shape)?);
                if has_bias {
                    let bias = source.vector(&format!("{path}.{name}.bias"), shape[0])?;
                    linear.bias = Some(Parameter::new(bias));
                }
                Ok(linear)
            };
            let attention = config.attention_bias;
            let q_proj = linear("self_attn.q_proj", [queries, hidden], attention)?;
            let k_proj = linear("self_attn.k_proj", [keys, hidden], attention)?;
            let v_proj = linear("self_attn.v_proj", [keys, hidden], attention)?;
            let o_proj = linear("self_attn.o_proj", [hidden, queries], attention)?;
            let gate_proj = linear("mlp.gate_proj", [wide, hidden], config.mlp_bias)?;
            let up_proj = linear("mlp.up_proj", [wide, hidden], config.mlp_bias)?;
            let down_proj = linear("mlp.down_proj", [hidden, wide], config.mlp_bias)?;
            let mut norm =
                |name: &str| source.vector(&format!("{path}.{name}.weight"), hidden).map(Parameter::new);
            layers.push(Block {
                input_layernorm: norm("input_layernorm")?,
                post_attention_layernorm: norm("post_attention_layernorm")?,
                q_proj,
                k_proj,
                v_proj,
                o_proj,
                gate_proj,
                up_proj,
                down_proj,
            });
        }
        let norm = source.vector("model.norm.weight", hidden)?;
        let lm_head = match config.tied {
            true => None,
            false => Some(Parameter::new(source.matrix("lm_head.weight", [config.vocab_size, hidden])?)),
        };
        let rope = Rope::new(config.rope.frequencies(config.head_size), device);
        Ok(Self {
            embed_tokens: Parameter::new(embed_tokens),
            layers,
            norm: Parameter::new(norm),
            lm_head,
            rope,
            config,
        })
    }

    /// Says whether projections are packed into fewer bits.
    pub fn is_packed(&self) -> bool {
        let packed = |layer: &Block| matches!(layer.q_proj.weight, Weight::Packed(_));
        self.layers.first().is_some_and(packed)
    }

    /// Returns the matrix that turns hidden states into logits, `[vocabulary, hidden]`.
    pub fn head(&self) -> &Parameter<2> {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Returns the last hidden states, normalised, `[rows * width, hidden]`, of rows of token ids
    /// that begin at position 0 and are filled up on the right.
    pub fn hidden(&self, ids: Tensor<1, Int>, rows: usize) -> Tensor<2> {
        let mut surroundings = self.surroundings(rows, ids.dims()[0] / rows, &ids.device());
        if self.norm.value.is_autodiff() {
            surroundings = surroundings.autodiff();
        }
        let mut x = self.embed(ids);
        for number in 0..self.layers.len() {
            x = self.layer(number, x, &surroundings);
        }
        self.finish(x)
    }

    /// Returns what layers need besides their input, for rows that begin at position 0.
    pub fn surroundings(&self, rows: usize, width: usize, device: &Device) -> Surroundings {
        let positions: Vec<usize> = (0..rows).flat_map(|_| 0..width).collect();
        let group = self.config.heads / self.config.key_value_heads;
        Surroundings {
            rows,
            angles: self.rope.angles(&positions, device),
            bias: causal_bias(group, width, device),
        }
    }

    /// Returns the embeddings of token ids, `[ids, hidden]`.
    pub fn embed(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let embeddings = self.embed_tokens.get();
        let ids = if embeddings.is_autodiff() { ids.autodiff() } else { ids };
        embeddings.select(0, ids)
    }

    /// Computes one layer, `[rows * width, hidden]` to the same.
    pub fn layer(&self, number: usize, x: Tensor<2>, surroundings: &Surroundings) -> Tensor<2> {
        let Surroundings { rows, angles, bias } = surroundings;
        let width = x.dims()[0] / rows;
        let see = |q: Tensor<2>, k: Tensor<2>, v: Tensor<2>| {
            let split = |x: Tensor<2>, heads: usize| {
                x.reshape([*rows, width, heads, self.config.head_size]).swap_dims(1, 2)
            };
            let keys = self.config.key_value_heads;
            self.attend(split(q, self.config.heads), split(k, keys), split(v, keys), bias.clone())
        };
        self.layers[number].forward(x, angles, self.config.epsilon, see)
    }

    /// Normalises what the last layer made.
    pub fn finish(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, &self.norm, self.config.epsilon)
    }

    /// Continues rows whose earlier keys and values are in a cache, all by as many tokens, and
    /// returns the last hidden state of each, `[rows, hidden]`.
    ///
    /// `filled[row]` says how many of its first places in the cache are only filling.
    pub fn extend(&self, ids: Tensor<1, Int>, filled: &[usize], cache: &mut KeyValueCache) -> Tensor<2> {
        let device = ids.device();
        let rows = filled.len();
        let width = ids.dims()[0] / rows;
        let (begin, end) = (cache.length, cache.length + width);
        let positions: Vec<usize> = filled
            .iter()
            .flat_map(|filled| (begin..end).map(move |place| place.saturating_sub(*filled)))
            .collect();
        let angles = self.rope.angles(&positions, &device);
        let group = self.config.heads / self.config.key_value_heads;
        let bias = cached_bias(filled, group, begin, end, &device);
        let mut x = self.embed_tokens.get().select(0, ids);
        for (layer, cached) in self.layers.iter().zip(&mut cache.layers) {
            let see = |q: Tensor<2>, k: Tensor<2>, v: Tensor<2>| {
                let split = |x: Tensor<2>, heads: usize| {
                    x.reshape([rows, width, heads, self.config.head_size]).swap_dims(1, 2)
                };
                let keys = self.config.key_value_heads;
                let (k, v) = cached.extend(split(k, keys), split(v, keys), begin);
                self.attend(split(q, self.config.heads), k, v, bias.clone())
            };
            x = layer.forward(x, &angles, self.config.epsilon, see);
        }
        cache.length = end;
        let last = x.reshape([rows, width, self.config.hidden_size]).narrow(1, width - 1, 1);
        rms_norm(last.reshape([rows, self.config.hidden_size]), &self.norm, self.config.epsilon)
    }

    /// Makes an empty cache for rows of at most so many tokens.
    pub fn cache(&self, rows: usize, capacity: usize, device: &Device) -> KeyValueCache {
        let shape = [rows, self.config.key_value_heads, capacity, self.config.head_size];
        let layer = || CachedLayer {
            keys: Some(Tensor::zeros(shape, device)),
            values: Some(Tensor::zeros(shape, device)),
        };
        KeyValueCache { length: 0, layers: self.layers.iter().map(|_| layer()).collect() }
    }

    /// Attention of `[rows, heads, width, head]` over `[rows, key-value heads, seen, head]`, as
    /// `[rows * width, heads * head]`. The bias is broadcast over rows and key-value heads.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<2> {
        let [rows, heads, width, head] = q.dims();
        let [_, keys, _, _] = k.dims();
        // The queries of a group lie behind one another and share their keys.
        let q = q.mul_scalar((head as f64).powf(-0.5)).reshape([rows, keys, heads / keys * width, head]);
        let weights = softmax(q.matmul(k.swap_dims(2, 3)) + bias, 3);
        let seen = weights.matmul(v).reshape([rows, heads, width, head]);
        seen.swap_dims(1, 2).reshape([rows * width, heads * head])
    }
}

impl Block {
    fn forward(
        &self,
        x: Tensor<2>,
        angles: &Angles,
        epsilon: f64,
        attend: impl FnOnce(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let h = rms_norm(x.clone(), &self.input_layernorm, epsilon);
        let q = angles.rotate(self.q_proj.forward(h.clone()));
        let k = angles.rotate(self.k_proj.forward(h.clone()));
        let seen = attend(q, k, self.v_proj.forward(h));
        let x = x + self.o_proj.forward(seen);
        let h = rms_norm(x.clone(), &self.post_attention_layernorm, epsilon);
        let wide = silu(self.gate_proj.forward(h.clone())) * self.up_proj.forward(h);
        x + self.down_proj.forward(wide)
    }

    /// Shows the projections, each with its path within the layer.
    pub fn linears(&mut self) -> [(&'static str, &mut Linear); 7] {
        [
            ("self_attn.q_proj", &mut self.q_proj),
            ("self_attn.k_proj", &mut self.k_proj),
            ("self_attn.v_proj", &mut self.v_proj),
            ("self_attn.o_proj", &mut self.o_proj),
            ("mlp.gate_proj", &mut self.gate_proj),
            ("mlp.up_proj", &mut self.up_proj),
            ("mlp.down_proj", &mut self.down_proj),
        ]
    }
}

impl Parameters for LlamaForCausalLM {
    fn visit(&mut self, see: &mut dyn FnMut(String, Slot<'_>)) {
        see("model.embed_tokens.weight".to_owned(), Slot::Matrix(&mut self.embed_tokens));
        for (number, layer) in self.layers.iter_mut().enumerate() {
            let path = format!("model.layers.{number}");
            see(format!("{path}.input_layernorm.weight"), Slot::Vector(&mut layer.input_layernorm));
            see(
                format!("{path}.post_attention_layernorm.weight"),
                Slot::Vector(&mut layer.post_attention_layernorm),
            );
            for (name, linear) in layer.linears() {
                linear.visit(&format!("{path}.{name}"), see);
            }
        }
        see("model.norm.weight".to_owned(), Slot::Vector(&mut self.norm));
        if let Some(head) = &mut self.lm_head {
            see("lm_head.weight".to_owned(), Slot::Matrix(head));
        }
    }
}

/// The keys and values of the tokens so far.
#[derive(Debug)]
pub(crate) struct KeyValueCache {
    length: usize,
    layers: Vec<CachedLayer>,
}

impl KeyValueCache {
    /// Keeps some rows, in the order given.
    pub fn keep(&mut self, rows: &[usize], device: &Device) {
        for layer in &mut self.layers {
            for cached in [&mut layer.keys, &mut layer.values] {
                *cached = cached.take().map(|whole| whole.select(0, places(rows, device)));
            }
        }
    }
}

/// Those of one layer, `[rows, key-value heads, capacity, head]`.
#[derive(Debug)]
struct CachedLayer {
    // Taken while they are written, so that they are written in place.
    keys: Option<Tensor<4>>,
    values: Option<Tensor<4>>,
}

impl CachedLayer {
    /// Adds those of new tokens, and returns all so far.
    fn extend(&mut self, keys: Tensor<4>, values: Tensor<4>, begin: usize) -> (Tensor<4>, Tensor<4>) {
        fn add(cached: &mut Option<Tensor<4>>, new: Tensor<4>, begin: usize) -> Tensor<4> {
            let [rows, heads, width, head] = new.dims();
            let whole = cached.take().expect("a cache is put back after each step");
            let whole = whole.slice_assign([0..rows, 0..heads, begin..begin + width, 0..head], new);
            let so_far = whole.clone().narrow(2, 0, begin + width);
            *cached = Some(whole);
            so_far
        }
        (add(&mut self.keys, keys, begin), add(&mut self.values, values, begin))
    }
}

/// What hides a token from those before it. Large, and not infinite: a row of nothing but
/// filling has nothing to look at, and must not become NaN.
const HIDDEN: f32 = -1e30;

/// Returns `[1, 1, group * width, width]`, where a query sees its own place and those before.
///
/// Every query sees something, so what is hidden can be infinite, whose exponential is cheaper.
fn causal_bias(group: usize, width: usize, device: &Device) -> Tensor<4> {
    let mut bias = Vec::with_capacity(group * width * width);
    for _ in 0..group {
        for query in 0..width {
            bias.extend((0..width).map(|key| if key <= query { 0.0 } else { f32::NEG_INFINITY }));
        }
    }
    Tensor::from_data(TensorData::new(bias, [1, 1, group * width, width]), device)
}

/// Returns `[rows, 1, group * (end - begin), end]`, where filling is hidden as well.
fn cached_bias(filled: &[usize], group: usize, begin: usize, end: usize, device: &Device) -> Tensor<4> {
    let width = end - begin;
    let mut bias = Vec::with_capacity(filled.len() * group * width * end);
    for filled in filled {
        for _ in 0..group {
            for query in begin..end {
                bias.extend((0..end).map(|key| if key <= query && key >= *filled { 0.0 } else { HIDDEN }));
            }
        }
    }
    Tensor::from_data(TensorData::new(bias, [filled.len(), 1, group * width, end]), device)
}

/// Where a model's parameters come from.
pub(crate) trait Source<E> {
    /// Returns a matrix of this name and shape.
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, E>;
    /// Returns a vector of this name and length.
    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, E>;
}

/// The first weights of a model that nobody has trained, as transformers draws them: norms at 1,
/// biases at 0, everything else normal.
pub(crate) struct Untrained<'a> {
    random: Random,
    std: f32,
    device: &'a Device,
}

impl<'a> Untrained<'a> {
    /// Begins to draw.
    pub fn new(seed: u64, std: f64, device: &'a Device) -> Self {
        Self { random: Random::new(seed, Purpose::Weights, 0), std: std as f32, device }
    }
}

impl Source<std::convert::Infallible> for Untrained<'_> {
    fn matrix(&mut self, _: &str, shape: [usize; 2]) -> Result<Tensor<2>, std::convert::Infallible> {
        let numbers = self.random.normal(shape[0] * shape[1], self.std);
        Ok(Tensor::from_data(TensorData::new(numbers, shape), self.device))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Tensor<1>, std::convert::Infallible> {
        Ok(if name.ends_with(".bias") {
            Tensor::zeros([length], self.device)
        } else {
            Tensor::ones([length], self.device)
        })
    }
}
