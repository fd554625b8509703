//! ROUGE: F1 of the words that two captions share.

use metrics::rouge::Rouge;

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(in super::super) const ROUGE1: Metric = Metric {
    name: "rouge1",
    description: "F1 of the words that captions share.",
    subject: Subject::Captions,
    needs: &[],
    label: "ROUGE-1",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(|features| scored(features).map(|rouge| Score::Number(rouge.rouge1))),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(in super::super) const ROUGE2: Metric = Metric {
    name: "rouge2",
    description: "F1 of the pairs of words that captions share.",
    label: "ROUGE-2",
    score: RowScore::Pair(|features| match scored(features)? {
        Rouge { reference_tokens: 1, .. } => {
            Err(Unscored::Because("a reference of one word has no pairs of words".to_owned()))
        }
        rouge => Ok(Score::Number(rouge.rouge2)),
    }),
    ..ROUGE1
};

pub(in super::super) const ROUGE_L: Metric = Metric {
    name: "rougeL",
    description: "F1 of the longest common subsequence of words.",
    label: "ROUGE-L",
    score: RowScore::Pair(|features| scored(features).map(|rouge| Score::Number(rouge.rouge_l))),
    ..ROUGE1
};

/// Returns the scores of a pair whose reference has a word.
fn scored<'f>(features: &'f Features<'_>) -> Result<&'f Rouge, Unscored> {
    features.needs_reference()?;
    match features.rouge() {
        Rouge { reference_tokens: 0, .. } => Err(Unscored::Because(
            "a reference has no words of the letters a to z and digits, as ROUGE has them".to_owned(),
        )),
        rouge => Ok(rouge),
    }
}
