//! T5: Raffel et al., 2020, as transformers' `T5ForConditionalGeneration` computes it.
//!
//! An encoder and a decoder, pre-normalised by RMSNorm. Attention scores are not scaled; a bias by
//! relative position is added to them, learned once for each stack and shared by its layers, and
//! none in the attention to the encoder. Version 1.0 has an MLP with ReLU and a head that is the
//! embedding, behind states scaled by `d_model^-0.5`; version 1.1 a gated one with GELU (its
//! tangent form) and a head of its own behind states as they are.

mod config;
mod decode;
mod forward;

use std::cell::Cell;

use burn_tensor::{Device, FloatDType, Int, Tensor, TensorData};
use serde_json::{Map, Value};

use crate::network::{
    Continuation, FolderTensors, LanguageModel, LanguageModelEntry, LayerStack, Limit, ModelConfig, Network,
    Outline, Segments, TensorError, WeightSource, list_stacks,
};
use crate::tensor::fused::{SingleQuery, single_query_attention, softmax};
use crate::tensor::indices::places;
use crate::tensor::layers::{Linear, rms_norm};
use crate::tensor::low_rank::Dropout;
use crate::tensor::parameters::{Parameter, ParameterRef, Parameters};
use crate::tensor::precision::{Precision, matmul_f32};
use crate::tensor::random::{Purpose, Random};
use crate::text::batches::Packed;
use crate::text::sequence::TokenLimit;

pub(crate) use config::T5Config;
pub(crate) use config::{T5, VERSION};

/// Says what it is in the list of models.
pub(crate) const ENTRY: LanguageModelEntry = LanguageModelEntry {
    model_type: "t5",
    architectures: &["T5ForConditionalGeneration", "T5WithLMHeadModel"],
    read: |config| Ok(Box::new(T5Config::read(config)?)),
};

impl ModelConfig for T5Config {
    fn open(&self, tensors: &mut FolderTensors<'_>) -> Result<Network, TensorError> {
        T5ForConditionalGeneration::open(self.clone(), tensors).map(Network::from)
    }

    fn build(&self, source: &mut dyn WeightSource) -> Result<Network, TensorError> {
        T5ForConditionalGeneration::build(self.clone(), source).map(Network::from)
    }

    fn outline(&self) -> Outline {
        let (outside, layers) = list_stacks(
            self,
            |config| vec![&mut config.layers, &mut config.decoder_layers],
            |config, source| T5ForConditionalGeneration::build(config, source).map(drop),
        );
        let inner = self.heads * self.d_kv;
        let each = layers.into_iter().zip([(self.layers, false), (self.decoder_layers, true)]);
        let stack = |(layer, (layers, is_crossing))| LayerStack {
            layers,
            layer,
            heads: self.heads,
            queries: inner,
            keys: inner,
            wide: self.d_ff,
            keeps_scores: true,
            is_crossing,
        };
        Outline {
            vocabulary: self.vocab_size,
            hidden: self.d_model,
            outside,
            stacks: each.map(stack).collect(),
            derived: 0,
            limit: Limit::Each(self.positions.unwrap_or(512)),
            dropout: self.dropout > 0.0,
        }
    }

    fn write(&self) -> Map<String, Value> {
        Self::write(self)
    }

    fn initial_std(&self, parameter: &str) -> f64 {
        self.std(parameter)
    }
}

/// A model with its weights.
#[derive(Debug, Clone)]
pub(crate) struct T5ForConditionalGeneration {
    pub config: T5Config,
    pub shared: Parameter<2>,
    pub encoder: Stack,
    pub decoder: Stack,
    /// Where it is not the embedding.
    pub lm_head: Option<Parameter<2>>,
    /// What the head's products are computed in.
    pub precision: Precision,
    /// What a training step leaves out, where it is training.
    pub dropout: Option<Dropout>,
}

/// The encoder, or the decoder.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    /// `[buckets, heads]`; files have it in the first layer.
    relative_attention_bias: Parameter<2>,
    blocks: Vec<Block>,
    final_layer_norm: Parameter<1>,
}

/// One layer.
#[derive(Debug, Clone)]
struct Block {
    to_itself: Attention,
    /// Only in the decoder.
    to_encoder: Option<Attention>,
    wi: Linear,
    /// What is gated, where there is a gate.
    wi_1: Option<Linear>,
    wo: Linear,
    layer_norm: Parameter<1>,
}

/// One attention and the norm before it.
#[derive(Debug, Clone)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    layer_norm: Parameter<1>,
}

impl Attention {
    /// Attends, one query in each row, to keys and values with room behind them.
    fn step(&self, h: Tensor<2>, (k, v): (Tensor<4>, Tensor<4>), step: &SingleQuery) -> Tensor<2> {
        self.o.forward(single_query_attention(self.q.forward(h), k, v, step))
    }
}

/// A part of a layer, by the names that files have: `layer.0` is `SelfAttention`.
struct Part<'a> {
    layer: String,
    name: &'static str,
    linears: Vec<(&'static str, &'a mut Linear)>,
    layer_norm: &'a mut Parameter<1>,
}

impl Block {
    fn to_encoder(&self) -> &Attention {
        self.to_encoder.as_ref().expect("a decoder attends to the encoder")
    }

    /// Shows its parts, in order.
    fn parts(&mut self) -> Vec<Part<'_>> {
        let Self { to_itself, to_encoder, wi, wi_1, wo, layer_norm } = self;
        let attentions = std::iter::once(("SelfAttention", to_itself));
        let attentions = attentions.chain(to_encoder.as_mut().map(|found| ("EncDecAttention", found)));
        let attentions = attentions.map(|(name, Attention { q, k, v, o, layer_norm })| {
            (name, vec![("q", q), ("k", k), ("v", v), ("o", o)], layer_norm)
        });
        let wide = match wi_1 {
            Some(wi_1) => vec![("wi_0", wi), ("wi_1", wi_1), ("wo", wo)],
            None => vec![("wi", wi), ("wo", wo)],
        };
        let parts = attentions.chain([("DenseReluDense", wide, layer_norm)]).enumerate();
        let named = parts.map(|(number, (name, linears, layer_norm))| Part {
            layer: format!("layer.{number}"),
            name,
            linears,
            layer_norm,
        });
        named.collect()
    }

    fn wide(&self, x: Tensor<2>, config: &T5Config, dropout: &DropoutStreams<'_>) -> Tensor<2> {
        let h = rms_norm(x.clone(), &self.layer_norm, config.epsilon);
        let mut wide = config.activation.apply(self.wi.forward(h.clone()));
        if let Some(gated) = &self.wi_1 {
            wide = wide * gated.forward(h);
        }
        x + dropout.apply(self.wo.forward(dropout.apply(wide)))
    }
}

/// The dropouts of one pass through a model: each leaves out numbers of its own.
struct DropoutStreams<'a> {
    dropout: Option<&'a Dropout>,
    number: Cell<u64>,
}

impl DropoutStreams<'_> {
    /// Leaves nothing out.
    fn none() -> Self {
        Self { dropout: None, number: Cell::new(0) }
    }

    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        // Adapters have the numbers below, one each.
        const FIRST: u64 = 1 << 19;
        let Some(dropout) = self.dropout.filter(|dropout| dropout.probability > 0.0) else { return x };
        let stream = dropout.stream + FIRST + self.number.replace(self.number.get() + 1);
        let mut random = Random::new(dropout.seed, Purpose::Dropout, stream);
        let shape = x.dims();
        let kept = random.dropout(shape.iter().product(), dropout.probability as f32);
        let kept = Tensor::from_data(TensorData::new(kept, shape), &x.device());
        x * kept
    }
}

impl T5ForConditionalGeneration {
    /// Makes the model of a folder's tensors.
    pub(crate) fn open(mut config: T5Config, tensors: &mut FolderTensors<'_>) -> Result<Self, TensorError> {
        const SHARED: &str = "shared.weight";
        const HEAD: &str = "lm_head.weight";
        const REPEATED: [&str; 2] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
        // What the first version of transformers wrote and never used.
        tensors.leave_aside("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight");
        let embedding = [SHARED].into_iter().chain(REPEATED).find(|name| tensors.has(name)).unwrap_or(SHARED);
        tensors.read_as(SHARED, embedding);
        for repeated in REPEATED {
            if !tensors.has(repeated) {
                continue;
            }
            if !tensors.repeats(repeated, embedding)? {
                let (file, tensor) = (tensors.file(repeated), repeated.to_owned());
                return Err(TensorError::Differs { file, tensor, other: embedding });
            }
            tensors.leave_aside(repeated);
        }
        config.tied = tensors.is_tied(config.tied, HEAD, embedding)?;
        if config.tied {
            tensors.leave_aside(HEAD);
        }
        Self::build(config, tensors)
    }

    /// Makes a model of a configuration, of what a source has.
    pub(crate) fn build(config: T5Config, source: &mut dyn WeightSource) -> Result<Self, TensorError> {
        let size = [config.vocab_size, config.d_model];
        let shared = Parameter::new(source.matrix("shared.weight", size)?);
        let encoder = Stack::build(&config, "encoder", source)?;
        let decoder = Stack::build(&config, "decoder", source)?;
        let lm_head =
            if config.tied { None } else { Some(Parameter::new(source.matrix("lm_head.weight", size)?)) };
        Ok(Self { config, shared, encoder, decoder, lm_head, precision: Precision::F32, dropout: None })
    }

    fn is_recording(&self) -> bool {
        self.shared.value.is_autodiff()
    }

    fn beside_tape(&self, ids: Tensor<1, Int>) -> Tensor<1, Int> {
        if self.is_recording() { ids.autodiff() } else { ids }
    }

    fn embed(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        self.shared.get().select(0, self.beside_tape(ids)).cast(FloatDType::F32)
    }

    fn scale(&self, states: Tensor<2>) -> Tensor<2> {
        if self.config.scaled { states.mul_scalar((self.config.d_model as f64).powf(-0.5)) } else { states }
    }

    /// Turns `[rows * width, heads * d_kv]` into `[rows, heads, width, d_kv]`.
    fn split(&self, x: Tensor<2>, rows: usize) -> Tensor<4> {
        let width = x.dims()[0] / rows;
        x.reshape([rows, width, self.config.heads, self.config.d_kv]).swap_dims(1, 2)
    }

    fn keys_and_values(&self, attention: &Attention, x: Tensor<2>, rows: usize) -> (Tensor<4>, Tensor<4>) {
        let k = self.split(attention.k.forward(x.clone()), rows);
        (k, self.split(attention.v.forward(x), rows))
    }

    fn attend_to_itself(
        &self,
        attention: &Attention,
        x: Tensor<2>,
        rows: usize,
        bias: Tensor<4>,
        dropout: &DropoutStreams<'_>,
    ) -> Tensor<2> {
        let h = rms_norm(x.clone(), &attention.layer_norm, self.config.epsilon);
        let (k, v) = self.keys_and_values(attention, h.clone(), rows);
        x + self.seen(attention, h, rows, (k, v, Some(bias)), dropout)
    }

    fn attend_to_encoder(
        &self,
        attention: &Attention,
        x: Tensor<2>,
        rows: usize,
        over: (Tensor<4>, Tensor<4>, Option<Tensor<4>>),
        dropout: &DropoutStreams<'_>,
    ) -> Tensor<2> {
        let h = rms_norm(x.clone(), &attention.layer_norm, self.config.epsilon);
        x + self.seen(attention, h, rows, over, dropout)
    }

    /// Attention of `[rows * width, d_model]` over keys and values, `[rows, heads, seen, d_kv]`,
    /// with a bias of what broadcasts to `[rows, heads, width, seen]`.
    fn seen(
        &self,
        attention: &Attention,
        h: Tensor<2>,
        rows: usize,
        (k, v, bias): (Tensor<4>, Tensor<4>, Option<Tensor<4>>),
        dropout: &DropoutStreams<'_>,
    ) -> Tensor<2> {
        let q = self.split(attention.q.forward(h), rows);
        let [_, heads, width, head] = q.dims();
        let mut scores = matmul_f32(q, k.swap_dims(2, 3));
        if let Some(bias) = bias {
            scores = scores + bias;
        }
        let seen = matmul_f32(dropout.apply(softmax(scores)), v);
        let seen = seen.swap_dims(1, 2).reshape([rows * width, heads * head]);
        dropout.apply(attention.o.forward(seen))
    }
}

impl LanguageModel for T5ForConditionalGeneration {
    fn copy(&self) -> Network {
        self.clone().into()
    }

    fn segments<'a>(&'a self, packed: &Packed<'_>, device: &Device) -> Box<dyn Segments + 'a> {
        Box::new(self.forward_pass(packed, device))
    }

    fn begin<'a>(&'a self, prompts: &[&[u32]], device: &'a Device) -> (Box<dyn Continuation + 'a>, Vec<f32>) {
        let (state, logits) = self.decode_state(prompts, device);
        (Box::new(state), logits)
    }

    fn head(&self) -> &Parameter<2> {
        self.lm_head.as_ref().unwrap_or(&self.shared)
    }

    fn head_name(&self) -> &'static str {
        if self.lm_head.is_some() { "lm_head.weight" } else { "shared.weight" }
    }

    fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        let mut found = Vec::new();
        for (name, stack) in [("encoder", &mut self.encoder), ("decoder", &mut self.decoder)] {
            for (number, block) in stack.blocks.iter_mut().enumerate() {
                let path = format!("{name}.block.{number}");
                for part in block.parts() {
                    let linears = part.linears.into_iter();
                    found.extend(linears.map(|(name, linear)| {
                        (format!("{path}.{}.{}.{name}", part.layer, part.name), linear)
                    }));
                }
            }
        }
        found
    }

    fn is_packed(&self) -> bool {
        self.encoder.blocks.first().is_some_and(|block| block.wo.is_packed())
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn set_own_dropout(&mut self, dropout: Dropout) {
        self.dropout = Some(Dropout { probability: self.config.dropout, ..dropout });
    }

    fn vocabulary_size(&self) -> usize {
        self.config.vocab_size
    }

    fn limit(&self) -> TokenLimit {
        TokenLimit::Each(self.config.positions.unwrap_or(usize::MAX))
    }

    fn default_eos_token_ids(&self) -> Option<Vec<u32>> {
        Some(vec![1])
    }

    fn peft_task_type(&self) -> &'static str {
        "SEQ_2_SEQ_LM"
    }
}

/// What a query may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// All places: the encoder.
    Both,
    /// Its own and those before: the decoder.
    Before,
}

impl Stack {
    fn build(config: &T5Config, name: &str, source: &mut dyn WeightSource) -> Result<Self, TensorError> {
        let (model, inner, wide) = (config.d_model, config.heads * config.d_kv, config.d_ff);
        let is_decoder = name == "decoder";
        let mut blocks = Vec::new();
        for number in 0..if is_decoder { config.decoder_layers } else { config.layers } {
            let path = format!("{name}.block.{number}");
            let mut attention = |layer: &str, name: &str| -> Result<Attention, TensorError> {
                let mut linear = |part: &str, shape: [usize; 2]| {
                    source.weight(&format!("{path}.{layer}.{name}.{part}.weight"), shape).map(Linear::new)
                };
                let (q, k) = (linear("q", [inner, model])?, linear("k", [inner, model])?);
                let (v, o) = (linear("v", [inner, model])?, linear("o", [model, inner])?);
                let layer_norm = source.vector(&format!("{path}.{layer}.layer_norm.weight"), model)?;
                Ok(Attention { q, k, v, o, layer_norm: Parameter::new(layer_norm) })
            };
            let to_itself = attention("layer.0", "SelfAttention")?;
            let to_encoder = if is_decoder { Some(attention("layer.1", "EncDecAttention")?) } else { None };
            let path = format!("{path}.layer.{}", if is_decoder { 2 } else { 1 });
            let mut linear = |part: &str, shape: [usize; 2]| {
                source.weight(&format!("{path}.DenseReluDense.{part}.weight"), shape).map(Linear::new)
            };
            let wi = linear(if config.gated { "wi_0" } else { "wi" }, [wide, model])?;
            let wi_1 = if config.gated { Some(linear("wi_1", [wide, model])?) } else { None };
            let wo = linear("wo", [model, wide])?;
            let layer_norm = Parameter::new(source.vector(&format!("{path}.layer_norm.weight"), model)?);
            blocks.push(Block { to_itself, to_encoder, wi, wi_1, wo, layer_norm });
        }
        let bias = source.matrix(&bias_name(name), [config.buckets, config.heads])?;
        let norm = source.vector(&format!("{name}.final_layer_norm.weight"), model)?;
        Ok(Self {
            relative_attention_bias: Parameter::new(bias),
            blocks,
            final_layer_norm: Parameter::new(norm),
        })
    }

    /// Returns the bias of some places that look at all places up to the last of them,
    /// `[1, heads, queries, keys]`.
    fn position_bias(
        &self,
        config: &T5Config,
        direction: Direction,
        queries: std::ops::Range<usize>,
        device: &Device,
    ) -> Tensor<4> {
        let (count, keys) = (queries.len(), queries.end);
        let buckets: Vec<usize> = queries
            .flat_map(|query| (0..keys).map(move |key| bucket(key as i64 - query as i64, direction, config)))
            .collect();
        let buckets = places(&buckets, device);
        let learned = self.relative_attention_bias.get();
        let buckets = if learned.is_autodiff() { buckets.autodiff() } else { buckets };
        learned.select(0, buckets).reshape([count, keys, config.heads]).permute([2, 0, 1]).unsqueeze()
    }

    fn visit(&mut self, name: &str, see: &mut dyn FnMut(String, ParameterRef<'_>)) {
        for (number, block) in self.blocks.iter_mut().enumerate() {
            for part in block.parts() {
                let path = format!("{name}.block.{number}.{}", part.layer);
                for (name, linear) in part.linears {
                    linear.visit(&format!("{path}.{}.{name}", part.name), see);
                }
                see(format!("{path}.layer_norm.weight"), ParameterRef::Vector(part.layer_norm));
            }
        }
        see(bias_name(name), ParameterRef::Matrix(&mut self.relative_attention_bias));
        see(format!("{name}.final_layer_norm.weight"), ParameterRef::Vector(&mut self.final_layer_norm));
    }
}

fn bias_name(stack: &str) -> String {
    format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
}

/// Returns the bucket of a relative position, the key's less the query's: near ones have one each,
/// farther ones share, ever more of them to one.
fn bucket(relative: i64, direction: Direction, config: &T5Config) -> usize {
    let (buckets, first, distance) = match direction {
        Direction::Both => {
            let buckets = config.buckets / 2;
            (buckets, if relative > 0 { buckets } else { 0 }, relative.unsigned_abs() as usize)
        }
        Direction::Before => (config.buckets, 0, (-relative).max(0) as usize),
    };
    let exact = buckets / 2;
    if distance < exact {
        return first + distance;
    }
    // In single precision, as transformers computes it.
    let ratio = (distance as f32 / exact as f32).ln();
    let most = (config.max_distance as f64 / exact as f64).ln() as f32;
    let farther = ratio / most * (buckets - exact) as f32;
    first + (exact + farther as usize).min(buckets - 1)
}

impl Parameters for T5ForConditionalGeneration {
    fn visit(&mut self, see: &mut dyn FnMut(String, ParameterRef<'_>)) {
        see("shared.weight".to_owned(), ParameterRef::Matrix(&mut self.shared));
        self.encoder.visit("encoder", see);
        self.decoder.visit("decoder", see);
        if let Some(head) = &mut self.lm_head {
            see("lm_head.weight".to_owned(), ParameterRef::Matrix(head));
        }
    }
}
