//! BLEU of the corpus: of captions over tokens, of molecules over characters.

use metrics::bleu::Counts;

use super::super::features::Features;
use super::super::metric::{Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, Unscored};

pub(in super::super) const BLEU2: Metric = Metric {
    name: "bleu2",
    description: "BLEU of captions over tokens, to bigrams.",
    subject: Subject::Captions,
    needs: &[Need::Tokens],
    label: "BLEU-2",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(of_tokens),
    aggregate: Aggregate::CorpusBleu { max_order: 2 },
    why_missing: |_, _| no_n_gram(2),
};

pub(in super::super) const BLEU4: Metric = Metric {
    name: "bleu4",
    description: "BLEU of captions over tokens, to 4-grams.",
    label: "BLEU-4",
    aggregate: Aggregate::CorpusBleu { max_order: 4 },
    why_missing: |_, _| no_n_gram(4),
    ..BLEU2
};

pub(in super::super) const BLEU: Metric = Metric {
    name: "bleu",
    description: "BLEU of molecules over characters, to 4-grams.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules],
    label: "BLEU",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(of_characters),
    aggregate: Aggregate::CorpusBleu { max_order: 4 },
    why_missing: |_, _| no_n_gram(4),
};

fn of_tokens(features: &Features<'_>) -> Result<Score, Unscored> {
    features.token_counts().map(Score::Counts)
}

fn of_characters(features: &Features<'_>) -> Result<Score, Unscored> {
    let characters = |text: &str| text.chars().collect::<Vec<_>>();
    Ok(Score::Counts(Counts::of(&characters(features.prediction), &characters(features.reference))))
}

fn no_n_gram(max_order: usize) -> Option<String> {
    Some(format!("no reference has {max_order} tokens, so there is nothing that could be matched"))
}
