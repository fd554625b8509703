//! METEOR of captions over tokens, with and without the synonyms of WordNet.

use std::borrow::Cow;

use metrics::meteor::{WordNet, meteor};

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(super) const METEOR: Metric = Metric {
    name: "meteor",
    description: "METEOR of captions over tokens, with the synonyms of `wordnet`.",
    subject: Subject::Captions,
    needs: &[Need::Tokens, Need::Alignment, Need::WordNet],
    label: "METEOR",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(|features| score(features, features.wordnet())),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(super) const METEOR_NO_WORDNET: Metric = Metric {
    name: "meteor_no_wordnet",
    description: "METEOR without synonyms: exact words and stems.",
    needs: &[Need::Tokens, Need::Alignment],
    label: "METEOR (no WordNet)",
    score: RowScore::Pair(|features| score(features, None)),
    ..METEOR
};

fn score(features: &Features<'_>, wordnet: Option<&WordNet>) -> Result<Score, Unscored> {
    let tokens = features.tokens()?;
    features.needs_reference()?;
    if tokens.reference.is_empty() {
        return Err(Unscored::NotApplicable);
    }
    let [prediction, reference] = [&tokens.prediction, &tokens.reference]
        .map(|tokens| tokens.iter().map(Cow::as_ref).collect::<Vec<&str>>());
    Ok(Score::Number(meteor(&prediction, &reference, wordnet)))
}
