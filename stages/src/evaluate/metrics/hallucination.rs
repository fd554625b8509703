//! How much of a caption its reference contradicts: the least over premises, the mean over hypotheses.

use metrics::entailment::hallucination;

use super::super::metric::{Aggregate, Better, Metric, Range, RowScore, Subject, rows_say_why};
use crate::support::judgements::Level;

pub(super) const HALLUCINATION_FULL: Metric = Metric {
    name: "hallucination_full",
    description: "The probability that the reference contradicts the caption.",
    subject: Subject::Judgements,
    needs: &[],
    label: "hallucination",
    digits: 3,
    better: Better::Lower,
    range: Range::Unit,
    score: RowScore::Judgement(Level::Full, |judged| hallucination(&judged.from_reference)),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(super) const HALLUCINATION_SENTENCE: Metric = Metric {
    name: "hallucination_sentence",
    description: "How likely the caption's sentences are contradicted by each of the reference's.",
    label: "hallucination (sentences)",
    score: RowScore::Judgement(Level::Sentence, |judged| hallucination(&judged.from_reference)),
    ..HALLUCINATION_FULL
};

pub(super) const HALLUCINATION_ATOMIC: Metric = Metric {
    name: "hallucination_atomic",
    description: "How likely the caption's facts are contradicted by each of the reference's.",
    label: "hallucination (facts)",
    score: RowScore::Judgement(Level::Atomic, |judged| hallucination(&judged.from_reference)),
    ..HALLUCINATION_FULL
};
