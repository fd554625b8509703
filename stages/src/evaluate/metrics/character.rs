//! CharacTER: what it costs to shift and edit characters, over the prediction's length.

use metrics::character;

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(super) const CHARACTER: Metric = Metric {
    name: "character",
    description: "CharacTER: what it costs to shift and edit characters, over the prediction's length.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules],
    label: "CharacTER",
    digits: 3,
    better: Better::Lower,
    range: Range::Unit,
    score: RowScore::Pair(score),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

fn score(features: &Features<'_>) -> Result<Score, Unscored> {
    let rate = character::of_characters(features.prediction, features.reference);
    rate.map(Score::Number).map_err(|error| Unscored::Because(error.to_string()))
}
