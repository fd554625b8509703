//! How much of a reference a caption entails: the greatest over premises, the mean over hypotheses.

use metrics::entailment::{coverage, mean_entailment};

use super::super::metric::{Aggregate, Better, Metric, Range, RowScore, Subject, rows_say_why};
use crate::support::judgements::Level;

pub(super) const COVERAGE_FULL: Metric = Metric {
    name: "coverage_full",
    description: "The probability that the caption entails the reference.",
    subject: Subject::Judgements,
    needs: &[],
    label: "coverage",
    digits: 3,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Judgement(Level::Full, |judged| coverage(&judged.from_prediction)),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(super) const COVERAGE_SENTENCE: Metric = Metric {
    name: "coverage_sentence",
    description: "How likely the reference's sentences are entailed by one of the caption's.",
    label: "coverage (sentences)",
    score: RowScore::Judgement(Level::Sentence, |judged| coverage(&judged.from_prediction)),
    ..COVERAGE_FULL
};

pub(super) const COVERAGE_SENTENCE_MEAN: Metric = Metric {
    name: "coverage_sentence_mean",
    description: "How likely the reference's sentences are entailed by the caption's, on average.",
    label: "coverage (sentences, mean)",
    score: RowScore::Judgement(Level::Sentence, |judged| mean_entailment(&judged.from_prediction)),
    ..COVERAGE_FULL
};

pub(super) const COVERAGE_ATOMIC: Metric = Metric {
    name: "coverage_atomic",
    description: "How likely the reference's facts are entailed by one of the caption's.",
    label: "coverage (facts)",
    score: RowScore::Judgement(Level::Atomic, |judged| coverage(&judged.from_prediction)),
    ..COVERAGE_FULL
};
