//! The share of predictions that are right: the same molecule, or the same text.

use metrics::exact;

use super::super::features::{Features, Molecules};
use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(in super::super) const EXACT: Metric = Metric {
    name: "exact",
    description: "The share of predictions that are their molecule, compared by canonical SMILES.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules],
    label: "exact",
    digits: 3,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(by_smiles),
    aggregate: Aggregate::Mean,
    why_missing: rows_say_why,
};

pub(in super::super) const EXACT_INCHI: Metric = Metric {
    name: "exact_inchi",
    description: "The same, compared by InChI: some tautomers are one molecule.",
    label: "exact (InChI)",
    score: RowScore::Pair(by_inchi),
    ..EXACT
};

pub(in super::super) const EXACT_STRING: Metric = Metric {
    name: "exact_string",
    description: "The share of predictions that are their reference, character by character.",
    subject: Subject::Predictions,
    needs: &[],
    label: "exact string",
    score: RowScore::Pair(|features| {
        Ok(Score::truth(exact::string(features.prediction, features.reference)))
    }),
    ..EXACT
};

fn by_smiles(features: &Features<'_>) -> Result<Score, Unscored> {
    let Molecules { prediction, reference: Some(reference) } = features.molecules() else {
        return Err(Unscored::NotApplicable);
    };
    Ok(Score::truth(prediction.as_ref().is_some_and(|prediction| exact::molecule(prediction, reference))))
}

fn by_inchi(features: &Features<'_>) -> Result<Score, Unscored> {
    let Molecules { prediction, reference: Some(reference) } = features.molecules() else {
        return Err(Unscored::NotApplicable);
    };
    let Some(prediction) = prediction else { return Ok(Score::truth(false)) };
    let is_same = exact::inchi(prediction, reference);
    is_same.map(Score::truth).map_err(|error| Unscored::Because(error.to_string()))
}
