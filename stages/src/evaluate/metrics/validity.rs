//! The share of predictions that are molecules.

use super::super::metric::{Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, rows_say_why};

pub(in super::super) const VALIDITY: Metric = Metric {
    name: "validity",
    description: "The share of predictions that are molecules.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules],
    label: "validity",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(|features| Ok(Score::truth(features.is_valid()))),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};
