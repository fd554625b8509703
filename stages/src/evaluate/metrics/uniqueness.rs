//! The share of the molecules predicted that no earlier row has.

use std::collections::HashSet;

use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, Score, SequentialScore, Subject,
};

pub(super) const UNIQUENESS: Metric = Metric {
    name: "uniqueness",
    description: "The share of molecules that no earlier prediction was.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules],
    label: "uniqueness",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Sequential(first_occurrence),
    aggregate: Aggregate::Mean,
    why_missing: |_, _| Some("no prediction is a molecule".to_owned()),
};

/// Scores a molecule with 1 where it is predicted first, and with 0 behind.
fn first_occurrence() -> SequentialScore {
    let mut seen = HashSet::new();
    Box::new(move |row| match &row.canonical {
        Some(canonical) => Score::truth(seen.insert(canonical.clone())),
        None => Score::Missing,
    })
}
