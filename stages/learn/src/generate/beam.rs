//! Beam search, as transformers 5 has it (`GenerationMixin._beam_search`): `num_beams` unfinished
//! texts are continued, and the best `num_beams` finished ones kept.
//!
//! A finished text's score is `sum of log-probabilities / length^length_penalty`; its end token
//! counts, the prompt does not. In each step the best `(end tokens + 1) * num_beams` continuations are
//! looked at, at least twice `num_beams`; one that ends or is as long as it may be is kept if it is
//! among the first `num_beams` of them. `early_stopping = true` stops a search when there are as
//! many finished texts as beams; `false`, when the best unfinished one, as long as it is now, could
//! not get among them; `"never"`, when it could not at any length. Defaults are transformers'.
//! Numbers are summed up in single precision, as there. Of equals the first wins, which there is
//! left open. Every prompt's search is its own: what is beside it in a batch changes nothing.

use choice::FieldError;
use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::task::{CheckStrategy, GenerateError, Generated, Task};

/// The version of what it computes.
pub(super) const VERSION: u32 = 1;

/// Beam search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Beam {
    /// How many texts are continued at once.
    pub num_beams: u32,
    /// The power of the length that a score is divided by: above 0 for longer texts, below for
    /// shorter ones.
    #[serde(default = "one")]
    pub length_penalty: f64,
    /// When a search stops.
    #[serde(default)]
    pub early_stopping: EarlyStopping,
    /// How many outputs there are for a prompt, at most as many as beams.
    #[serde(default = "single")]
    pub num_return_sequences: u32,
}

fn one() -> f64 {
    1.0
}

fn single() -> u32 {
    1
}

/// When a beam search stops: `false`, `true` or `"never"` in TOML and JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When nothing unfinished could score higher at its present length.
    #[default]
    No,
    /// When as many texts are finished as there are beams.
    Yes,
    /// When nothing unfinished could score higher at any length.
    Never,
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => serializer.serialize_bool(false),
            Self::Yes => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = EarlyStopping;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or `\"never\"`")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<EarlyStopping, E> {
                Ok(if value { EarlyStopping::Yes } else { EarlyStopping::No })
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<EarlyStopping, E> {
                match value {
                    "never" => Ok(EarlyStopping::Never),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for EarlyStopping {
    fn schema_name() -> Cow<'static, str> {
        "EarlyStopping".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [false, true, "never"] })
    }
}

impl CheckStrategy for Beam {
    fn check(&self) -> Result<(), FieldError> {
        let Self { num_beams, length_penalty, num_return_sequences, .. } = self;
        if *num_beams < 2 {
            let message = format!("`num_beams` is at least 2, not {num_beams}");
            return Err(FieldError::new("num_beams", message).help("one beam is `greedy`"));
        }
        if !length_penalty.is_finite() {
            let message = format!("`length_penalty` is a number, not {length_penalty}");
            return Err(FieldError::new("length_penalty", message));
        }
        if !(1..=*num_beams).contains(num_return_sequences) {
            let message = format!(
                "`num_return_sequences` is from 1 to the {num_beams} `num_beams`, not {num_return_sequences}"
            );
            return Err(FieldError::new("num_return_sequences", message));
        }
        Ok(())
    }

    fn outputs(&self) -> usize {
        self.num_return_sequences as usize
    }

    fn followed(&self) -> usize {
        self.num_beams as usize
    }
}

/// What is taken off a score to put it behind all others.
const BEHIND: f32 = -1e9;

/// A text and its score.
#[derive(Debug, Clone)]
struct Text {
    tokens: Vec<u32>,
    score: f32,
}

/// The search of one prompt.
struct Search {
    most: usize,
    /// The texts that are continued, the best first.
    running: Vec<Text>,
    /// The best finished ones, the best first.
    finished: Vec<Text>,
    is_over: bool,
}

impl Beam {
    pub(super) fn run(&self, mut task: Task<'_>) -> Result<Vec<Vec<Generated>>, GenerateError> {
        let beams = self.num_beams as usize;
        let begin = |most: &usize| {
            // All begin alike; that only the first one's continuations are looked at keeps the
            // beams apart.
            let text = |beam: usize| Text { tokens: Vec::new(), score: if beam == 0 { 0.0 } else { BEHIND } };
            Search {
                most: *most,
                running: (0..beams).map(text).collect(),
                finished: Vec::new(),
                is_over: *most == 0,
            }
        };
        let mut searches: Vec<Search> = task.most.iter().map(begin).collect();
        // The searches whose beams are in the batch, one after the other.
        let mut live: Vec<usize> = (0..searches.len()).collect();
        let vocabulary = task.logits.len() / live.len().max(1);
        // The first logits are one row for each prompt, and hold for all of its beams.
        let mut rows_each = 1;
        loop {
            let (mut kept, mut next) = (Vec::new(), Vec::new());
            let blocks = task.logits.chunks_exact(rows_each * vocabulary);
            for (place, (number, logits)) in live.iter().zip(blocks).enumerate() {
                let search = &mut searches[*number];
                if search.is_over {
                    continue;
                }
                task.check(*number, logits, search.running[0].tokens.len())?;
                let logps: Vec<Vec<f32>> = logits.chunks_exact(vocabulary).map(log_softmax).collect();
                for (beam, token) in self.step(search, &logps, task.eos_token_ids) {
                    kept.push(place * rows_each + beam.min(rows_each - 1));
                    next.push(token);
                }
            }
            live.retain(|number| !searches[*number].is_over);
            if live.is_empty() {
                break;
            }
            // Beams that stay where they are need no copy of the cache.
            if kept.len() != task.logits.len() / vocabulary || !kept.iter().copied().eq(0..kept.len()) {
                task.state.reorder(&kept);
            }
            task.logits = task.state.step(&next);
            rows_each = beams;
        }
        Ok(searches.into_iter().map(|search| self.outputs_of(search, task.eos_token_ids)).collect())
    }

    /// Makes one step, and returns the beams that are continued, each with its token; none if the
    /// search is over. There are log-probabilities for each beam, or for all of them alike.
    fn step(&self, search: &mut Search, logps: &[Vec<f32>], eos_token_ids: &[u32]) -> Vec<(usize, u32)> {
        let beams = self.num_beams as usize;
        let length = search.running[0].tokens.len() + 1;
        let candidates = best_candidates(search, logps, (eos_token_ids.len() + 1).max(2) * beams);
        let stops: Vec<bool> = candidates
            .iter()
            .map(|(_, token, _)| eos_token_ids.contains(token) || length >= search.most)
            .collect();
        // What goes on: those that stop only where there are not enough others.
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        let behind = |place: usize| candidates[place].2 + if stops[place] { BEHIND } else { 0.0 };
        order.sort_by(|one, other| behind(*other).total_cmp(&behind(*one)));
        order.truncate(beams);
        let extend = |place: usize| {
            let (beam, token, score) = candidates[place];
            let mut tokens = search.running[beam].tokens.clone();
            tokens.push(token);
            Text { tokens, score }
        };
        let running: Vec<Text> =
            order.iter().map(|place| Text { score: behind(*place), ..extend(*place) }).collect();
        // What is finished.
        let is_full = search.finished.len() == beams;
        if !(is_full && self.early_stopping == EarlyStopping::Yes) {
            let by = self.divisor(length);
            let ended = (0..beams.min(candidates.len())).filter(|place| stops[*place]);
            let ended: Vec<Text> = ended.map(extend).collect();
            search.finished.extend(ended.into_iter().map(|text| Text { score: text.score / by, ..text }));
            search.finished.sort_by(|one, other| other.score.total_cmp(&one.score));
            search.finished.truncate(beams);
        }
        let goes_on = order.iter().map(|place| (candidates[*place].0, candidates[*place].1)).collect();
        search.running = running;
        let is_full = search.finished.len() == beams;
        let can_improve = !is_full || {
            let hoped = match self.early_stopping {
                EarlyStopping::Never if self.length_penalty > 0.0 => search.most,
                _ => length,
            };
            search.running[0].score / self.divisor(hoped) > search.finished[beams - 1].score
        };
        let enough = is_full && self.early_stopping == EarlyStopping::Yes;
        search.is_over = !can_improve || enough || stops.iter().all(|stops| *stops);
        if search.is_over { Vec::new() } else { goes_on }
    }

    fn divisor(&self, length: usize) -> f32 {
        (length as f64).powf(self.length_penalty) as f32
    }

    fn outputs_of(&self, search: Search, eos_token_ids: &[u32]) -> Vec<Generated> {
        let best = search.finished.into_iter().take(self.num_return_sequences as usize);
        let mut outputs: Vec<Generated> = best
            .map(|Text { mut tokens, score }| {
                let ended = tokens.last().is_some_and(|token| eos_token_ids.contains(token));
                if ended {
                    tokens.pop();
                }
                Generated { tokens, ended, score: Some(f64::from(score)) }
            })
            .collect();
        if outputs.is_empty() {
            outputs.push(Generated { tokens: Vec::new(), ended: false, score: None });
        }
        outputs
    }
}

/// Returns the best continuations of all beams, `(beam, token, score)`, the best first.
fn best_candidates(search: &Search, logps: &[Vec<f32>], count: usize) -> Vec<(usize, u32, f32)> {
    let mut best: Vec<(usize, u32, f32)> = Vec::with_capacity(count + 1);
    for (beam, text) in search.running.iter().enumerate() {
        for (token, logp) in logps[beam.min(logps.len() - 1)].iter().enumerate() {
            let score = text.score + logp;
            if best.len() == count && score.total_cmp(&best[count - 1].2).is_le() {
                continue;
            }
            let place = best.partition_point(|(_, _, other)| other.total_cmp(&score).is_ge());
            best.insert(place, (beam, token as u32, score));
            best.truncate(count);
        }
    }
    best
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    let log = sum.ln() as f32;
    logits.iter().map(|logit| logit - largest - log).collect()
}
