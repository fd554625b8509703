//! Tanimoto similarity of fingerprints: MACCS keys, RDKit's paths, Morgan.

use metrics::FingerprintKind;

use super::super::features::Features;
use super::super::metric::{
    Aggregate, Better, Metric, Need, Range, RowScore, Score, Subject, Unscored, rows_say_why,
};

pub(in super::super) const MACCS_FTS: Metric = Metric {
    name: "maccs_fts",
    description: "Tanimoto similarity of MACCS keys, over rows with two molecules.",
    subject: Subject::Molecules,
    needs: &[Need::Molecules, Need::Fingerprints],
    label: "MACCS",
    digits: 2,
    better: Better::Higher,
    range: Range::Unit,
    score: RowScore::Pair(|features| features.similarity(FingerprintKind::Maccs).map(Score::Number)),
    aggregate: Aggregate::Mean,
    why_missing: no_two_molecules,
};

pub(in super::super) const MACCS_FTS_INVALID_ZERO: Metric = Metric {
    name: "maccs_fts_invalid_zero",
    description: "The same, over all rows: 0 where the prediction is no molecule.",
    label: "MACCS (invalid is 0)",
    score: RowScore::Pair(|features| or_zero(features, FingerprintKind::Maccs)),
    why_missing: rows_say_why,
    ..MACCS_FTS
};

pub(in super::super) const RDK_FTS: Metric = Metric {
    name: "rdk_fts",
    description: "Tanimoto similarity of RDKit's path fingerprints, over rows with two molecules.",
    label: "RDK",
    score: RowScore::Pair(|features| features.similarity(FingerprintKind::Rdk).map(Score::Number)),
    ..MACCS_FTS
};

pub(in super::super) const RDK_FTS_INVALID_ZERO: Metric = Metric {
    name: "rdk_fts_invalid_zero",
    description: "The same, over all rows: 0 where the prediction is no molecule.",
    label: "RDK (invalid is 0)",
    score: RowScore::Pair(|features| or_zero(features, FingerprintKind::Rdk)),
    why_missing: rows_say_why,
    ..MACCS_FTS
};

pub(in super::super) const MORGAN_FTS: Metric = Metric {
    name: "morgan_fts",
    description: "Tanimoto similarity of Morgan fingerprints of radius 2, over rows with two molecules.",
    label: "Morgan",
    score: RowScore::Pair(|features| features.similarity(FingerprintKind::Morgan).map(Score::Number)),
    ..MACCS_FTS
};

pub(in super::super) const MORGAN_FTS_INVALID_ZERO: Metric = Metric {
    name: "morgan_fts_invalid_zero",
    description: "The same, over all rows: 0 where the prediction is no molecule.",
    label: "Morgan (invalid is 0)",
    score: RowScore::Pair(|features| or_zero(features, FingerprintKind::Morgan)),
    why_missing: rows_say_why,
    ..MACCS_FTS
};

/// Scores a prediction that is no molecule with 0.
fn or_zero(features: &Features<'_>, kind: FingerprintKind) -> Result<Score, Unscored> {
    match features.similarity(kind) {
        Err(_) if features.molecules().reference.is_some() && !features.is_valid() => Ok(Score::Number(0.0)),
        similarity => similarity.map(Score::Number),
    }
}

fn no_two_molecules(rows: usize, unscored: usize) -> Option<String> {
    (unscored == 0).then(|| format!("none of {rows} rows has two molecules to compare"))
}
