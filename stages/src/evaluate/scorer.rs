//! Scores predictions, row by row.

use corpus::{Direction, Record};
use engine::StageFailure;
use serde::{Deserialize, Serialize};

use super::Params;
use super::features::{Features, Molecules, Resources};
use super::metric::{RowScore, Score, Subject, Unscored};
use super::pairs::Pair;

/// Scores rows.
pub(super) struct Scorer<'a> {
    params: &'a Params,
    resources: Resources,
}

/// What is said of one row.
#[derive(Serialize, Deserialize)]
pub(super) struct Scored {
    /// The prediction's `id`.
    pub id: String,
    /// By metric, in the order named.
    pub scores: Vec<Score>,
    pub is_empty: bool,
    pub is_reference_empty: bool,
    /// Whether prediction and reference are molecules, where that was looked at.
    pub are_molecules: Option<(bool, bool)>,
    /// The prediction's canonical SMILES, if it is a molecule.
    pub canonical: Option<String>,
    /// The same of the reference.
    pub canonical_reference: Option<String>,
    /// Why a score could not be computed, though there is something to score.
    pub trouble: Option<String>,
    /// Why the row cannot be scored at all.
    pub failure: Option<String>,
}

impl Record for Scored {
    const WHAT: &'static str = "a scored row";
}

impl<'a> Scorer<'a> {
    /// Reads what scoring needs.
    pub(super) fn new(params: &'a Params) -> Result<Self, StageFailure> {
        Ok(Self { params, resources: Resources::open(params)? })
    }

    /// Scores one row.
    pub(super) fn score(&self, direction: Direction, pair: &Pair) -> Scored {
        let metrics = &self.params.metrics;
        let features = Features::new(&self.resources, self.params, direction, pair);
        let (mut trouble, mut failure) = (None, None);
        let mut score = |row_score: &RowScore| match row_score {
            RowScore::Pair(score) => score(&features).unwrap_or_else(|unscored| {
                match unscored {
                    Unscored::NotApplicable => {}
                    Unscored::Because(reason) => trouble = trouble.take().or(Some(reason)),
                    Unscored::Fatal(reason) => failure = failure.take().or(Some(reason)),
                }
                Score::Missing
            }),
            // Known when all rows before are, or no score of these texts.
            _ => Score::Missing,
        };
        let scores = metrics.iter().map(|metric| score(&metric.score)).collect();
        let are_molecules = metrics
            .iter()
            .any(|metric| metric.subject == Subject::Molecules)
            .then(|| (features.is_valid(), features.molecules().reference.is_some()));
        let (canonical, canonical_reference) = match features.into_molecules() {
            Some(Molecules { prediction, reference }) => (prediction, reference),
            None => (None, None),
        };
        Scored {
            id: pair.id.clone(),
            scores,
            is_empty: pair.prediction.trim().is_empty(),
            is_reference_empty: pair.reference.trim().is_empty(),
            are_molecules,
            canonical: canonical.map(|molecule| molecule.canonical().to_owned()),
            canonical_reference: canonical_reference.map(|molecule| molecule.canonical().to_owned()),
            trouble,
            failure,
        }
    }
}
