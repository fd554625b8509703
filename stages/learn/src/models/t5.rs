//! T5: Raffel et al., 2020, as transformers' `T5ForConditionalGeneration` computes it.
//!
//! An encoder and a decoder, pre-normalised by RMSNorm. Attention scores are not scaled; a bias by
//! relative position is added to them, learnt once for each stack and shared by its layers, and
//! none in the attention to the encoder. Version 1.0 has an MLP with ReLU and a head that is the
//! embedding, behind states scaled by `d_model^-0.5`; version 1.1 a gated one with GELU (its
//! tangent form) and a head of its own behind states as they are.

mod sizes;

use std::cell::Cell;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use super::HIDDEN;
use super::cache::KeyValueCache;
use super::network::Pieces;
use super::source::Source;
use crate::adapters::Dropout;
use crate::batches::{Packed, TokenLimit};
use crate::fused::{Step, is_cpu, one_by_one, softmax};
use crate::generation::Continuation;
use crate::layers::{Linear, places, rms_norm, token_ids};
use crate::parameters::{Parameter, Parameters, Slot};
use crate::precision::Precision;
use crate::random::{Purpose, Random};

pub(crate) use sizes::Config;
pub use sizes::{T5, VERSION};

/// A model with its weights.
#[derive(Debug, Clone)]
pub(crate) struct T5ForConditionalGeneration {
    pub config: Config,
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
    fn step(&self, h: Tensor<2>, (k, v): (Tensor<4>, Tensor<4>), step: &Step) -> Tensor<2> {
        self.o.forward(one_by_one(self.q.forward(h), k, v, step))
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

    fn wide(&self, x: Tensor<2>, config: &Config, drops: &Drops<'_>) -> Tensor<2> {
        let h = rms_norm(x.clone(), &self.layer_norm, config.epsilon);
        let mut wide = config.activation.apply(self.wi.forward(h.clone()));
        if let Some(gated) = &self.wi_1 {
            wide = wide * gated.forward(h);
        }
        x + drops.apply(self.wo.forward(drops.apply(wide)))
    }
}

/// The dropouts of one pass through a model: each leaves out numbers of its own.
struct Drops<'a> {
    dropout: Option<&'a Dropout>,
    number: Cell<u64>,
}

impl Drops<'_> {
    /// Leaves nothing out.
    fn none() -> Self {
        Self { dropout: None, number: Cell::new(0) }
    }

    fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        // Adapters have the numbers below, one each.
        const FIRST: u64 = 1 << 19;
        let Some(dropout) = self.dropout.filter(|dropout| dropout.probability > 0.0) else { return x };
        let occasion = dropout.occasion + FIRST + self.number.replace(self.number.get() + 1);
        let mut random = Random::new(dropout.seed, Purpose::Dropout, occasion);
        let shape = x.dims();
        let kept = random.dropout(shape.iter().product(), dropout.probability as f32);
        let kept = Tensor::from_data(TensorData::new(kept, shape), &x.device());
        x * kept
    }
}

/// Prompts in rows of one width.
struct Prompts {
    /// `[rows * width]`.
    ids: Tensor<1, Int>,
    /// How many of each row's places are no filling.
    lengths: Vec<usize>,
    /// What hides the filling, `[rows, 1, 1, width]`, where there is any.
    hiding: Option<Tensor<4>>,
}

impl Prompts {
    fn new(rows: &[&[u32]], device: &Device) -> Self {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * width);
        for row in rows {
            ids.extend_from_slice(row);
            ids.resize(ids.len() + width - row.len(), 0);
        }
        let hiding = rows.iter().any(|row| row.len() < width).then(|| {
            let hide = |row: &&[u32]| {
                let length = row.len();
                (0..width).map(move |place| if place < length { 0.0 } else { HIDDEN })
            };
            let numbers: Vec<f32> = rows.iter().flat_map(hide).collect();
            Tensor::from_data(TensorData::new(numbers, [rows.len(), 1, 1, width]), device)
        });
        let lengths = rows.iter().map(|row| row.len()).collect();
        Self { ids: token_ids(&ids, device), lengths, hiding }
    }

    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn width(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }
}

/// The last states of the encoder, `[rows * width, d_model]`.
struct Encoded {
    states: Tensor<2>,
    prompts: Prompts,
}

/// A model that reads prompts and outputs.
struct Reading<'a> {
    model: &'a T5ForConditionalGeneration,
    prompts: Prompts,
    /// Outputs in rows of one width, behind the token that begins them.
    ids: Tensor<1, Int>,
    /// The places of what predicts the tokens of outputs.
    picks: Tensor<1, Int>,
}

impl Pieces for Reading<'_> {
    fn count(&self) -> usize {
        self.model.encoder.blocks.len() + self.model.decoder.blocks.len() + 3
    }

    fn compute(&self, number: usize, mut taken: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        let (model, prompts) = (self.model, &self.prompts);
        let (encoder, decoder) = (model.encoder.blocks.len(), model.decoder.blocks.len());
        // The dropouts of a whole pass are numbered: one behind each embedding and each last norm,
        // two in an attention, two in an MLP.
        let before = match number.checked_sub(encoder + 1) {
            None if number == 0 => 0,
            None => 1 + 4 * (number - 1),
            Some(0) => 1 + 4 * encoder,
            Some(layer) => 3 + 4 * encoder + 6 * (layer - 1),
        };
        let drops = Drops { dropout: model.dropout.as_ref(), number: Cell::new(before as u64) };
        let mut next = || taken.remove(0);
        match number.checked_sub(encoder + 1) {
            None if number == 0 => {
                let (x, bias) = model.begin_encoder(prompts, &drops);
                vec![x, bias]
            }
            None => {
                let (x, bias) = (next(), next());
                vec![model.encoder_layer(number - 1, x, &bias, prompts, &drops), bias]
            }
            Some(0) => {
                let states = model.finish(&model.encoder, next(), &drops);
                let (x, bias) = model.begin_decoder(self.ids.clone(), prompts.rows(), &drops);
                vec![x, bias, states]
            }
            Some(layer) if layer <= decoder => {
                let (x, bias, states) = (next(), next(), next());
                vec![model.decoder_layer(layer - 1, x, &bias, (&states, prompts), &drops), bias, states]
            }
            Some(_) => {
                let states = model.finish(&model.decoder, next(), &drops);
                vec![model.scale(states.select(0, self.picks.clone()))]
            }
        }
    }

    fn first_learns(&self) -> bool {
        self.model.shared.learns || self.model.encoder.relative_attention_bias.learns
    }
}

impl T5ForConditionalGeneration {
    /// Makes a model of a configuration, each parameter by a function of name and shape.
    pub fn build<E>(config: Config, source: &mut dyn Source<E>) -> Result<Self, E> {
        let size = [config.vocab_size, config.d_model];
        let shared = Parameter::new(source.matrix("shared.weight", size)?);
        let encoder = Stack::build(&config, "encoder", source)?;
        let decoder = Stack::build(&config, "decoder", source)?;
        let lm_head = match config.tied {
            true => None,
            false => Some(Parameter::new(source.matrix("lm_head.weight", size)?)),
        };
        Ok(Self { config, shared, encoder, decoder, lm_head, precision: Precision::F32, dropout: None })
    }

    /// Says whether projections are packed into fewer bits.
    pub fn is_packed(&self) -> bool {
        self.encoder.blocks.first().is_some_and(|block| block.wo.is_packed())
    }

    /// Returns the matrix that turns states into logits, `[vocabulary, d_model]`.
    pub fn head(&self) -> &Parameter<2> {
        self.lm_head.as_ref().unwrap_or(&self.shared)
    }

    /// Returns the matrix's name.
    pub fn head_name(&self) -> &'static str {
        if self.lm_head.is_some() { "lm_head.weight" } else { "shared.weight" }
    }

    /// Returns the pieces that read sequences: the encoder's embedding, each of its layers, its last
    /// norm with the decoder's embedding, each of the decoder's layers, and its last norm.
    pub fn pieces<'a>(&'a self, packed: &Packed, device: &Device) -> impl Pieces + 'a {
        let prompts = Prompts::new(&packed.prompts(), device);
        let (ids, picks) = packed.outputs(self.config.start);
        let ids = token_ids(&ids, device);
        Reading { model: self, prompts, ids, picks: self.beside_tape(places(&picks, device)) }
    }

    /// Encodes rows of token ids.
    fn encode(&self, rows: &[&[u32]], device: &Device) -> Encoded {
        let (prompts, drops) = (Prompts::new(rows, device), Drops::none());
        let (mut x, bias) = self.begin_encoder(&prompts, &drops);
        for number in 0..self.encoder.blocks.len() {
            x = self.encoder_layer(number, x, &bias, &prompts, &drops);
        }
        Encoded { states: self.finish(&self.encoder, x, &drops), prompts }
    }

    /// Returns the embeddings of prompts, and the bias of the encoder's attention to itself,
    /// `[rows or 1 * heads * width, width]`.
    fn begin_encoder(&self, prompts: &Prompts, drops: &Drops<'_>) -> (Tensor<2>, Tensor<2>) {
        let (device, width) = (prompts.ids.device(), prompts.width());
        let position = self.encoder.position_bias(&self.config, Direction::Both, 0..width, &device);
        let bias = match self.hiding(prompts) {
            Some(hiding) => position + hiding,
            None => position,
        };
        (drops.apply(self.embed(prompts.ids.clone())), flat(bias))
    }

    /// Returns what hides the filling of prompts.
    fn hiding(&self, prompts: &Prompts) -> Option<Tensor<4>> {
        let hiding = prompts.hiding.clone()?;
        Some(if self.is_recording() { hiding.autodiff() } else { hiding })
    }

    fn encoder_layer(
        &self,
        number: usize,
        x: Tensor<2>,
        bias: &Tensor<2>,
        prompts: &Prompts,
        drops: &Drops<'_>,
    ) -> Tensor<2> {
        let block = &self.encoder.blocks[number];
        let bias = self.of_heads(bias);
        let x = self.attend_to_itself(&block.to_itself, x, prompts.rows(), bias, drops);
        block.wide(x, &self.config, drops)
    }

    /// Normalises what the last layer of a stack made.
    fn finish(&self, stack: &Stack, x: Tensor<2>, drops: &Drops<'_>) -> Tensor<2> {
        drops.apply(rms_norm(x, &stack.final_layer_norm, self.config.epsilon))
    }

    /// Returns the embeddings of outputs in rows that are filled up on the right, and the bias of
    /// the decoder's attention to itself, `[heads * width, width]`.
    fn begin_decoder(&self, ids: Tensor<1, Int>, rows: usize, drops: &Drops<'_>) -> (Tensor<2>, Tensor<2>) {
        let (device, width) = (ids.device(), ids.dims()[0] / rows);
        let position = self.decoder.position_bias(&self.config, Direction::Before, 0..width, &device);
        let causal = (0..width)
            .flat_map(|query| (0..width).map(move |key| if key <= query { 0.0f32 } else { HIDDEN }));
        let causal = TensorData::new(causal.collect(), [1, 1, width, width]);
        let causal = Tensor::<4>::from_data(causal, &device);
        let causal = if self.is_recording() { causal.autodiff() } else { causal };
        (drops.apply(self.embed(ids)), flat(position + causal))
    }

    fn decoder_layer(
        &self,
        number: usize,
        x: Tensor<2>,
        bias: &Tensor<2>,
        (states, prompts): (&Tensor<2>, &Prompts),
        drops: &Drops<'_>,
    ) -> Tensor<2> {
        let (block, rows) = (&self.decoder.blocks[number], prompts.rows());
        let x = self.attend_to_itself(&block.to_itself, x, rows, self.of_heads(bias), drops);
        let attention = block.to_encoder();
        let (k, v) = self.keys_and_values(attention, states.clone(), rows);
        let x = self.attend_to_encoder(attention, x, rows, (k, v, self.hiding(prompts)), drops);
        block.wide(x, &self.config, drops)
    }

    /// Turns `[rows or 1 * heads * queries, keys]` into `[rows or 1, heads, queries, keys]`, of which
    /// there are as many queries as keys.
    fn of_heads(&self, bias: &Tensor<2>) -> Tensor<4> {
        let ([all, width], heads) = (bias.dims(), self.config.heads);
        bias.clone().reshape([all / (heads * width).max(1), heads, width, width])
    }

    /// Returns the encoder's states and the decoder's logits, for rows of one width.
    #[cfg(test)]
    pub fn states_and_logits(&self, prompts: &[&[u32]], outputs: &[Vec<u32>]) -> (Tensor<2>, Tensor<2>) {
        let (device, drops) = (self.shared.value.device(), Drops::none());
        let encoded = self.encode(prompts, &device);
        let over = (&encoded.states, &encoded.prompts);
        let ids = token_ids(&outputs.concat(), &device);
        let (x, bias) = self.begin_decoder(ids, outputs.len(), &drops);
        let layers = 0..self.decoder.blocks.len();
        let x = layers.fold(x, |x, number| self.decoder_layer(number, x, &bias, over, &drops));
        let states = self.scale(self.finish(&self.decoder, x, &drops));
        (encoded.states, states.matmul(self.head().get().transpose()))
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
        match self.config.scaled {
            true => states.mul_scalar((self.config.d_model as f64).powf(-0.5)),
            false => states,
        }
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
        drops: &Drops<'_>,
    ) -> Tensor<2> {
        let h = rms_norm(x.clone(), &attention.layer_norm, self.config.epsilon);
        let (k, v) = self.keys_and_values(attention, h.clone(), rows);
        x + self.seen(attention, h, rows, (k, v, Some(bias)), drops)
    }

    fn attend_to_encoder(
        &self,
        attention: &Attention,
        x: Tensor<2>,
        rows: usize,
        over: (Tensor<4>, Tensor<4>, Option<Tensor<4>>),
        drops: &Drops<'_>,
    ) -> Tensor<2> {
        let h = rms_norm(x.clone(), &attention.layer_norm, self.config.epsilon);
        x + self.seen(attention, h, rows, over, drops)
    }

    /// Attention of `[rows * width, d_model]` over keys and values, `[rows, heads, seen, d_kv]`,
    /// with a bias of what broadcasts to `[rows, heads, width, seen]`.
    fn seen(
        &self,
        attention: &Attention,
        h: Tensor<2>,
        rows: usize,
        (k, v, bias): (Tensor<4>, Tensor<4>, Option<Tensor<4>>),
        drops: &Drops<'_>,
    ) -> Tensor<2> {
        let q = self.split(attention.q.forward(h), rows);
        let [_, heads, width, head] = q.dims();
        let mut scores = q.matmul(k.swap_dims(2, 3));
        if let Some(bias) = bias {
            scores = scores + bias;
        }
        let seen = drops.apply(softmax(scores)).matmul(v);
        let seen = seen.swap_dims(1, 2).reshape([rows * width, heads * head]);
        drops.apply(attention.o.forward(seen))
    }

    /// Begins outputs for prompts, and returns the logits of their first tokens.
    pub fn begin<'a>(&'a self, prompts: &[&[u32]], device: &'a Device) -> (Begun<'a>, Vec<f32>) {
        let encoded = self.encode(prompts, device);
        let rows = prompts.len();
        // Laid out once as they are read in every step.
        let laid_out = |x: Tensor<4>| Tensor::from_data(x.into_data(), device);
        let over = self.decoder.blocks.iter().map(|block| {
            let (k, v) = self.keys_and_values(block.to_encoder(), encoded.states.clone(), rows);
            if is_cpu(device) { (laid_out(k), laid_out(v)) } else { (k, v) }
        });
        let heads = [self.config.heads, self.config.d_kv];
        let mut begun = Begun {
            model: self,
            device,
            encoder: over.collect(),
            lengths: encoded.prompts.lengths,
            bias: encoded.prompts.hiding,
            prompts: (0..rows).collect(),
            cache: KeyValueCache::new(self.decoder.blocks.len(), rows, heads, 0, device),
        };
        let logits = begun.advance(&vec![self.config.start; rows]);
        (begun, logits)
    }

    /// Shows the projections, each with its full path.
    pub fn linears(&mut self) -> Vec<(String, &mut Linear)> {
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

    /// Returns how many tokens it takes.
    pub fn limit(&self) -> TokenLimit {
        TokenLimit::Each(self.config.positions.unwrap_or(usize::MAX))
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
    fn build<E>(config: &Config, name: &str, source: &mut dyn Source<E>) -> Result<Self, E> {
        let (model, inner, wide) = (config.d_model, config.heads * config.d_kv, config.d_ff);
        let is_decoder = name == "decoder";
        let mut blocks = Vec::new();
        for number in 0..if is_decoder { config.decoder_layers } else { config.layers } {
            let path = format!("{name}.block.{number}");
            let mut attention = |layer: &str, name: &str| -> Result<Attention, E> {
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
        config: &Config,
        direction: Direction,
        queries: std::ops::Range<usize>,
        device: &Device,
    ) -> Tensor<4> {
        let (count, keys) = (queries.len(), queries.end);
        let buckets: Vec<usize> = queries
            .flat_map(|query| (0..keys).map(move |key| bucket(key as i64 - query as i64, direction, config)))
            .collect();
        let buckets = places(&buckets, device);
        let learnt = self.relative_attention_bias.get();
        let buckets = if learnt.is_autodiff() { buckets.autodiff() } else { buckets };
        learnt.select(0, buckets).reshape([count, keys, config.heads]).permute([2, 0, 1]).unsqueeze()
    }

    fn visit(&mut self, name: &str, see: &mut dyn FnMut(String, Slot<'_>)) {
        for (number, block) in self.blocks.iter_mut().enumerate() {
            for part in block.parts() {
                let path = format!("{name}.block.{number}.{}", part.layer);
                for (name, linear) in part.linears {
                    linear.visit(&format!("{path}.{}.{name}", part.name), see);
                }
                see(format!("{path}.layer_norm.weight"), Slot::Vector(part.layer_norm));
            }
        }
        see(bias_name(name), Slot::Matrix(&mut self.relative_attention_bias));
        see(format!("{name}.final_layer_norm.weight"), Slot::Vector(&mut self.final_layer_norm));
    }
}

/// Lays `[rows, heads, queries, keys]` out as a matrix.
fn flat(bias: Tensor<4>) -> Tensor<2> {
    let [rows, heads, queries, keys] = bias.dims();
    bias.reshape([rows * heads * queries, keys])
}

fn bias_name(stack: &str) -> String {
    format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
}

/// Returns the bucket of a relative position, the key's less the query's: near ones have one each,
/// farther ones share, ever more of them to one.
fn bucket(relative: i64, direction: Direction, config: &Config) -> usize {
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
    fn visit(&mut self, see: &mut dyn FnMut(String, Slot<'_>)) {
        see("shared.weight".to_owned(), Slot::Matrix(&mut self.shared));
        self.encoder.visit("encoder", see);
        self.decoder.visit("decoder", see);
        if let Some(head) = &mut self.lm_head {
            see("lm_head.weight".to_owned(), Slot::Matrix(head));
        }
    }
}

/// Outputs on their way: the encoder's keys and values, computed once, and the decoder's so far.
pub(crate) struct Begun<'a> {
    model: &'a T5ForConditionalGeneration,
    device: &'a Device,
    encoder: Vec<(Tensor<4>, Tensor<4>)>,
    /// How many places of them each row looks at.
    lengths: Vec<usize>,
    /// What hides the others, where there are any.
    bias: Option<Tensor<4>>,
    /// The prompt of each row.
    prompts: Vec<usize>,
    cache: KeyValueCache,
}

impl Continuation for Begun<'_> {
    fn advance(&mut self, tokens: &[u32]) -> Vec<f32> {
        let (model, rows, place) = (self.model, tokens.len(), self.cache.length);
        let config = &model.config;
        let queries = place..place + 1;
        let bias = model.decoder.position_bias(config, Direction::Before, queries, self.device);
        // Attention of a single query, which the CPU has a way of its own for.
        let steps = is_cpu(self.device).then(|| {
            let bias = bias.clone().into_data().try_into_vec().expect("biases are single floats");
            let own = Step { seen: vec![0..place + 1; rows], scale: 1.0, bias: Some(bias) };
            let seen = self.lengths.iter().map(|length| 0..*length).collect();
            [own, Step { seen, scale: 1.0, bias: None }]
        });
        let mut x = model.embed(token_ids(tokens, self.device));
        for ((block, cached), (k, v)) in
            model.decoder.blocks.iter().zip(&mut self.cache.layers).zip(&self.encoder)
        {
            let attention = &block.to_itself;
            let h = rms_norm(x.clone(), &attention.layer_norm, config.epsilon);
            let (new_k, new_v) = model.keys_and_values(attention, h.clone(), rows);
            cached.extend(new_k, new_v, place);
            match &steps {
                Some([own, over]) => {
                    x = x + attention.step(h, cached.whole(), own);
                    let attention = block.to_encoder();
                    let h = rms_norm(x.clone(), &attention.layer_norm, config.epsilon);
                    x = x + attention.step(h, (k.clone(), v.clone()), over);
                }
                None => {
                    let (own_k, own_v) = cached.first(place + 1);
                    let own = (own_k, own_v, Some(bias.clone()));
                    x = x + model.seen(attention, h, rows, own, &Drops::none());
                    let over = (k.clone(), v.clone(), self.bias.clone());
                    x = model.attend_to_encoder(block.to_encoder(), x, rows, over, &Drops::none());
                }
            }
            x = block.wide(x, config, &Drops::none());
        }
        self.cache.length += 1;
        let states = rms_norm(x, &model.decoder.final_layer_norm, config.epsilon);
        let logits = model.precision.linear(model.scale(states), model.head().get());
        logits.into_data().try_into_vec().expect("logits are single floats")
    }

    fn keep(&mut self, rows: &[usize]) {
        self.cache.keep(rows, self.device);
        let prompts: Vec<usize> = rows.iter().map(|row| self.prompts[*row]).collect();
        // Rows of one prompt look at the same states, whatever order they come in.
        if prompts != self.prompts {
            let kept = || places(rows, self.device);
            for (k, v) in &mut self.encoder {
                (*k, *v) = (k.clone().select(0, kept()), v.clone().select(0, kept()));
            }
            self.lengths = rows.iter().map(|row| self.lengths[*row]).collect();
            self.bias = self.bias.take().map(|bias| bias.select(0, kept()));
            self.prompts = prompts;
        }
    }
}
