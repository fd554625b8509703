//! Pools what a judge said of captions: nothing is computed but means, least and greatest numbers.

use engine::{Context, StageFailure};
use serde_json::Value;

use super::Params;
use super::metric::{Metric, RowScore, Score};
use super::pairs::Pair;
use super::scorer::Scored;
use super::totals::{Totals, finish, line};
use crate::support::judgements::Judgement;
use crate::support::rows::{RowWriter, read_records};

/// Scores all judgements.
pub(super) fn measure(params: &Params, context: &mut Context) -> Result<(), StageFailure> {
    let mut writer = RowWriter::create(&context.output("scores")?)?;
    let mut totals = Totals::new(params);
    for row in read_records::<Judgement>(context.input("judgements")?)? {
        let row = row?;
        if params.min_reference_words.is_some_and(|least| row.reference_words < least) {
            totals.left_out += 1;
            continue;
        }
        let scores =
            params.metrics.iter().map(|metric| score(metric, &row)).collect::<Result<Vec<_>, _>>()?;
        let has_none = scores.iter().any(|score| matches!(score, Score::Missing));
        let trouble = match (has_none, row.is_empty) {
            (false, _) => None,
            (true, true) => Some("an empty caption says nothing that could be judged"),
            (true, false) => Some("a caption or a reference has no part that could be judged"),
        };
        let scored = Scored {
            id: row.id.clone(),
            scores,
            is_empty: row.is_empty,
            is_reference_empty: false,
            are_molecules: None,
            canonical: None,
            canonical_reference: None,
            trouble: trouble.map(str::to_owned),
            failure: None,
        };
        let (prediction, reference) = (String::new(), String::new());
        let pair = Pair { id: row.id, prediction, reference, reference_id: None };
        writer.write(&line(&pair, &params.metrics, &scored))?;
        totals.add(&pair, scored);
    }
    writer.finish()?;
    finish(params, totals, serde_json::Map::<String, Value>::new(), context)
}

/// Scores one row.
fn score(metric: &Metric, row: &Judgement) -> Result<Score, StageFailure> {
    let RowScore::Judgement(level, pool) = metric.score else {
        unreachable!("`{}` is not pooled from judgements", metric.name)
    };
    let judged = row.levels.get(&level).ok_or_else(|| {
        let (metric, level) = (metric.name, level.name());
        StageFailure::new(format!("`{metric}` is of level `{level}`, which was not judged"))
            .help(format!("add `{level}` to the `levels` of the `judge` stage"))
    })?;
    Ok(pool(judged).map_or(Score::Missing, Score::Number))
}
