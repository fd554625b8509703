//! How much memory a model needs, estimated from its configuration before there is one.
//!
//! All sizes are bytes unless a name says otherwise. `L` is the count of numbers that are trained, `T` the
//! threads that compute side by side, `t` the tokens of what one of them computes at once, `H` the
//! width of the residual stream, `Q` and `K` the widths of queries and of keys, `W` that of the MLP,
//! `V` the vocabulary. Everything is computed in f32.
//!
//! - **Weights.** 4 for each number, or 2 in bf16. A projection of `n` numbers in NF4 takes `n / 2`,
//!   and for each block of 64 a scale: of 4, or with double quantisation of 1 and, for each 256
//!   blocks, 4 more, which is 4.127 bits a number. Embedding, head, norms and biases stay dense, and
//!   so do adapters: `r (in + out)` numbers beside each projection.
//! - **AdamW** remembers two numbers for each that is trained, `8 L`, and changes weights in their place.
//! - **Gradients.** `4 L` for each thread, and `4 L` for their sum.
//! - **Best weights.** With validation rows those that did best are kept, `4 L`.
//! - **A reference** that is the model as it began keeps its first weights, `4 L`; another model is
//!   one more set of weights.
//! - **Activations.** What a layer keeps for the backward pass, in numbers for each token: a decoder's
//!   `4 H + 2 Q + 2 K + 3 W` and, for each adapter, its input twice where it has dropout and `2 r`.
//!   Attention keeps no scores, but for T5's, which keeps them three times, `3 heads t / rows`. With
//!   packed weights, and with gradient checkpointing, layers are recomputed: each keeps its input, `H`,
//!   and one of them all of the above and its weights unpacked. Times `4 t layers T`.
//! - **Logits.** `V` for each token that is predicted, twice: themselves, and their derivatives.
//! - **Generation** remembers keys and values, `2 layers rows K (prompt + output)`, for `T` batches
//!   at a time, on a GPU for one; while it reads prompts, scores of one layer, `3 rows heads prompt²`, and the widest
//!   of its states.
//! - **Reading and writing** holds one tensor more than the model: a packed one as it was, or the
//!   copy that is written.
//!
//! How these compare with what processes take is in `docs/benchmarks.md`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::adapters::{AdapterMethod, Lora};
use crate::models::{ENCODERS, LANGUAGE_MODELS};
use crate::network::{LayerStack, Limit, ListedParameter, Outline, UnusableConfig};
use crate::tensor::precision::Precision;
use crate::text::batches::{GPU_SHARD, SHARD};

/// What the program itself takes, with its threads.
const PROGRAM: u64 = 40 << 20;

/// How many bytes an f32 has.
const FLOAT: Count = 4;

/// A configuration of a model that is not known, whose memory cannot be estimated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizesError {
    /// It is of a type that is not known.
    #[error("`config.json` says `model_type` {0}, which is not known")]
    UnknownType(String),
    /// It says what cannot be.
    #[error(transparent)]
    Config(#[from] UnusableConfig),
}

/// Counts that no configuration, however damaged, makes overflow.
type Count = u128;

/// The sizes of a network, as far as memory goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    model_type: String,
    outline: Outline,
}

/// How numbers of projections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In f32.
    F32,
    /// In bf16.
    Bf16,
    /// In four bits.
    Nf4 {
        /// Whether the scales of the blocks are packed too, in eight bits.
        double_quantization: bool,
    },
}

/// What a training does, as far as memory goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Training<'a> {
    /// What is trained instead of all weights.
    pub adapter: Option<&'a AdapterMethod>,
    /// The tokens of a prompt with its output.
    pub tokens: u64,
    /// The outputs of a step, the dispreferred ones among them.
    pub outputs: u64,
    /// How many threads compute.
    pub threads: u64,
    /// What it compares with.
    pub compared: Compared<'a>,
    /// Whether layers are recomputed in the backward pass; those with packed weights always are.
    pub recomputes: bool,
    /// What products are computed in. With bf16 a GPU keeps frozen weights in it.
    pub precision: Precision,
    /// Whether it is computed on the CPU, where attention keeps no scores.
    pub is_on_cpu: bool,
}

/// What a training compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared<'a> {
    /// Nothing.
    Nothing,
    /// The model as it begins.
    Itself,
    /// Another model.
    With(&'a Sizes),
}

/// What a generation does, as far as memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuing {
    /// The prompts of a batch.
    pub prompts: u64,
    /// The outputs that are followed for each.
    pub beams: u64,
    /// The tokens of a prompt.
    pub prompt_tokens: u64,
    /// The most tokens of an output.
    pub new_tokens: u64,
    /// How many threads compute on the CPU, a batch each. A GPU computes one batch after the other.
    pub threads: u64,
    /// How projections are kept.
    pub kept: Kept,
    /// Whether it is computed on the CPU.
    pub is_on_cpu: bool,
}

/// How many bytes something needs, by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The program.
    pub program: u64,
    /// The weights, those of adapters and of a reference among them.
    pub weights: u64,
    /// What the optimiser remembers.
    pub moments: u64,
    /// Gradients, and the best weights so far.
    pub gradients: u64,
    /// What layers keep, or hold for a while.
    pub activations: u64,
    /// Keys and values of the tokens so far.
    pub cache: u64,
    /// The scores of tokens.
    pub logits: u64,
    /// Beyond all that, while the model is read or written.
    pub passing: u64,
}

impl Need {
    /// Returns what it takes whatever texts there are.
    pub fn least(&self) -> u64 {
        // Half of the moments: the gradients of one thread.
        sum(&[self.program, self.weights, self.moments, self.gradients.min(self.moments / 2)])
    }

    /// Returns what it takes.
    pub fn all(&self) -> u64 {
        let computing = [self.moments, self.gradients, self.activations, self.cache, self.logits];
        sum(&[self.program, self.weights, sum(&computing).max(self.passing)])
    }
}

fn sum(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
}

/// Returns the bytes of so many f32 numbers.
fn floats(count: Count) -> u64 {
    u64::try_from(FLOAT * count).unwrap_or(u64::MAX)
}

impl Sizes {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`SizesError`].
    pub fn read(config: &Map<String, Value>) -> Result<Self, SizesError> {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("nothing");
        let written = LANGUAGE_MODELS.iter().find(|(_, entry)| entry.model_type == model_type);
        let read = ENCODERS.iter().find(|(_, entry)| entry.model_type == Some(model_type));
        let outline = match (written, read.and_then(|(_, entry)| entry.outline)) {
            (Some((_, entry)), _) => (entry.read)(config)?.outline(),
            (None, Some(outline)) => outline(config)?,
            (None, None) => return Err(SizesError::UnknownType(format!("`{model_type}`"))),
        };
        Ok(Self { model_type: model_type.to_owned(), outline })
    }

    /// Returns the `model_type` of the configuration.
    pub fn model_type(&self) -> &str {
        &self.model_type
    }

    /// Returns how many numbers the model has.
    pub fn parameters(&self) -> u64 {
        u64::try_from(self.numbers()).unwrap_or(u64::MAX)
    }

    /// Returns the floating-point operations of the projections and the head for each token that
    /// passes through, a multiplication and an addition being two.
    pub fn operations(&self) -> u64 {
        let projections: Count =
            self.projections().map(|(_, shape, count)| count * shape[0] * shape[1]).sum();
        u64::try_from(2 * (projections + self.embedding())).unwrap_or(u64::MAX)
    }

    /// Returns the same of a token that trains adapters beside frozen weights: forwards,
    /// and backwards to the inputs. What is recomputed to save memory does not count.
    pub fn adapting_operations(&self, adapter: &AdapterMethod) -> u64 {
        let lora = match adapter {
            AdapterMethod::Lora(lora) => lora.clone(),
            AdapterMethod::Qlora(qlora) => qlora.lora(),
        };
        // Adapters learn as well: once forwards, twice backwards.
        let adapters = u64::try_from(6 * self.adapters(&lora)).unwrap_or(u64::MAX);
        self.operations().saturating_mul(2).saturating_add(adapters)
    }

    /// Returns the most tokens of a text.
    pub fn longest(&self) -> u64 {
        match self.outline.limit {
            Limit::Together(tokens) | Limit::Each(tokens) => tokens as u64,
        }
    }

    /// Returns the bytes of the weights, with projections kept in some way.
    pub fn weights(&self, kept: Kept) -> u64 {
        self.weights_beside(kept, if kept == Kept::Bf16 { 2 } else { FLOAT })
    }

    /// Returns the bytes of the weights, with projections kept in some way and each other number in
    /// so many bytes.
    fn weights_beside(&self, kept: Kept, dense: Count) -> u64 {
        let projections = self.projections().map(|(_, shape, count)| count * kept.bytes(shape[0] * shape[1]));
        let all = dense * self.dense() + FLOAT * self.outline.derived + projections.sum::<Count>();
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Returns what a generation needs.
    pub fn generation(&self, of: &Continuing) -> Need {
        let threads = if of.is_on_cpu { of.threads } else { 1 };
        let [prompts, beams, prompt_tokens, new_tokens, threads] =
            [of.prompts, of.beams, of.prompt_tokens, of.new_tokens, threads].map(Count::from);
        let rows = prompts * beams;
        let (layers, keys) = self.decoding();
        let is_apart = matches!(self.outline.limit, Limit::Each(_));
        // Room is made for 64 tokens at once.
        let behind = new_tokens + 64;
        let seen = if is_apart { behind } else { prompt_tokens + behind };
        let encoded = if is_apart { prompt_tokens } else { 0 };
        let reading = passing(&self.outline.stacks[0], self.hidden(), prompts, prompt_tokens);
        // What is packed is unpacked for each product.
        let unpacked = if of.kept == Kept::F32 { 0 } else { self.largest_projection() };
        Need {
            program: PROGRAM,
            weights: self.weights(of.kept),
            activations: floats(threads * (reading + unpacked)),
            // A longer cache is made before the shorter one goes, layer by layer, and rows are put in
            // another order in the same way.
            cache: floats(threads * 2 * rows * keys * (seen + encoded) * (layers + 1)),
            logits: floats(threads * 2 * rows * self.vocabulary()),
            passing: floats(unpacked),
            ..Need::default()
        }
    }

    /// Returns what judging pairs of texts needs, so many tokens at once on each thread.
    pub fn judging(&self, tokens: u64, threads: u64) -> Need {
        let passing = passing(&self.outline.stacks[0], self.hidden(), 1, Count::from(tokens));
        Need {
            program: PROGRAM,
            weights: self.weights(Kept::F32),
            activations: floats(Count::from(threads) * passing),
            // A matrix is transposed as it is read.
            passing: floats(2 * self.largest()),
            ..Need::default()
        }
    }

    /// Returns what asking for the log-probabilities of texts needs, two at once on each thread.
    pub fn asking(&self, tokens: u64, threads: u64) -> Need {
        let (rows, tokens, threads) = (SHARD as Count, Count::from(tokens), Count::from(threads));
        Need {
            program: PROGRAM,
            weights: self.weights(Kept::F32),
            activations: floats(threads * passing(&self.outline.stacks[0], self.hidden(), rows, tokens)),
            logits: floats(threads * 2 * rows * tokens * self.vocabulary()),
            ..Need::default()
        }
    }

    /// Returns what a training needs.
    pub fn training(&self, of: &Training<'_>) -> Need {
        let is_half = of.precision.has_bf16() && !of.is_on_cpu && of.adapter.is_some();
        let (lora, kept) = match of.adapter {
            None => (None, Kept::F32),
            Some(AdapterMethod::Lora(lora)) if is_half => (Some(lora.clone()), Kept::Bf16),
            Some(AdapterMethod::Lora(lora)) => (Some(lora.clone()), Kept::F32),
            Some(AdapterMethod::Qlora(qlora)) => {
                (Some(qlora.lora()), Kept::Nf4 { double_quantization: qlora.double_quantization })
            }
        };
        let adapters = lora.as_ref().map_or(0, |lora| self.adapters(lora));
        let learning = if lora.is_some() { adapters } else { self.numbers() };
        let reference = match of.compared {
            Compared::Nothing => 0,
            Compared::Itself => floats(learning),
            Compared::With(other) => other.weights(Kept::F32),
        };
        let threads = if of.is_on_cpu { of.threads } else { 1 };
        let [tokens, outputs, threads] = [of.tokens, of.outputs, threads].map(Count::from);
        let most = if of.is_on_cpu { SHARD } else { GPU_SHARD };
        let shard = (most as Count).min(outputs).max(1);
        let shards = outputs.div_ceil(shard).max(1);
        let at_once = threads.clamp(1, shards);
        let step = (at_once + Count::from(shards > 1)) * learning;
        let activations = at_once * self.taped(shard, of, lora.as_ref());
        let logits = at_once * 2 * shard * tokens * self.vocabulary();
        let copies = if lora.is_some() { 3 } else { 1 };
        Need {
            program: PROGRAM,
            weights: sum(&[
                self.weights_beside(kept, if is_half { 2 } else { FLOAT }),
                floats(adapters),
                reference,
            ]),
            moments: floats(2 * learning),
            // The best weights are kept beside them.
            gradients: floats(step + learning),
            activations: floats(activations),
            cache: 0,
            logits: floats(logits),
            passing: floats(2 * learning + copies * self.largest()),
        }
    }

    fn vocabulary(&self) -> Count {
        self.outline.vocabulary as Count
    }

    fn hidden(&self) -> Count {
        self.outline.hidden as Count
    }

    /// Returns how many numbers the embedding has, and a head of its own.
    fn embedding(&self) -> Count {
        self.vocabulary() * self.hidden()
    }

    /// Returns how many numbers there are.
    fn numbers(&self) -> Count {
        let outside: Count = self.outline.outside.iter().map(ListedParameter::count).sum();
        let of = |stack: &LayerStack| {
            stack.layers as Count * stack.layer.iter().map(ListedParameter::count).sum::<Count>()
        };
        outside + self.outline.stacks.iter().map(of).sum::<Count>()
    }

    /// Returns the numbers that are in no projection.
    fn dense(&self) -> Count {
        let projections = self.projections().map(|(_, shape, count)| count * shape[0] * shape[1]);
        self.numbers() - projections.sum::<Count>()
    }

    /// Returns the projections of all layers: the last parts of their names, `[out, in]`, and how many
    /// there are.
    fn projections(&self) -> impl Iterator<Item = (&str, [Count; 2], Count)> {
        self.outline.stacks.iter().flat_map(|stack| {
            let layers = stack.layers as Count;
            projections(stack).into_iter().map(move |(name, shape)| (name, shape, layers))
        })
    }

    /// Returns the numbers of adapters.
    fn adapters(&self, lora: &Lora) -> Count {
        let adapted = self.projections().filter(|(name, ..)| is_target(lora, name));
        adapted.map(|(_, [output, input], count)| count * Count::from(lora.r) * (output + input)).sum()
    }

    /// Returns the numbers of the largest tensor.
    fn largest(&self) -> Count {
        self.largest_projection().max(self.embedding())
    }

    fn largest_projection(&self) -> Count {
        self.projections().map(|(_, shape, _)| shape[0] * shape[1]).max().unwrap_or(0)
    }

    /// Returns the layers that remember tokens, and the width of what they remember.
    fn decoding(&self) -> (Count, Count) {
        self.outline.stacks.last().map_or((0, 0), |stack| (stack.layers as Count, stack.keys as Count))
    }

    /// Returns the numbers that one thread's tape keeps for rows of so many tokens.
    fn taped(&self, rows: Count, of: &Training<'_>, lora: Option<&Lora>) -> Count {
        let tokens = Count::from(of.tokens);
        let all = rows * tokens;
        let is_packed = matches!(of.adapter, Some(AdapterMethod::Qlora(_)));
        let each = self.outline.stacks.iter().map(|stack| {
            let layers = stack.layers as Count;
            let scores = if of.is_on_cpu { 0 } else { 3 * rows * stack.heads as Count * tokens * tokens };
            let layer = taped(stack, self.hidden(), rows, tokens, self.outline.dropout)
                + scores
                + all * lora.map_or(0, |lora| taped_beside(stack, lora));
            let unpacked: Count = if is_packed {
                projections(stack).iter().map(|(_, shape)| shape[0] * shape[1]).sum()
            } else {
                0
            };
            if of.recomputes || is_packed {
                layers * all * self.hidden() + layer + unpacked
            } else {
                layers * layer
            }
        });
        // States before the head, and their derivatives.
        each.sum::<Count>() + 3 * all * self.hidden()
    }
}

/// Returns the projections of a layer: the last parts of their names, and `[out, in]`.
fn projections(stack: &LayerStack) -> Vec<(&str, [Count; 2])> {
    let projections = stack.layer.iter().filter(|parameter| parameter.is_projection);
    let named = projections.filter_map(|parameter| {
        let path = parameter.name.strip_suffix(".weight").unwrap_or(&parameter.name);
        let &[output, input] = parameter.shape.as_slice() else { return None };
        Some((path.rsplit('.').next().unwrap_or(path), [output as Count, input as Count]))
    });
    named.collect()
}

/// Returns the numbers that a layer keeps for the backward pass.
fn taped(stack: &LayerStack, hidden: Count, rows: Count, tokens: Count, dropout: bool) -> Count {
    let all = rows * tokens;
    if !stack.keeps_scores {
        return all
            * (4 * hidden + 2 * stack.queries as Count + 2 * stack.keys as Count + 3 * stack.wide as Count);
    }
    let left_out = if dropout { 2 } else { 0 };
    let attention = all
        * ((2 + left_out / 2) * hidden + 2 * stack.queries as Count + 2 * stack.keys as Count)
        + (2 + left_out) * rows * stack.heads as Count * tokens * tokens;
    let attentions = if stack.is_crossing { 2 } else { 1 };
    let gates =
        projections(stack).into_iter().filter(|(_, shape)| shape[0] == stack.wide as Count).count() as Count;
    attentions * attention + all * (2 * hidden + (1 + 2 * gates + left_out) * stack.wide as Count)
}

/// Returns the numbers that the adapters of a layer keep, for each token.
fn taped_beside(stack: &LayerStack, lora: &Lora) -> Count {
    let adapted = projections(stack).into_iter().filter(|(name, _)| is_target(lora, name));
    let inputs = if lora.dropout > 0.0 { 2 } else { 0 };
    adapted.map(|(_, [_, input])| inputs * input + 2 * Count::from(lora.r)).sum()
}

/// Returns the numbers of a layer that is computed and forgotten.
fn passing(stack: &LayerStack, hidden: Count, rows: Count, tokens: Count) -> Count {
    let attention = 3 * rows * stack.heads as Count * tokens * tokens;
    let states = rows * tokens * (3 * hidden + stack.queries as Count + 2 * stack.keys as Count);
    let mlp = rows * tokens * (3 * hidden + 3 * stack.wide as Count);
    (attention + states).max(mlp)
}

impl Kept {
    /// Returns how many bytes so many numbers take.
    fn bytes(self, numbers: Count) -> Count {
        let blocks = numbers.div_ceil(crate::tensor::nf4::BLOCK as Count);
        match self {
            Self::F32 => FLOAT * numbers,
            Self::Bf16 => 2 * numbers,
            Self::Nf4 { double_quantization: false } => numbers.div_ceil(2) + FLOAT * blocks,
            Self::Nf4 { double_quantization: true } => {
                let nested = blocks.div_ceil(crate::tensor::nf4::NESTED_BLOCK as Count);
                numbers.div_ceil(2) + blocks + FLOAT * nested + FLOAT
            }
        }
    }
}

fn is_target(lora: &Lora, name: &str) -> bool {
    lora.target_modules.is_empty() || lora.target_modules.iter().any(|target| target == name)
}

#[cfg(test)]
mod tests;
