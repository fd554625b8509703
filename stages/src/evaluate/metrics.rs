//! The metrics, a file for each family. To add one, write its file and enter it here.

pub(super) mod bleu;
mod character;
mod chrf;
mod coverage;
mod entailment;
pub(super) mod exact;
mod fcd;
pub(super) mod fingerprints;
mod hallucination;
mod length_deviation;
pub(super) mod levenshtein;
mod meteor;
pub(super) mod rouge;
mod uniqueness;
pub(super) mod validity;
mod win_rate;
mod words;

use super::metric::Metric;

/// All metrics, in the order in which the manual shows them.
pub(super) const METRICS: &[&Metric] = &[
    &words::WORDS,
    &bleu::BLEU2,
    &bleu::BLEU4,
    &rouge::ROUGE1,
    &rouge::ROUGE2,
    &rouge::ROUGE_L,
    &meteor::METEOR,
    &meteor::METEOR_NO_WORDNET,
    &bleu::BLEU,
    &exact::EXACT,
    &exact::EXACT_INCHI,
    &validity::VALIDITY,
    &fingerprints::MACCS_FTS,
    &fingerprints::MACCS_FTS_INVALID_ZERO,
    &fingerprints::RDK_FTS,
    &fingerprints::RDK_FTS_INVALID_ZERO,
    &fingerprints::MORGAN_FTS,
    &fingerprints::MORGAN_FTS_INVALID_ZERO,
    &uniqueness::UNIQUENESS,
    &win_rate::WIN_RATE,
    &character::CHARACTER,
    &fcd::FCD,
    &exact::EXACT_STRING,
    &levenshtein::LEVENSHTEIN,
    &chrf::CHRF,
    &chrf::CHRF2,
    &length_deviation::LENGTH_DEVIATION,
    &entailment::ENTAILMENT,
    &entailment::ENTAILMENT_WIN_RATE,
    &coverage::COVERAGE_FULL,
    &coverage::COVERAGE_SENTENCE,
    &coverage::COVERAGE_SENTENCE_MEAN,
    &coverage::COVERAGE_ATOMIC,
    &hallucination::HALLUCINATION_FULL,
    &hallucination::HALLUCINATION_SENTENCE,
    &hallucination::HALLUCINATION_ATOMIC,
];
