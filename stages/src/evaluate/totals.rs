//! Scores all predictions, and says what the scores come to.

use engine::{Context, OutputColumn, StageFailure};
use serde_json::{Map, Value, json};

use super::column::Column;
use super::metric::{Aggregate, Metric, RowScore, Score, SequentialScore, SetScore, Subject};
use super::pairs::{Pair, Pairs};
use super::resampling;
use super::scorer::{Scored, Scorer};
use super::tally::Tally;
use super::{Evaluate, Params};
use crate::support::kept::KeptRows;
use crate::support::parallel::parallel_map;
use crate::support::rows::{RowWriter, write_json};

/// How many rows are read before they are scored, side by side, and kept.
const BATCH: usize = 2048;

/// The row's field with what its BLEU is made of.
pub(super) const BLEU_COUNTS: &str = "bleu_counts";

/// Counts of rows, for tables.
const ROWS: &str = "rows";
const EMPTY: &str = "empty_predictions";
const INVALID: &str = "invalid_predictions";
const INVALID_REFERENCES: &str = "invalid_references";

/// Returns the columns for tables.
pub(super) fn columns(params: &Params, subject: Subject) -> Vec<OutputColumn> {
    let count = |name: &str| OutputColumn {
        label: name.replace('_', " "),
        digits: Some(0),
        ..OutputColumn::by_name_only(name)
    };
    let mut columns: Vec<OutputColumn> = params.metrics.iter().map(|metric| metric.column(params)).collect();
    columns.extend([ROWS, EMPTY].map(count));
    if subject == Subject::Molecules {
        columns.extend([INVALID, INVALID_REFERENCES].map(count));
    }
    columns.extend(resampling::columns(params));
    columns
}

/// Scores all predictions.
pub(super) fn measure(params: &Params, context: &mut Context) -> Result<(), StageFailure> {
    let scorer = Scorer::new(params)?;
    let threads = context.cores() as usize;
    let folder = context.output("scores")?;
    let mut writer = RowWriter::create(&folder)?;
    let mut pairs = Pairs::open(params, context)?.read()?.peekable();
    let mut totals = Totals::new(params);
    let mut sets: Vec<(&Metric, Box<dyn SetScore>)> = Vec::new();
    for metric in params.metrics.iter() {
        if let Aggregate::Set(open) = metric.aggregate {
            sets.push((metric, open(params)?));
        }
    }
    let mut kept = KeptRows::open::<Evaluate, Scored>(&context.keep()?)?;
    let mut before = kept.read::<Scored>()?;
    kept.log_resumed("scored", context);
    let mut is_kept = true;
    while pairs.peek().is_some() {
        if context.is_cancelled() {
            return Err(StageFailure::new("cancelled"));
        }
        let mut batch = pairs.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
        let read = batch.len();
        batch.retain(|(_, pair)| {
            params.min_reference_words.is_none_or(|least| pair.reference_words() >= least)
        });
        totals.left_out += read - batch.len();
        let mut scored = before.by_ref().take(batch.len()).collect::<Result<Vec<_>, _>>()?;
        if scored.iter().zip(&batch).any(|(row, (_, pair))| row.id != pair.id) {
            // They are of other predictions: the inputs have been computed again since.
            scored.clear();
            before.by_ref().for_each(drop);
            kept.forget()?;
            is_kept = false;
        }
        let rest = &batch[scored.len()..];
        let computed = parallel_map(rest, threads, |(direction, pair)| scorer.score(*direction, pair));
        // After the last batch there is nothing left to be killed in.
        if is_kept && pairs.peek().is_some() {
            kept.add(&computed)?;
        }
        scored.extend(computed);
        for (_, set) in &mut sets {
            set.add(&scored, context)?;
        }
        for ((_, pair), mut row) in batch.iter().zip(scored) {
            if let Some(what) = &row.failure {
                return Err(StageFailure::new(format!("row `{}` cannot be scored: {what}", pair.id)));
            }
            totals.score_in_sequence(&mut row);
            writer.write(&line(pair, &params.metrics, &row))?;
            totals.add(pair, row);
        }
        context.progress(totals.rows as u64, 0, "predictions");
    }
    writer.finish()?;
    let of_sets = sets.iter().map(|(metric, set)| {
        let value = match set.value() {
            Ok(number) => number.into(),
            Err(reason) => json!({ "missing": reason }),
        };
        (metric.name.to_owned(), value)
    });
    finish(params, totals, of_sets.collect(), context)
}

/// Writes the numbers of all rows; those of sets are not made of scores of rows.
pub(super) fn finish(
    params: &Params,
    totals: Totals<'_>,
    of_sets: Map<String, Value>,
    context: &mut Context,
) -> Result<(), StageFailure> {
    let folder = context.output("scores")?;
    totals.add_notes(context);
    if totals.rows == 0 {
        return Err(StageFailure::new("there are no predictions to measure"));
    }
    let mut numbers = totals.metrics(params.subject() == Ok(Subject::Molecules));
    numbers.extend(of_sets);
    numbers.extend(resampling::measure(params, &totals, context)?);
    write_json(&folder.join("distributions.json"), &totals.distributions()?)?;
    write_json(&folder.join("metrics.json"), &numbers)
}

/// Returns what is written of a row.
pub(super) fn line(pair: &Pair, metrics: &[&Metric], scored: &Scored) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("id".to_owned(), pair.id.as_str().into());
    if let Some(other) = &pair.reference_id {
        line.insert("reference_id".to_owned(), other.as_str().into());
    }
    let scores = metrics.iter().zip(&scored.scores);
    for (metric, score) in scores.filter(|(metric, _)| !matches!(metric.score, RowScore::None)) {
        match score {
            Score::Number(number) => line.insert(metric.name.to_owned(), (*number).into()),
            Score::Missing => line.insert(metric.name.to_owned(), Value::Null),
            Score::Counts(counts) => line.insert(BLEU_COUNTS.to_owned(), json!(counts)),
        };
    }
    line
}

/// What has been scored so far.
pub(super) struct Totals<'a> {
    metrics: &'a [&'static Metric],
    tallies: Vec<Tally>,
    /// The scores themselves, where rows are drawn or permuted; else nothing grows with the rows.
    pub columns: Option<Vec<Column>>,
    pub rows: usize,
    /// The rows' ids, where they are needed again.
    pub ids: Option<Vec<String>>,
    /// By metric, where a score depends on the rows before.
    sequential: Vec<Option<SequentialScore>>,
    pub left_out: usize,
    empty: usize,
    empty_references: usize,
    invalid: usize,
    invalid_references: usize,
    /// Predictions that are not empty, and yet have no n-gram of the longest that BLEU counts.
    short: usize,
    troubles: usize,
    first_trouble: Option<String>,
}

impl<'a> Totals<'a> {
    pub(super) fn new(params: &'a Params) -> Self {
        Self {
            metrics: &params.metrics,
            tallies: params.metrics.iter().map(|metric| Tally::new(metric)).collect(),
            columns: (params.bootstrap.is_some() || params.compare.is_some())
                .then(|| params.metrics.iter().map(|metric| Column::new(metric)).collect()),
            rows: 0,
            ids: params.compare.as_ref().map(|_| Vec::new()),
            sequential: params
                .metrics
                .iter()
                .map(|metric| match metric.score {
                    RowScore::Sequential(begin) => Some(begin()),
                    _ => None,
                })
                .collect(),
            left_out: 0,
            empty: 0,
            empty_references: 0,
            invalid: 0,
            invalid_references: 0,
            short: 0,
            troubles: 0,
            first_trouble: None,
        }
    }

    /// Fills in the scores that depend on the rows before.
    fn score_in_sequence(&mut self, row: &mut Scored) {
        for (at, sequential) in self.sequential.iter_mut().enumerate() {
            if let Some(score) = sequential {
                row.scores[at] = score(row);
            }
        }
    }

    pub(super) fn add(&mut self, pair: &Pair, row: Scored) {
        let is_short = |(metric, score): (&&Metric, &Score)| match (metric.max_order(), score) {
            (Some(max_order), Score::Counts(counts)) => counts.output_tokens < max_order as u64,
            _ => false,
        };
        self.short += usize::from(!row.is_empty && self.metrics.iter().zip(&row.scores).any(is_short));
        self.tallies.iter_mut().zip(&row.scores).for_each(|(tally, score)| tally.add(*score));
        if let Some(columns) = &mut self.columns {
            columns.iter_mut().zip(row.scores).for_each(|(column, score)| column.push(score));
        }
        if let Some(ids) = &mut self.ids {
            ids.push(pair.id.clone());
        }
        self.rows += 1;
        self.empty += usize::from(row.is_empty);
        self.empty_references += usize::from(row.is_reference_empty);
        if let Some((prediction, reference)) = row.are_molecules {
            self.invalid += usize::from(!prediction);
            self.invalid_references += usize::from(!reference);
        }
        self.troubles += usize::from(row.trouble.is_some());
        self.first_trouble = self.first_trouble.take().or(row.trouble);
    }

    /// Adds notes on what is unusual about the data.
    fn add_notes(&self, context: &mut Context) {
        let rows = self.rows;
        if self.left_out > 0 {
            let all = rows + self.left_out;
            context.note(format!(
                "{} of {all} predictions are left out: their references are short",
                self.left_out
            ));
        }
        if self.empty > 0 {
            context.note(format!("{} of {rows} predictions are empty", self.empty));
        }
        if self.empty_references > 0 {
            context.note(format!("{} of {rows} references are empty", self.empty_references));
        }
        if let (true, Some(longest)) =
            (self.short > 0, self.metrics.iter().filter_map(|metric| metric.max_order()).max())
        {
            context.note(format!(
                "{} of {rows} predictions have fewer than {longest} tokens; BLEU takes each for an n-gram that \
                 is not matched",
                self.short
            ));
        }
        if self.invalid > 0 {
            context.note(format!("{} of {rows} predictions are no molecules", self.invalid));
        }
        if self.invalid_references > 0 {
            let count = self.invalid_references;
            context
                .note(format!("{count} of {rows} references are no molecules, and their rows do not count"));
        }
        if let Some(first) = &self.first_trouble {
            context.note(format!("{} rows lack a score that cannot be computed ({first})", self.troubles));
        }
    }

    fn metrics(&self, is_of_molecules: bool) -> Map<String, Value> {
        let mut numbers = Map::new();
        for (metric, tally) in self.metrics.iter().zip(&self.tallies) {
            let value = match tally.value() {
                Some(number) => number.into(),
                None => json!({ "missing": self.reason(metric) }),
            };
            numbers.insert(metric.name.to_owned(), value);
        }
        numbers.insert(ROWS.to_owned(), self.rows.into());
        numbers.insert(EMPTY.to_owned(), self.empty.into());
        if is_of_molecules {
            numbers.insert(INVALID.to_owned(), self.invalid.into());
            numbers.insert(INVALID_REFERENCES.to_owned(), self.invalid_references.into());
        }
        numbers
    }

    /// Says why a metric has no number.
    pub(super) fn reason(&self, metric: &Metric) -> String {
        if self.invalid_references == self.rows {
            return "no reference is a molecule".to_owned();
        }
        (metric.why_missing)(self.rows, self.troubles).unwrap_or_else(|| match &self.first_trouble {
            Some(first) => format!("no row could be scored: {first}"),
            None => "no row could be scored".to_owned(),
        })
    }

    fn distributions(&self) -> Result<Map<String, Value>, StageFailure> {
        let mut distributions = Map::new();
        for (metric, tally) in self.metrics.iter().zip(&self.tallies) {
            let histogram = tally.histogram();
            let histogram = histogram
                .map_err(|error| StageFailure::caused(format!("summarise `{}`", metric.name), error))?;
            if let Some(histogram) = histogram {
                distributions.insert(metric.name.to_owned(), json!(histogram));
            }
        }
        Ok(distributions)
    }
}
