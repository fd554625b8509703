//! Edit distance in characters.

use metrics::levenshtein;

use super::super::metric::{Aggregate, Better, Metric, Range, RowScore, Score, Subject, rows_say_why};

pub(in super::super) const LEVENSHTEIN: Metric = Metric {
    name: "levenshtein",
    description: "Edit distance in characters.",
    subject: Subject::Predictions,
    needs: &[],
    label: "Levenshtein",
    digits: 1,
    better: Better::Lower,
    range: Range::Integers,
    score: RowScore::Pair(|features| {
        let distance = levenshtein::distance(features.prediction, features.reference);
        Ok(Score::Number(distance as f64))
    }),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};
