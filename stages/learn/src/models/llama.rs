//! LLaMA: Touvron et al., 2023, as transformers' `LlamaForCausalLM` computes it.
//!
//! Pre-normalisation by RMSNorm, rotary positions (halves, not pairs), SwiGLU, grouped-query
//! attention where there are fewer key-value heads, and a head that is tied to the embedding or
//! not. `rope_type` `default`, `linear`, `dynamic` and `llama3` are known.

mod config;

use burn_tensor::{Device, FloatDType, Int, Tensor, TensorData};

use serde_json::{Map, Value};

use crate::network::{
    Continuation, FolderTensors, KeyValueCache, LanguageModel, LanguageModelEntry, LayerStack, Limit,
    MASK_VALUE, ModelConfig, Network, Outline, Segments, TensorError, WeightSource, list_stacks,
};
use crate::tensor::device::is_cpu;
use crate::tensor::fused::{
    Causal, Rope, SingleQuery, attend, causal_attention, single_query_attention, swiglu,
};
use crate::tensor::indices::token_ids;
use crate::tensor::layers::{Linear, rms_norm};
use crate::tensor::parameters::{Parameter, ParameterRef, Parameters};
use crate::tensor::precision::Precision;
use crate::text::batches::Packed;
use crate::text::sequence::TokenLimit;

#[cfg(test)]
pub(crate) use config::RopeScaling;
pub(crate) use config::{Llama, VERSION};
pub(crate) use config::{LlamaConfig, TensorNaming};

/// Says what it is in the list of models.
pub(crate) const ENTRY: LanguageModelEntry = LanguageModelEntry {
    model_type: "llama",
    architectures: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    read: |config| Ok(Box::new(LlamaConfig::read(config)?)),
};

impl ModelConfig for LlamaConfig {
    fn open(&self, tensors: &mut FolderTensors<'_>) -> Result<Network, TensorError> {
        LlamaForCausalLM::open(self.clone(), tensors).map(Network::from)
    }

    fn may_lie_beside(&self, tensor: &str) -> bool {
        // What older versions of transformers wrote beside the weights.
        tensor.ends_with("rotary_emb.inv_freq")
    }

    fn build(&self, source: &mut dyn WeightSource) -> Result<Network, TensorError> {
        LlamaForCausalLM::build(self.clone(), source).map(Network::from)
    }

    fn outline(&self) -> Outline {
        let (outside, layers) = list_stacks(
            self,
            |config| vec![&mut config.layers],
            |config, source| LlamaForCausalLM::build(config, source).map(drop),
        );
        let stack = |layer| LayerStack {
            layers: self.layers,
            layer,
            heads: self.heads,
            queries: self.heads * self.head_size,
            keys: self.key_value_heads * self.head_size,
            wide: self.intermediate_size,
            keeps_scores: false,
            is_crossing: false,
        };
        Outline {
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            outside,
            stacks: layers.into_iter().map(stack).collect(),
            derived: 0,
            limit: Limit::Together(self.max_positions),
            dropout: false,
        }
    }

    fn write(&self) -> Map<String, Value> {
        Self::write(self)
    }

    fn initial_std(&self, _parameter: &str) -> f64 {
        self.initializer_range
    }
}

/// A model with its weights.
#[derive(Debug, Clone)]
pub(crate) struct LlamaForCausalLM {
    pub config: LlamaConfig,
    pub embed_tokens: Parameter<2>,
    pub layers: Vec<Block>,
    pub norm: Parameter<1>,
    /// Where it is not tied to the embedding.
    pub lm_head: Option<Parameter<2>>,
    /// What products are computed in, but for those of projections, which know it themselves.
    pub precision: Precision,
    rope: Rope,
}

/// One layer.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub input_layernorm: Parameter<1>,
    pub qkv: Projections,
    pub o_proj: Linear,
    pub post_attention_layernorm: Parameter<1>,
    pub gate_proj: Linear,
    pub up_proj: Linear,
    pub down_proj: Linear,
}

/// What makes queries, keys and values.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few of them, and what they hold is megabytes")]
pub(crate) enum Projections {
    /// One for each.
    Apart { q: Linear, k: Linear, v: Linear },
    /// One for all: for each key-value head its query heads, then its key, then its value.
    Packed(Linear),
}

impl Projections {
    /// Returns queries, keys and values, each `[tokens, heads * head]`.
    fn forward(&self, x: Tensor<2>, config: &LlamaConfig) -> [Tensor<2>; 3] {
        match self {
            Self::Apart { q, k, v } => [q.forward(x.clone()), k.forward(x.clone()), v.forward(x)],
            Self::Packed(wqkv) => {
                let (keys, head) = (config.key_value_heads, config.head_size);
                let group = config.heads / keys;
                let packed = wqkv.forward(x);
                let tokens = packed.dims()[0];
                let packed = packed.reshape([tokens, keys, group + 2, head]);
                let take = |begin: usize, count: usize| {
                    packed.clone().narrow(2, begin, count).reshape([tokens, keys * count * head])
                };
                [take(0, group), take(group, 1), take(group + 1, 1)]
            }
        }
    }
}

/// A model that reads sequences from position 0 on.
struct ForwardPass<'a> {
    model: &'a LlamaForCausalLM,
    ids: Tensor<1, Int>,
    causal: Causal,
    /// The places of what predicts the tokens of outputs.
    picks: Tensor<1, Int>,
}

impl Segments for ForwardPass<'_> {
    fn count(&self) -> usize {
        self.model.layers.len() + 2
    }

    fn compute(&self, number: usize, mut taken: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        let (model, layers) = (self.model, self.model.layers.len());
        let left = match (number, taken.pop()) {
            (_, None) => model.embed(self.ids.clone()),
            (number, Some(x)) if number <= layers => model.layer(number - 1, x, &self.causal),
            (_, Some(x)) => model.finish(x).select(0, self.picks.clone()),
        };
        vec![left]
    }

    fn first_requires_grad(&self) -> bool {
        self.model.embed_tokens.requires_grad
    }
}

impl LlamaForCausalLM {
    /// Makes the model of a folder's tensors.
    pub(crate) fn open(
        mut config: LlamaConfig,
        tensors: &mut FolderTensors<'_>,
    ) -> Result<Self, TensorError> {
        let (embedding, head) = config.naming.embedding_and_head();
        config.tied = tensors.is_tied(config.tied, head, embedding)?;
        if config.tied {
            tensors.leave_aside(head);
        }
        Self::build(config, tensors)
    }

    /// Makes a model of a configuration, of what a source has.
    pub(crate) fn build(config: LlamaConfig, source: &mut dyn WeightSource) -> Result<Self, TensorError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.heads * config.head_size, config.key_value_heads * config.head_size);
        let names = config.naming.names();
        let embed_tokens = source.matrix(names.embed_tokens, [config.vocab_size, hidden])?;
        let mut layers = Vec::with_capacity(config.layers);
        for number in 0..config.layers {
            let path = format!("model.layers.{number}");
            let mut linear = |name: &str, shape: [usize; 2], has_bias: bool| -> Result<Linear, TensorError> {
                let mut linear = Linear::new(source.weight(&format!("{path}.{name}.weight"), shape)?);
                if has_bias {
                    let bias = source.vector(&format!("{path}.{name}.bias"), shape[0])?;
                    linear.bias = Some(Parameter::new(bias));
                }
                Ok(linear)
            };
            let attention = config.attention_bias;
            let qkv = match config.naming {
                TensorNaming::Llama => Projections::Apart {
                    q: linear("self_attn.q_proj", [queries, hidden], attention)?,
                    k: linear("self_attn.k_proj", [keys, hidden], attention)?,
                    v: linear("self_attn.v_proj", [keys, hidden], attention)?,
                },
                TensorNaming::InternLm2 => {
                    Projections::Packed(linear("attention.wqkv", [queries + 2 * keys, hidden], attention)?)
                }
            };
            let o_proj = linear(names.o_proj, [hidden, queries], attention)?;
            let gate_proj = linear(names.gate_proj, [wide, hidden], config.mlp_bias)?;
            let up_proj = linear(names.up_proj, [wide, hidden], config.mlp_bias)?;
            let down_proj = linear(names.down_proj, [hidden, wide], config.mlp_bias)?;
            let mut norm = |name: &str| source.vector(&format!("{path}.{name}"), hidden).map(Parameter::new);
            layers.push(Block {
                input_layernorm: norm(names.input_layernorm)?,
                post_attention_layernorm: norm(names.post_attention_layernorm)?,
                qkv,
                o_proj,
                gate_proj,
                up_proj,
                down_proj,
            });
        }
        let norm = source.vector("model.norm.weight", hidden)?;
        let lm_head = if config.tied {
            None
        } else {
            Some(Parameter::new(source.matrix(names.lm_head, [config.vocab_size, hidden])?))
        };
        // Without numbers there is nothing to rotate.
        let head_size = if source.has_numbers() { config.head_size } else { 0 };
        let rope = Rope::new(config.rope.frequencies(head_size), source.device());
        Ok(Self {
            embed_tokens: Parameter::new(embed_tokens),
            layers,
            norm: Parameter::new(norm),
            lm_head,
            precision: Precision::F32,
            rope,
            config,
        })
    }

    /// Returns the last hidden states, normalised, `[rows * width, hidden]`, of rows of token ids
    /// that begin at position 0 and are filled up on the right.
    #[cfg(test)]
    pub(crate) fn hidden(&self, ids: Tensor<1, Int>, rows: usize) -> Tensor<2> {
        let causal = self.causal(rows, ids.dims()[0] / rows, &ids.device());
        let x = self.embed(ids);
        self.finish((0..self.layers.len()).fold(x, |x, number| self.layer(number, x, &causal)))
    }

    /// Returns the attention of rows that begin at position 0.
    fn causal(&self, rows: usize, width: usize, device: &Device) -> Causal {
        let heads = [self.config.heads, self.config.key_value_heads];
        Causal::new(&self.rope, [rows, width], heads, self.precision, device)
    }

    /// Returns the embeddings of token ids, `[ids, hidden]`.
    fn embed(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let embeddings = self.embed_tokens.get();
        let ids = if embeddings.is_autodiff() { ids.autodiff() } else { ids };
        embeddings.select(0, ids).cast(FloatDType::F32)
    }

    /// Computes one layer, `[rows * width, hidden]` to the same.
    fn layer(&self, number: usize, x: Tensor<2>, causal: &Causal) -> Tensor<2> {
        self.layers[number].forward(x, &self.config, |q, k, v| causal_attention(q, k, v, causal))
    }

    /// Normalises what the last layer made.
    fn finish(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, &self.norm, self.config.epsilon)
    }

    /// Continues rows whose earlier keys and values are in a cache, all by as many tokens, and
    /// returns the last hidden state of each, `[rows, hidden]`.
    ///
    /// `filled[row]` says how many of its first places in the cache are only filling.
    fn extend(&self, ids: Tensor<1, Int>, filled: &[usize], cache: &mut KeyValueCache) -> Tensor<2> {
        let device = ids.device();
        let rows = filled.len();
        let width = ids.dims()[0] / rows;
        let (begin, end) = (cache.length, cache.length + width);
        let positions: Vec<usize> = filled
            .iter()
            .flat_map(|filled| (begin..end).map(move |place| place.saturating_sub(*filled)))
            .collect();
        let angles = self.rope.angles(&positions, &device);
        let (heads, keys, head) = (self.config.heads, self.config.key_value_heads, self.config.head_size);
        // A step by one token is attention of a single query, which the CPU has a way of its own for.
        let step = (width == 1 && is_cpu(&device)).then(|| SingleQuery {
            seen: filled.iter().map(|filled| *filled..end).collect(),
            scale: (head as f32).powf(-0.5),
            bias: None,
        });
        let bias = step.is_none().then(|| cached_bias(filled, heads / keys, begin, end, &device));
        let mut x = self.embed(ids);
        for (layer, cached) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(x, &self.config, |q, k, v| {
                let split =
                    |x: Tensor<2>, heads: usize| x.reshape([rows, width, heads, head]).swap_dims(1, 2);
                let (q, k) = (angles.rotate(q), angles.rotate(k));
                cached.extend(split(k, keys), split(v, keys), begin);
                match (&step, &bias) {
                    (Some(step), _) => {
                        let (k, v) = cached.whole();
                        single_query_attention(q, k, v, step)
                    }
                    (None, bias) => {
                        let (k, v) = cached.first(end);
                        let bias = bias.clone().expect("there is one without a step");
                        attend(split(q, heads), k, v, bias, self.precision)
                    }
                }
            });
        }
        cache.length = end;
        let last = x.reshape([rows, width, self.config.hidden_size]).narrow(1, width - 1, 1);
        rms_norm(last.reshape([rows, self.config.hidden_size]), &self.norm, self.config.epsilon)
    }
}

impl LanguageModel for LlamaForCausalLM {
    fn copy(&self) -> Network {
        self.clone().into()
    }

    fn segments<'a>(&'a self, packed: &Packed<'_>, device: &Device) -> Box<dyn Segments + 'a> {
        let ids = packed.ids(device);
        let causal = self.causal(packed.rows, ids.dims()[0] / packed.rows, device);
        let picks = packed.picks(device);
        if self.norm.value.is_autodiff() {
            Box::new(ForwardPass { model: self, ids, causal: causal.autodiff(), picks: picks.autodiff() })
        } else {
            Box::new(ForwardPass { model: self, ids, causal, picks })
        }
    }

    fn begin<'a>(&'a self, prompts: &[&[u32]], device: &'a Device) -> (Box<dyn Continuation + 'a>, Vec<f32>) {
        let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let filled: Vec<usize> = prompts.iter().map(|prompt| width - prompt.len()).collect();
        let mut ids: Vec<u32> = Vec::with_capacity(width * prompts.len());
        for (prompt, filled) in prompts.iter().zip(&filled) {
            ids.resize(ids.len() + filled, 0);
            ids.extend_from_slice(prompt);
        }
        let heads = [self.config.key_value_heads, self.config.head_size];
        let cache = KeyValueCache::new(self.config.layers, prompts.len(), heads, width, device);
        let mut state = DecodeState { model: self, device, filled, cache };
        let logits = state.step(&ids);
        (Box::new(state), logits)
    }

    fn head(&self) -> &Parameter<2> {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    fn head_name(&self) -> &'static str {
        let names = self.config.naming.names();
        if self.lm_head.is_some() { names.lm_head } else { names.embed_tokens }
    }

    fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        let layers = self.layers.iter_mut().enumerate();
        let named = layers.flat_map(|(number, layer)| {
            let full = move |(name, linear)| (format!("model.layers.{number}.{name}"), linear);
            layer.linears().into_iter().map(full)
        });
        named.collect()
    }

    fn is_packed(&self) -> bool {
        self.layers.first().is_some_and(|layer| layer.o_proj.is_packed())
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn move_tables(&mut self, device: &Device) {
        self.rope.move_to(device);
    }

    fn vocabulary_size(&self) -> usize {
        self.config.vocab_size
    }

    fn limit(&self) -> TokenLimit {
        TokenLimit::Together(self.config.max_positions)
    }

    fn peft_task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }
}

impl Block {
    fn forward(
        &self,
        x: Tensor<2>,
        config: &LlamaConfig,
        attend: impl FnOnce(Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let h = rms_norm(x.clone(), &self.input_layernorm, config.epsilon);
        let [q, k, v] = self.qkv.forward(h, config);
        let seen = attend(q, k, v);
        let x = x + self.o_proj.forward(seen);
        let h = rms_norm(x.clone(), &self.post_attention_layernorm, config.epsilon);
        let wide = swiglu(self.gate_proj.forward(h.clone()), self.up_proj.forward(h));
        x + self.down_proj.forward(wide)
    }

    /// Shows the projections, each with its path within the layer.
    pub(crate) fn linears(&mut self) -> Vec<(&'static str, &mut Linear)> {
        let (naming, mut found) = match &mut self.qkv {
            Projections::Apart { q, k, v } => {
                let apart = vec![("self_attn.q_proj", q), ("self_attn.k_proj", k), ("self_attn.v_proj", v)];
                (TensorNaming::Llama, apart)
            }
            Projections::Packed(wqkv) => (TensorNaming::InternLm2, vec![("attention.wqkv", wqkv)]),
        };
        let names = naming.names();
        found.push((names.o_proj, &mut self.o_proj));
        found.push((names.gate_proj, &mut self.gate_proj));
        found.push((names.up_proj, &mut self.up_proj));
        found.push((names.down_proj, &mut self.down_proj));
        found
    }
}

impl Parameters for LlamaForCausalLM {
    fn visit(&mut self, see: &mut dyn FnMut(String, ParameterRef<'_>)) {
        let names = self.config.naming.names();
        see(names.embed_tokens.to_owned(), ParameterRef::Matrix(&mut self.embed_tokens));
        for (number, layer) in self.layers.iter_mut().enumerate() {
            let path = format!("model.layers.{number}");
            see(
                format!("{path}.{}", names.input_layernorm),
                ParameterRef::Vector(&mut layer.input_layernorm),
            );
            see(
                format!("{path}.{}", names.post_attention_layernorm),
                ParameterRef::Vector(&mut layer.post_attention_layernorm),
            );
            for (name, linear) in layer.linears() {
                linear.visit(&format!("{path}.{name}"), see);
            }
        }
        see("model.norm.weight".to_owned(), ParameterRef::Vector(&mut self.norm));
        if let Some(head) = &mut self.lm_head {
            see(names.lm_head.to_owned(), ParameterRef::Matrix(head));
        }
    }
}

/// Returns `[rows, 1, group * (end - begin), end]`, where filling is hidden as well.
fn cached_bias(filled: &[usize], group: usize, begin: usize, end: usize, device: &Device) -> Tensor<4> {
    let width = end - begin;
    let mut bias = Vec::with_capacity(filled.len() * group * width * end);
    for filled in filled {
        for _ in 0..group {
            for query in begin..end {
                bias.extend(
                    (0..end).map(|key| if key <= query && key >= *filled { 0.0 } else { MASK_VALUE }),
                );
            }
        }
    }
    Tensor::from_data(TensorData::new(bias, [filled.len(), 1, group * width, end]), device)
}

/// Texts on their way: the keys and values of their tokens so far.
pub(crate) struct DecodeState<'a> {
    model: &'a LlamaForCausalLM,
    device: &'a Device,
    /// How many of each row's first places are only filling.
    filled: Vec<usize>,
    cache: KeyValueCache,
}

impl Continuation for DecodeState<'_> {
    fn step(&mut self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.model.extend(token_ids(tokens, self.device), &self.filled, &mut self.cache);
        let logits = self.model.precision.linear(hidden, self.model.head().get());
        logits.into_data().try_into_vec().expect("logits are f32")
    }

    fn reorder(&mut self, rows: &[usize]) {
        self.cache.reorder(rows, self.device);
        self.filled = rows.iter().map(|row| self.filled[*row]).collect();
    }
}
