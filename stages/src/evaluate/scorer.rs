//! Scores predictions: one number per metric and row, and one per metric.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use corpus::Direction;
use engine::{Context, Failure};
use metrics::bleu::Counts;
use metrics::rouge::Rouge;
use metrics::similarity::{self, similarity};
use metrics::summary::{Histogram, Sorted, sum};
use metrics::wordpiece::WordPiece;
use metrics::{FingerprintKind, Molecule, chrf, exact, length, levenshtein, words};
use serde_json::{Map, Value, json};

use super::metric::{Metric, Subject};
use super::pairs::{Pair, Pairs};
use super::{EmptyFingerprints, EmptyPrediction, Params, Tokens};
use crate::rows::{RowWriter, write_json};

/// How many rows are read before they are scored, side by side.
const BATCH: usize = 8192;

/// How many rows one thread takes at a time.
const CHUNK: usize = 32;

/// Bins of the distribution of a score in [0, 1].
const BINS: usize = 20;

/// The row's field with what its BLEU is made of.
const BLEU_COUNTS: &str = "bleu_counts";

/// Counts of rows, for tables.
const ROWS: &str = "rows";
const EMPTY: &str = "empty_predictions";
const INVALID: &str = "invalid_predictions";
const INVALID_REFERENCES: &str = "invalid_references";

/// Returns the columns for tables.
pub(super) fn columns(metrics: &[Metric], subject: Subject) -> Vec<String> {
    let metrics = metrics.iter().map(|metric| metric.name());
    let about_molecules = [INVALID, INVALID_REFERENCES];
    let counts = [ROWS, EMPTY].into_iter();
    let counts = counts.chain(about_molecules.into_iter().filter(|_| subject == Subject::Molecules));
    metrics.chain(counts).map(str::to_owned).collect()
}

/// Scores all predictions.
pub(super) fn measure(params: &Params, context: &mut Context) -> Result<(), Failure> {
    let scorer = Scorer::new(params)?;
    let threads = context.cores() as usize;
    let folder = context.output("scores")?;
    let mut writer = RowWriter::create(&folder)?;
    let mut pairs = Pairs::open(params, context)?.read()?.peekable();
    let mut totals = Totals::new(&params.metrics);
    while pairs.peek().is_some() {
        if context.is_cancelled() {
            return Err(Failure::new("told to stop"));
        }
        let batch = pairs.by_ref().take(BATCH).collect::<Result<Vec<_>, _>>()?;
        let scored = side_by_side(&batch, threads, |(direction, pair)| scorer.score(*direction, pair));
        for ((_, pair), row) in batch.iter().zip(scored) {
            writer.write(&line(pair, &params.metrics, &row))?;
            totals.add(row);
        }
        context.progress(totals.rows as u64, 0, "predictions");
    }
    writer.finish()?;
    if totals.rows == 0 {
        return Err(Failure::new("there are no predictions to measure"));
    }
    totals.tell(context);
    write_json(&folder.join("distributions.json"), &totals.distributions(&params.metrics)?)?;
    write_json(
        &folder.join("metrics.json"),
        &totals.metrics(&params.metrics, params.subject() == Ok(Subject::Molecules)),
    )
}

/// What captions are split by.
enum Splitter {
    Words,
    WordPiece(WordPiece),
}

struct Scorer<'a> {
    params: &'a Params,
    splitter: Splitter,
}

/// What one metric says of one row.
#[derive(Clone, Copy)]
enum Score {
    Number(f64),
    Counts(Counts),
    /// It cannot be said.
    Missing,
}

/// What is said of one row.
struct Scored {
    /// By metric, in the order named.
    scores: Vec<Score>,
    is_empty: bool,
    /// Whether prediction and reference are molecules, where that was looked at.
    are_molecules: Option<(bool, bool)>,
    /// Why a fingerprint could not be computed.
    trouble: Option<String>,
}

/// Two lines as molecules.
struct Molecules {
    prediction: Option<Molecule>,
    reference: Option<Molecule>,
}

impl<'a> Scorer<'a> {
    fn new(params: &'a Params) -> Result<Self, Failure> {
        let splitter = match &params.tokens {
            Tokens::Words => Splitter::Words,
            Tokens::Wordpiece(file) => {
                let path = file.path();
                let vocabulary = fs::read_to_string(path).map_err(Failure::reading(path))?;
                let pieces = WordPiece::parse(&vocabulary)
                    .map_err(|error| Failure::caused(format!("read {}", path.display()), error))?;
                Splitter::WordPiece(pieces)
            }
        };
        Ok(Self { params, splitter })
    }

    fn score(&self, direction: Direction, pair: &Pair) -> Scored {
        let Pair { prediction, reference, .. } = pair;
        let metrics = &self.params.metrics;
        let any = |of: &[Metric]| metrics.iter().any(|metric| of.contains(metric));
        let rouge =
            any(&[Metric::Rouge1, Metric::Rouge2, Metric::RougeL]).then(|| Rouge::of(prediction, reference));
        let rouge = |take: fn(Rouge) -> f64| rouge.map_or(Score::Missing, |rouge| Score::Number(take(rouge)));
        let counts = any(&[Metric::Bleu2, Metric::Bleu4]).then(|| self.caption_counts(prediction, reference));
        let is_of_molecules = metrics.iter().any(|metric| metric.subject() == Subject::Molecules);
        let molecules = is_of_molecules.then(|| Molecules {
            prediction: Molecule::of_line(prediction).ok(),
            reference: Molecule::of_line(reference).ok(),
        });
        let is_empty_molecule =
            prediction.is_empty() && self.params.empty_prediction == EmptyPrediction::Valid;
        let is_valid = |molecules: &Molecules| is_empty_molecule || molecules.prediction.is_some();
        let mut trouble = None;
        // Fingerprints are asked for by two metrics each.
        let mut similarities: Vec<(FingerprintKind, Score)> = Vec::new();
        let mut similar = |kind: FingerprintKind| {
            if let Some((_, found)) = similarities.iter().find(|(found, _)| *found == kind) {
                return *found;
            }
            let found = match &molecules {
                Some(Molecules { prediction: Some(prediction), reference: Some(reference) }) => {
                    match similarity(prediction, reference, kind, self.empty_fingerprints()) {
                        Ok(number) => Score::Number(number),
                        Err(error) => {
                            trouble = Some(error.to_string());
                            Score::Missing
                        }
                    }
                }
                Some(Molecules { prediction: None, reference: Some(_) }) if is_empty_molecule => {
                    Score::Number(0.0)
                }
                _ => Score::Missing,
            };
            similarities.push((kind, found));
            found
        };
        let zero_if_invalid = |found: Score| match (&molecules, found) {
            (Some(molecules), Score::Missing) if molecules.reference.is_some() && !is_valid(molecules) => {
                Score::Number(0.0)
            }
            _ => found,
        };
        let scores = metrics.iter().map(|metric| match metric {
            Metric::Words => Score::Missing,
            Metric::Bleu2 | Metric::Bleu4 => counts.map_or(Score::Missing, Score::Counts),
            Metric::Rouge1 => rouge(|rouge| rouge.rouge1),
            Metric::Rouge2 => rouge(|rouge| rouge.rouge2),
            Metric::RougeL => rouge(|rouge| rouge.rouge_l),
            Metric::Bleu => {
                let characters = |text: &str| text.chars().collect::<Vec<_>>();
                Score::Counts(Counts::of(&characters(prediction), &characters(reference)))
            }
            Metric::Exact => match &molecules {
                Some(Molecules { prediction, reference: Some(reference) }) => {
                    truth(prediction.as_ref().is_some_and(|found| exact::molecule(found, reference)))
                }
                _ => Score::Missing,
            },
            Metric::Validity => {
                molecules.as_ref().map_or(Score::Missing, |molecules| truth(is_valid(molecules)))
            }
            Metric::MaccsFts => similar(FingerprintKind::Maccs),
            Metric::MaccsFtsInvalidZero => zero_if_invalid(similar(FingerprintKind::Maccs)),
            Metric::RdkFts => similar(FingerprintKind::Rdk),
            Metric::RdkFtsInvalidZero => zero_if_invalid(similar(FingerprintKind::Rdk)),
            Metric::MorganFts => similar(FingerprintKind::Morgan),
            Metric::MorganFtsInvalidZero => zero_if_invalid(similar(FingerprintKind::Morgan)),
            Metric::ExactString => truth(exact::string(prediction, reference)),
            Metric::Levenshtein => Score::Number(levenshtein::distance(prediction, reference) as f64),
            Metric::Chrf => Score::Number(chrf::chrf(prediction, reference, 1.0)),
            Metric::Chrf2 => Score::Number(chrf::chrf(prediction, reference, 2.0)),
            Metric::LengthDeviation => Score::Number(match direction {
                Direction::Mol2cap => length::deviation_words(prediction, reference),
                Direction::Cap2mol => length::deviation_characters(prediction, reference),
            } as f64),
        });
        let scores = scores.collect();
        let are_molecules =
            molecules.as_ref().map(|molecules| (is_valid(molecules), molecules.reference.is_some()));
        Scored { scores, is_empty: prediction.trim().is_empty(), are_molecules, trouble }
    }

    fn caption_counts(&self, prediction: &str, reference: &str) -> Counts {
        match &self.splitter {
            Splitter::Words => {
                let split = |text| words::split(text).collect::<Vec<_>>();
                Counts::of(&split(prediction), &split(reference))
            }
            Splitter::WordPiece(pieces) => Counts::of(&pieces.split(prediction), &pieces.split(reference)),
        }
    }

    fn empty_fingerprints(&self) -> similarity::EmptyFingerprints {
        match self.params.empty_fingerprints {
            EmptyFingerprints::Unlike => similarity::EmptyFingerprints::Unlike,
            EmptyFingerprints::Alike => similarity::EmptyFingerprints::Alike,
        }
    }
}

fn truth(is_so: bool) -> Score {
    Score::Number(f64::from(u8::from(is_so)))
}

/// Returns what is written of a row.
fn line(pair: &Pair, metrics: &[Metric], scored: &Scored) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("id".to_owned(), pair.id.as_str().into());
    if let Some(other) = &pair.reference_id {
        line.insert("reference_id".to_owned(), other.as_str().into());
    }
    for (metric, score) in metrics.iter().zip(&scored.scores) {
        match score {
            Score::Number(number) => line.insert(metric.name().to_owned(), (*number).into()),
            Score::Missing => line.insert(metric.name().to_owned(), Value::Null),
            Score::Counts(counts) => line.insert(BLEU_COUNTS.to_owned(), json!(counts)),
        };
    }
    line
}

/// Does something for every item, on several threads. What comes out is in the items' order, and
/// does not depend on how many threads there are.
fn side_by_side<T: Sync, U: Send>(items: &[T], threads: usize, find: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(rest) = items.get(chunk * CHUNK..).filter(|rest| !rest.is_empty()) else { return found };
            found.push((chunk, rest.iter().take(CHUNK).map(&find).collect::<Vec<U>>()));
        }
    };
    let mut chunks = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let found = workers.into_iter().map(|worker| worker.join().expect("scoring does not panic"));
        found.flatten().collect::<Vec<_>>()
    });
    chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
    chunks.into_iter().flat_map(|(_, found)| found).collect()
}

/// All scores of one metric.
enum Column {
    Numbers(Vec<Option<f64>>),
    Counts(Vec<Counts>),
}

/// What has been scored so far.
struct Totals {
    columns: Vec<Column>,
    rows: usize,
    empty: usize,
    invalid: usize,
    invalid_references: usize,
    troubles: usize,
    first_trouble: Option<String>,
}

impl Totals {
    fn new(metrics: &[Metric]) -> Self {
        let columns = metrics.iter().map(|metric| match metric.longest_n_gram() {
            Some(_) => Column::Counts(Vec::new()),
            None => Column::Numbers(Vec::new()),
        });
        Self {
            columns: columns.collect(),
            rows: 0,
            empty: 0,
            invalid: 0,
            invalid_references: 0,
            troubles: 0,
            first_trouble: None,
        }
    }

    fn add(&mut self, row: Scored) {
        for (column, score) in self.columns.iter_mut().zip(row.scores) {
            match (column, score) {
                (Column::Numbers(numbers), Score::Number(number)) => numbers.push(Some(number)),
                (Column::Numbers(numbers), _) => numbers.push(None),
                (Column::Counts(counts), Score::Counts(found)) => counts.push(found),
                (Column::Counts(_), _) => {}
            }
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
            context.note(format!("{} rows do not count for lack of a fingerprint ({first})", self.troubles));
        }
    }

    fn metrics(&self, metrics: &[Metric], is_of_molecules: bool) -> Map<String, Value> {
        let mut found = Map::new();
        for (metric, column) in metrics.iter().zip(&self.columns) {
            let number = match (column, metric.longest_n_gram()) {
                (Column::Counts(counts), Some(longest)) => {
                    Some(counts.iter().copied().sum::<Counts>().bleu(longest))
                }
                (Column::Numbers(numbers), _) => {
                    let numbers = || numbers.iter().flatten().copied();
                    let count = numbers().count();
                    (count > 0).then(|| sum(numbers()) / count as f64)
                }
                (Column::Counts(_), None) => None,
            };
            let value = number.map_or_else(|| json!({ "missing": self.reason(*metric) }), Value::from);
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
    fn reason(&self, metric: Metric) -> String {
        match metric {
            _ if self.invalid_references == self.rows => "no reference is a molecule".to_owned(),
            Metric::MaccsFts | Metric::RdkFts | Metric::MorganFts if self.troubles == 0 => {
                format!("none of {} rows has two molecules to compare", self.rows)
            }
            _ => match &self.first_trouble {
                Some(first) => format!("no row could be scored: {first}"),
                None => "no row could be scored".to_owned(),
            },
        }
    }

    fn distributions(&self, metrics: &[Metric]) -> Result<Map<String, Value>, Failure> {
        let mut found = Map::new();
        for (metric, column) in metrics.iter().zip(&self.columns) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let items: Vec<usize> = (0..CHUNK * 7 + 3).collect();
        for threads in [0, 1, 2, 5, 64] {
            assert_eq!(
                side_by_side(&items, threads, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
        assert_eq!(side_by_side(&[] as &[usize], 3, |item| *item), Vec::<usize>::new());
    }
}
