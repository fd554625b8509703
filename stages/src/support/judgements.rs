//! What a judge said of rows, on its way out of one stage and into another.

use std::collections::BTreeMap;

use corpus::Record;
use metrics::entailment::Verdict;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What texts are split into before they are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Nothing: the whole texts.
    Full,
    /// Sentences.
    Sentence,
    /// Facts that say one thing each.
    Atomic,
}

impl Level {
    /// Returns its name, as in `levels = ["full"]`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Sentence => "sentence",
            Self::Atomic => "atomic",
        }
    }
}

/// What was said of one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Judgement {
    /// The prediction's `id`.
    pub id: String,
    /// Whether the prediction is empty, and so has no parts.
    pub is_empty: bool,
    /// How many words the reference has, for scores of long ones alone.
    pub reference_words: usize,
    /// By level, what was judged.
    pub levels: BTreeMap<Level, Judged>,
}

impl Record for Judgement {
    const WHAT: &'static str = "a judgement";
}

/// Two texts in parts, and what each part says of each of the other text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Judged {
    /// The parts of the reference.
    pub reference: Vec<String>,
    /// The parts of the prediction.
    pub prediction: Vec<String>,
    /// For each part of the reference as the premise, a verdict on each part of the prediction.
    pub from_reference: Vec<Vec<Verdict>>,
    /// For each part of the prediction as the premise, a verdict on each part of the reference.
    pub from_prediction: Vec<Vec<Verdict>>,
}
