//! What the scores of one metric come to, row by row: it does not grow with the rows.

use std::collections::BTreeMap;

use metrics::bleu::Counts;
use metrics::summary::{Histogram, MOST_BINS, Sum, SummaryError};

use super::metric::{Metric, Range, Score};

/// Bins of the distribution of a score in [0, 1].
const BINS: usize = 20;

/// What the scores of one metric come to.
pub(super) enum Tally {
    /// Scores in [0, 1], or about there.
    Shares { sum: Sum, rows: u64, bins: [u64; BINS] },
    /// Whole numbers, and how often each came up.
    Whole { sum: Sum, rows: u64, times: BTreeMap<i64, u64> },
    /// What a BLEU is made of, and whether a reference has an n-gram of the longest.
    Bleu { max_order: usize, counts: Counts, can_be_matched: bool },
}

impl Tally {
    /// Makes an empty one for a metric.
    pub(super) fn new(metric: &Metric) -> Self {
        match metric.max_order() {
            Some(max_order) => Self::Bleu { max_order, counts: Counts::default(), can_be_matched: false },
            None if metric.range == Range::Integers => {
                Self::Whole { sum: Sum::default(), rows: 0, times: BTreeMap::new() }
            }
            None => Self::Shares { sum: Sum::default(), rows: 0, bins: [0; BINS] },
        }
    }

    /// Adds the score of one more row.
    pub(super) fn add(&mut self, score: Score) {
        match (self, score) {
            (Self::Shares { sum, rows, bins }, Score::Number(number)) => {
                sum.add(number);
                *rows += 1;
                bins[Histogram::bin_of_unit(number, BINS)] += 1;
            }
            (Self::Whole { sum, rows, times }, Score::Number(number)) => {
                sum.add(number);
                *rows += 1;
                *times.entry(number.floor() as i64).or_default() += 1;
            }
            (Self::Bleu { max_order, counts, can_be_matched }, Score::Counts(row)) => {
                *can_be_matched |= row.has_n_gram(*max_order);
                *counts += row;
            }
            _ => {}
        }
    }

    /// Returns the number for tables; nothing if no row could be scored.
    pub(super) fn value(&self) -> Option<f64> {
        match self {
            Self::Shares { sum, rows, .. } | Self::Whole { sum, rows, .. } => {
                (*rows > 0).then(|| sum.value() / *rows as f64)
            }
            Self::Bleu { max_order, counts, can_be_matched } => {
                can_be_matched.then(|| counts.bleu(*max_order))
            }
        }
    }

    /// Returns the distribution of the rows' scores, if they have any.
    pub(super) fn histogram(&self) -> Result<Option<Histogram>, SummaryError> {
        match self {
            Self::Shares { rows: 1.., bins, .. } => {
                Ok(Some(Histogram { start: 0.0, width: 1.0 / BINS as f64, counts: bins.to_vec() }))
            }
            Self::Whole { times, .. } => {
                let (Some((first, _)), Some((last, _))) = (times.first_key_value(), times.last_key_value())
                else {
                    return Ok(None);
                };
                let (min, max) = (*first as f64, *last as f64);
                if max - min >= MOST_BINS as f64 {
                    return Err(SummaryError::TooManyBins { width: 1.0, min, max });
                }
                let counts = (*first..=*last).map(|number| times.get(&number).copied().unwrap_or_default());
                Ok(Some(Histogram { start: min, width: 1.0, counts: counts.collect() }))
            }
            _ => Ok(None),
        }
    }
}
