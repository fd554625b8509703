//! The probability that a reference entails a caption, both as wholes.

use metrics::entailment::Verdict;

use super::super::metric::{Aggregate, Better, Metric, Range, RowScore, Subject, rows_say_why};
use crate::support::judgements::{Judged, Level};

pub(super) const ENTAILMENT: Metric = Metric {
    name: "entailment",
    description: "The probability that the reference entails the caption.",
    subject: Subject::Judgements,
    needs: &[],
    label: "entailment",
    digits: 3,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Judgement(Level::Full, |judged| {
        verdict(judged).map(|verdict| f64::from(verdict.entailment))
    }),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(super) const ENTAILMENT_WIN_RATE: Metric = Metric {
    name: "entailment_win_rate",
    description: "The share of captions that are likelier entailed by their reference than not.",
    label: "entailment win rate",
    score: RowScore::Judgement(Level::Full, |judged| {
        verdict(judged).map(|verdict| f64::from(u8::from(verdict.is_entailment())))
    }),
    ..ENTAILMENT
};

/// Returns the verdict on the whole texts, with the reference as the premise.
fn verdict(judged: &Judged) -> Option<Verdict> {
    judged.from_reference.first().and_then(|row| row.first().copied())
}
