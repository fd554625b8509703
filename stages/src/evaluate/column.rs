//! The scores of all rows, for what resamples or permutes rows.

use metrics::bleu::Counts;
use metrics::summary::sum;

use super::metric::{Metric, Score};

/// All scores of one metric, by row.
pub(super) enum Column {
    Numbers(Vec<Option<f64>>),
    Counts { max_order: usize, rows: Vec<Counts> },
}

impl Column {
    /// Makes an empty one for a metric.
    pub(super) fn new(metric: &Metric) -> Self {
        match metric.max_order() {
            Some(max_order) => Self::Counts { max_order, rows: Vec::new() },
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
            Self::Counts { max_order, rows: counts } => bleu(rows.map(|row| counts[row]), *max_order),
            Self::Numbers(numbers) => mean(rows.map(|row| numbers[row])),
        }
    }

    /// Returns how much more this column comes to than another one if some rows change places.
    pub(super) fn gain_if_swapped(&self, other: &Self, swapped: &[bool]) -> Option<f64> {
        match (self, other) {
            (Self::Counts { max_order, rows: ours }, Self::Counts { rows: theirs, .. }) => {
                let swapped_bleu = bleu(mixed(ours, theirs, swapped), *max_order)?;
                Some(swapped_bleu - bleu(mixed(theirs, ours, swapped), *max_order)?)
            }
            (Self::Numbers(ours), Self::Numbers(theirs)) => {
                Some(mean(mixed(ours, theirs, swapped))? - mean(mixed(theirs, ours, swapped))?)
            }
            _ => None,
        }
    }
}

/// Returns one list with what is swapped taken from another one.
fn mixed<T: Copy>(ours: &[T], theirs: &[T], swapped: &[bool]) -> impl Iterator<Item = T> {
    ours.iter().zip(theirs).zip(swapped).map(|((our, their), swap)| if *swap { *their } else { *our })
}

/// Returns the BLEU of some rows; nothing if none of their references has an n-gram to be matched.
fn bleu(rows: impl Iterator<Item = Counts>, max_order: usize) -> Option<f64> {
    let mut can_be_matched = false;
    let all: Counts = rows.inspect(|row| can_be_matched |= row.has_n_gram(max_order)).sum();
    can_be_matched.then(|| all.bleu(max_order))
}

/// Returns the mean of the rows that have a number; nothing if none has.
fn mean(rows: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut count = 0;
    let total = sum(rows.flatten().inspect(|_| count += 1));
    (count > 0).then(|| total / f64::from(count))
}
