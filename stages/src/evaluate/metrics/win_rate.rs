//! The share of predictions that come near enough to their reference.

use metrics::{chrf, length, win};

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(super) const WIN_RATE: Metric = Metric {
    name: "win_rate",
    description: "The share of predictions that are molecules, have chr-F above 0.3, and are less than 5 characters longer or shorter than their reference.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules],
    label: "win rate",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(score),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

fn score(features: &Features<'_>) -> Result<Score, Unscored> {
    let Features { prediction, reference, .. } = *features;
    let chrf = chrf::chrf(prediction, reference, 1.0);
    let deviation = length::deviation_characters(prediction, reference);
    Ok(Score::truth(win::is_win(chrf, deviation, features.is_valid())))
}
