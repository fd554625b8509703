//! The metrics by name.

use std::fmt;

use corpus::Direction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A metric by name. But for `words`, its name is its column in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    /// Whitespace-separated words of a text.
    Words,
    /// BLEU of captions over tokens, to bigrams.
    Bleu2,
    /// BLEU of captions over tokens, to 4-grams.
    Bleu4,
    /// F1 of the words that captions share.
    Rouge1,
    /// F1 of the pairs of words that captions share.
    Rouge2,
    /// F1 of the longest common subsequence of words.
    #[serde(rename = "rougeL")]
    RougeL,
    /// METEOR of captions over tokens, with the synonyms of `wordnet`.
    Meteor,
    /// METEOR without synonyms: exact words and stems.
    MeteorNoWordnet,
    /// BLEU of molecules over characters, to 4-grams.
    Bleu,
    /// The share of predictions that are their molecule, told by canonical SMILES.
    Exact,
    /// The same, told by InChI: some tautomers are one molecule.
    ExactInchi,
    /// The share of predictions that are molecules.
    Validity,
    /// Tanimoto similarity of MACCS keys, over rows with two molecules.
    MaccsFts,
    /// The same, over all rows: 0 where the prediction is no molecule.
    MaccsFtsInvalidZero,
    /// Tanimoto similarity of RDKit's path fingerprints, over rows with two molecules.
    RdkFts,
    /// The same, over all rows: 0 where the prediction is no molecule.
    RdkFtsInvalidZero,
    /// Tanimoto similarity of Morgan fingerprints of radius 2, over rows with two molecules.
    MorganFts,
    /// The same, over all rows: 0 where the prediction is no molecule.
    MorganFtsInvalidZero,
    /// The share of molecules that no earlier prediction was.
    Uniqueness,
    /// The share of predictions that are molecules, have chr-F above 0.3, and are less than 5
    /// characters longer or shorter than their reference.
    WinRate,
    /// CharacTER: what it costs to shift and edit characters, over the prediction's length.
    Character,
    /// Fréchet ChemNet Distance of the molecules predicted and those of reference.
    Fcd,
    /// The share of predictions that are their reference, character by character.
    ExactString,
    /// Edit distance in characters.
    Levenshtein,
    /// chr-F of character 1-, 2- and 3-grams, recall and precision weighed alike.
    Chrf,
    /// The same with recall weighed twice: beta is 2.
    Chrf2,
    /// How much longer predictions are: in characters for molecules, in words for captions.
    LengthDeviation,
    /// The probability that the reference entails the caption.
    Entailment,
    /// The share of captions that are likelier entailed by their reference than not.
    EntailmentWinRate,
    /// The probability that the caption entails the reference.
    CoverageFull,
    /// How likely the reference's sentences are entailed by one of the caption's.
    CoverageSentence,
    /// How likely the reference's sentences are entailed by the caption's, on average.
    CoverageSentenceMean,
    /// How likely the reference's facts are entailed by one of the caption's.
    CoverageAtomic,
    /// The probability that the reference contradicts the caption.
    HallucinationFull,
    /// How likely the caption's sentences are contradicted by each of the reference's.
    HallucinationSentence,
    /// How likely the caption's facts are contradicted by each of the reference's.
    HallucinationAtomic,
}

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Rows, each by itself.
    Rows,
    /// Predictions that are captions.
    Captions,
    /// Predictions that are molecules.
    Molecules,
    /// Predictions of either kind.
    Predictions,
    /// What a judge said of captions.
    Judgements,
}

impl Subject {
    /// Returns the direction whose predictions these are, if it is one.
    pub(super) fn direction(self) -> Option<Direction> {
        match self {
            Self::Captions => Some(Direction::Mol2cap),
            Self::Molecules => Some(Direction::Cap2mol),
            Self::Rows | Self::Predictions | Self::Judgements => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Rows => "rows",
            Self::Captions => "captions (mol2cap)",
            Self::Molecules => "molecules (cap2mol)",
            Self::Predictions => "predictions",
            Self::Judgements => "judgements",
        })
    }
}

impl Metric {
    /// Returns its name, as in `metrics = ["bleu2"]`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Bleu2 => "bleu2",
            Self::Bleu4 => "bleu4",
            Self::Rouge1 => "rouge1",
            Self::Rouge2 => "rouge2",
            Self::RougeL => "rougeL",
            Self::Meteor => "meteor",
            Self::MeteorNoWordnet => "meteor_no_wordnet",
            Self::Bleu => "bleu",
            Self::Exact => "exact",
            Self::ExactInchi => "exact_inchi",
            Self::Validity => "validity",
            Self::MaccsFts => "maccs_fts",
            Self::MaccsFtsInvalidZero => "maccs_fts_invalid_zero",
            Self::RdkFts => "rdk_fts",
            Self::RdkFtsInvalidZero => "rdk_fts_invalid_zero",
            Self::MorganFts => "morgan_fts",
            Self::MorganFtsInvalidZero => "morgan_fts_invalid_zero",
            Self::Uniqueness => "uniqueness",
            Self::WinRate => "win_rate",
            Self::Character => "character",
            Self::Fcd => "fcd",
            Self::ExactString => "exact_string",
            Self::Levenshtein => "levenshtein",
            Self::Chrf => "chrf",
            Self::Chrf2 => "chrf2",
            Self::LengthDeviation => "length_deviation",
            Self::Entailment => "entailment",
            Self::EntailmentWinRate => "entailment_win_rate",
            Self::CoverageFull => "coverage_full",
            Self::CoverageSentence => "coverage_sentence",
            Self::CoverageSentenceMean => "coverage_sentence_mean",
            Self::CoverageAtomic => "coverage_atomic",
            Self::HallucinationFull => "hallucination_full",
            Self::HallucinationSentence => "hallucination_sentence",
            Self::HallucinationAtomic => "hallucination_atomic",
        }
    }

    /// Returns what it measures.
    pub(super) fn subject(self) -> Subject {
        match self {
            Self::Words => Subject::Rows,
            Self::Bleu2
            | Self::Bleu4
            | Self::Rouge1
            | Self::Rouge2
            | Self::RougeL
            | Self::Meteor
            | Self::MeteorNoWordnet => Subject::Captions,
            Self::Bleu
            | Self::Exact
            | Self::ExactInchi
            | Self::Validity
            | Self::MaccsFts
            | Self::MaccsFtsInvalidZero
            | Self::RdkFts
            | Self::RdkFtsInvalidZero
            | Self::MorganFts
            | Self::MorganFtsInvalidZero
            | Self::Uniqueness
            | Self::WinRate
            | Self::Character
            | Self::Fcd => Subject::Molecules,
            Self::ExactString | Self::Levenshtein | Self::Chrf | Self::Chrf2 | Self::LengthDeviation => {
                Subject::Predictions
            }
            Self::Entailment
            | Self::EntailmentWinRate
            | Self::CoverageFull
            | Self::CoverageSentence
            | Self::CoverageSentenceMean
            | Self::CoverageAtomic
            | Self::HallucinationFull
            | Self::HallucinationSentence
            | Self::HallucinationAtomic => Subject::Judgements,
        }
    }

    /// Returns whether it depends on what captions are split into.
    pub(super) fn is_of_tokens(self) -> bool {
        matches!(self, Self::Bleu2 | Self::Bleu4 | Self::Meteor | Self::MeteorNoWordnet)
    }

    /// Returns the longest n-grams of a BLEU.
    pub(super) fn longest_n_gram(self) -> Option<usize> {
        match self {
            Self::Bleu2 => Some(2),
            Self::Bleu4 | Self::Bleu => Some(4),
            _ => None,
        }
    }

    /// Returns whether a row's score says something of that row alone, so that rows can be drawn.
    pub(super) fn is_of_single_rows(self) -> bool {
        !matches!(self, Self::Uniqueness | Self::Fcd)
    }

    /// Returns whether it is a whole number that may be far from 0, and not a score in [0, 1].
    pub(super) fn is_a_count(self) -> bool {
        matches!(self, Self::Levenshtein | Self::LengthDeviation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_written_as_it_is_called() {
        let schema = schemars::schema_for!(Metric).to_value();
        let names = schema["oneOf"].as_array().expect("a list").iter();
        let names: Vec<&str> = names.map(|one| one["const"].as_str().expect("a name")).collect();
        assert!(names.len() >= 26, "{names:?}");
        for name in names {
            let metric: Metric = serde_json::from_value(name.into()).expect("a metric");
            assert_eq!(metric.name(), name);
        }
    }
}
