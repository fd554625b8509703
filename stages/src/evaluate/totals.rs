//! Scores all predictions, and says what the scores come to.

use std::collections::HashSet;

use engine::{Context, Failure};
use metrics::bleu::Counts;
use metrics::summary::{Histogram, Sorted, sum};
use serde_json::{Map, Value, json};

use super::Params;
use super::draws;
use super::fcd::Fcd;
use super::metric::{Metric, Subject};
use super::pairs::{Pair, Pairs};
use super::scorer::{Score, Scored, Scorer, side_by_side, truth};
use crate::rows::{RowWriter, write_json};

/// How many rows are read before they are scored, side by side.
const BATCH: usize = 8192;

/// Bins of the distribution of a score in [0, 1].
const BINS: usize = 20;

/// The row's field with what its BLEU is made of.
pub(super) const BLEU_COUNTS: &str = "bleu_counts";

/// Counts of rows, for tables.
const ROWS: &str = "rows";
const EMPTY: &str = "empty_predictions";
const INVALID: &str = "invalid_predictions";
const INVALID_REFERENCES: &str = "invalid_references";

/// Returns the columns for tables.
pub(super) fn columns(params: &Params, subject: Subject) -> Vec<String> {
    let mut columns: Vec<String> = params.metrics.iter().map(|metric| metric.name().to_owned()).collect();
    columns.extend([ROWS, EMPTY].map(str::to_owned));
    if subject == Subject::Molecules {
        columns.extend([INVALID, INVALID_REFERENCES].map(str::to_owned));
    }
    columns.extend(draws::columns(params));
    columns
}

/// Scores all predictions.
pub(super) fn measure(params: &Params, context: &mut Context) -> Result<(), Failure> {
    let scorer = Scorer::new(params)?;
    let threads = context.cores() as usize;
    let folder = context.output("scores")?;
    let mut writer = RowWriter::create(&folder)?;
    let mut pairs = Pairs::open(params, context)?.read()?.peekable();
    let mut totals = Totals::new(params);
    let mut fcd = Fcd::open(params)?;
    while pairs.peek().is_some() {
        if context.is_cancelled() {
            return Err(Failure::new("told to stop"));
        }
        let mut batch = pairs.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
        let read = batch.len();
        batch.retain(|(_, pair)| {
            params.least_reference_words.is_none_or(|least| pair.reference_words() >= least)
        });
        totals.left_out += read - batch.len();
        let scored = side_by_side(&batch, threads, |(direction, pair)| scorer.score(*direction, pair));
        if let Some(fcd) = &mut fcd {
            fcd.add(&scored, context)?;
        }
        for ((_, pair), mut row) in batch.iter().zip(scored) {
            if let Some(what) = &row.failure {
                return Err(Failure::new(format!("row `{}` cannot be scored: {what}", pair.id)));
            }
            totals.settle(&mut row);
            writer.write(&line(pair, &params.metrics, &row))?;
            totals.add(pair, row);
        }
        context.progress(totals.rows as u64, 0, "predictions");
    }
    writer.finish()?;
    let more = fcd.iter().map(|fcd| (Metric::Fcd.name().to_owned(), fcd.value())).collect();
    finish(params, totals, more, context)
}

/// Says what all scores come to, and writes it; some numbers are not made of scores of rows.
pub(super) fn finish(
    params: &Params,
    totals: Totals<'_>,
    more: Map<String, Value>,
    context: &mut Context,
) -> Result<(), Failure> {
    let folder = context.output("scores")?;
    totals.tell(context);
    if totals.rows == 0 {
        return Err(Failure::new("there are no predictions to measure"));
    }
    let mut found = totals.metrics(params.subject() == Ok(Subject::Molecules));
    found.extend(more);
    found.extend(draws::measure(params, &totals, context)?);
    write_json(&folder.join("distributions.json"), &totals.distributions()?)?;
    write_json(&folder.join("metrics.json"), &found)
}

/// Returns what is written of a row.
pub(super) fn line(pair: &Pair, metrics: &[Metric], scored: &Scored) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("id".to_owned(), pair.id.as_str().into());
    if let Some(other) = &pair.reference_id {
        line.insert("reference_id".to_owned(), other.as_str().into());
    }
    let scores = metrics.iter().zip(&scored.scores);
    for (metric, score) in scores.filter(|(metric, _)| **metric != Metric::Fcd) {
        match score {
            Score::Number(number) => line.insert(metric.name().to_owned(), (*number).into()),
            Score::Missing => line.insert(metric.name().to_owned(), Value::Null),
            Score::Counts(counts) => line.insert(BLEU_COUNTS.to_owned(), json!(counts)),
        };
    }
    line
}

/// All scores of one metric, by row.
pub(super) enum Column {
    Numbers(Vec<Option<f64>>),
    Counts { longest: usize, rows: Vec<Counts> },
}

impl Column {
    /// Makes an empty one for a metric.
    pub(super) fn new(metric: Metric) -> Self {
        match metric.longest_n_gram() {
            Some(longest) => Self::Counts { longest, rows: Vec::new() },
            None => Self::Numbers(Vec::new()),
        }
    }

    /// Adds the score of one more row.
    pub(super) fn push(&mut self, score: Score) {
        match (self, score) {
            (Self::Numbers(numbers), Score::Number(number)) => numbers.push(Some(number)),
            (Self::Numbers(numbers), _) => numbers.push(None),
            (Self::Counts { rows, .. }, Score::Counts(counts)) => rows.push(counts),
            (Self::Counts { rows, .. }, _) => rows.push(Counts::default()),
        }
    }

    /// Returns what some rows come to, one of them maybe several times; nothing if none can be
    /// scored.
    pub(super) fn estimate(&self, rows: impl Iterator<Item = usize>) -> Option<f64> {
        match self {
            Self::Counts { longest, rows: counts } => {
                Some(rows.map(|row| counts[row]).sum::<Counts>().bleu(*longest))
            }
            Self::Numbers(numbers) => {
                let mut count = 0;
                let total = sum(rows.filter_map(|row| numbers[row]).inspect(|_| count += 1));
                (count > 0).then(|| total / f64::from(count))
            }
        }
    }
}

/// What has been scored so far.
pub(super) struct Totals<'a> {
    metrics: &'a [Metric],
    pub columns: Vec<Column>,
    pub rows: usize,
    /// The rows' ids, where they are needed again.
    pub ids: Option<Vec<String>>,
    /// Molecules that were predicted, in canonical form, where that is counted.
    seen: Option<HashSet<String>>,
    left_out: usize,
    empty: usize,
    invalid: usize,
    invalid_references: usize,
    troubles: usize,
    first_trouble: Option<String>,
}

impl<'a> Totals<'a> {
    pub(super) fn new(params: &'a Params) -> Self {
        Self {
            metrics: &params.metrics,
            columns: params.metrics.iter().map(|metric| Column::new(*metric)).collect(),
            rows: 0,
            ids: params.compare.as_ref().map(|_| Vec::new()),
            seen: params.metrics.contains(&Metric::Uniqueness).then(HashSet::new),
            left_out: 0,
            empty: 0,
            invalid: 0,
            invalid_references: 0,
            troubles: 0,
            first_trouble: None,
        }
    }

    /// Fills in the scores that depend on the rows before.
    fn settle(&mut self, row: &mut Scored) {
        if let (Some(seen), Some(canonical)) = (&mut self.seen, &row.canonical) {
            let is_new = seen.insert(canonical.clone());
            let scores = self.metrics.iter().zip(&mut row.scores);
            scores
                .filter(|(metric, _)| **metric == Metric::Uniqueness)
                .for_each(|(_, score)| *score = truth(is_new));
        }
    }

    pub(super) fn add(&mut self, pair: &Pair, row: Scored) {
        self.columns.iter_mut().zip(row.scores).for_each(|(column, score)| column.push(score));
        if let Some(ids) = &mut self.ids {
            ids.push(pair.id.clone());
        }
        self.rows += 1;
        self.empty += usize::from(row.is_empty);
        if let Some((prediction, reference)) = row.are_molecules {
            self.invalid += usize::from(!prediction);
            self.invalid_references += usize::from(!reference);
        }
        self.troubles += usize::from(row.trouble.is_some());
        self.first_trouble = self.first_trouble.take().or(row.trouble);
    }

    /// Says what is odd about the data.
    fn tell(&self, context: &mut Context) {
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
        let mut found = Map::new();
        for (metric, column) in self.metrics.iter().zip(&self.columns) {
            let value = match column.estimate(0..self.rows) {
                Some(number) => number.into(),
                None => json!({ "missing": self.reason(*metric) }),
            };
            found.insert(metric.name().to_owned(), value);
        }
        found.insert(ROWS.to_owned(), self.rows.into());
        found.insert(EMPTY.to_owned(), self.empty.into());
        if is_of_molecules {
            found.insert(INVALID.to_owned(), self.invalid.into());
            found.insert(INVALID_REFERENCES.to_owned(), self.invalid_references.into());
        }
        found
    }

    /// Says why a metric has no number.
    pub(super) fn reason(&self, metric: Metric) -> String {
        match metric {
            _ if self.invalid_references == self.rows => "no reference is a molecule".to_owned(),
            Metric::Uniqueness => "no prediction is a molecule".to_owned(),
            Metric::MaccsFts | Metric::RdkFts | Metric::MorganFts if self.troubles == 0 => {
                format!("none of {} rows has two molecules to compare", self.rows)
            }
            _ => match &self.first_trouble {
                Some(first) => format!("no row could be scored: {first}"),
                None => "no row could be scored".to_owned(),
            },
        }
    }

    fn distributions(&self) -> Result<Map<String, Value>, Failure> {
        let mut found = Map::new();
        for (metric, column) in self.metrics.iter().zip(&self.columns) {
            let Column::Numbers(numbers) = column else { continue };
            let numbers: Vec<f64> = numbers.iter().flatten().copied().collect();
            if numbers.is_empty() {
                continue;
            }
            let histogram = match metric.is_a_count() {
                false => Ok(Histogram::of_unit(numbers, BINS)),
                true => Sorted::of(&numbers).and_then(|sorted| sorted.histogram(1.0)),
            };
            let histogram = histogram
                .map_err(|error| Failure::caused(format!("summarise `{}`", metric.name()), error))?;
            found.insert(metric.name().to_owned(), json!(histogram));
        }
        Ok(found)
    }
}
