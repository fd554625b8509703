//! chr-F: F-score of character n-grams.

use metrics::chrf;

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(super) const CHRF: Metric = Metric {
    name: "chrf",
    description: "chr-F of character 1-, 2- and 3-grams, recall and precision weighed alike.",
    subject: Subject::Predictions,
    needs: &[],
    label: "chr-F",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(|features| score(features, 1.0)),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(super) const CHRF2: Metric = Metric {
    name: "chrf2",
    description: "The same with recall weighed twice: beta is 2.",
    label: "chr-F2",
    score: RowScore::Pair(|features| score(features, 2.0)),
    ..CHRF
};

fn score(features: &Features<'_>, beta: f64) -> Result<Score, Unscored> {
    features.needs_reference()?;
    Ok(Score::Number(chrf::chrf(features.prediction, features.reference, beta)))
}
