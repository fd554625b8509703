//! How much longer predictions are than their references.

use corpus::Direction;
use metrics::length;

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(super) const LENGTH_DEVIATION: Metric = Metric {
    name: "length_deviation",
    description: "How much longer predictions are: in characters for molecules, in words for captions.",
    subject: Subject::Predictions,
    needs: &[],
    label: "length deviation",
    digits: 1,
    better: Better::Neither,
    range: Range::Integers,
    score: RowScore::Pair(score),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

fn score(features: &Features<'_>) -> Result<Score, Unscored> {
    let deviation = match features.direction {
        Direction::Mol2cap => length::deviation_words(features.prediction, features.reference),
        Direction::Cap2mol => length::deviation_characters(features.prediction, features.reference),
    };
    Ok(Score::Number(deviation as f64))
}
