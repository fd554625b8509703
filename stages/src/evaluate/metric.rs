//! What a metric is: its name, what it measures and needs, the score of a row, and the number that
//! the scores of all rows give.

use std::fmt;

use corpus::Direction;
use engine::{Context, OutputColumn, StageFailure};
use metrics::bleu::Counts;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use super::Params;
use super::definition::definition;
use super::features::Features;
use super::metrics::METRICS;
use super::scorer::Scored;
use crate::support::judgements::{Judged, Level};

/// A metric. But for `words`, its name is its column in tables.
pub(super) struct Metric {
    /// Its name, as in `metrics = ["bleu2"]`.
    pub(super) name: &'static str,
    /// What it measures, in one sentence.
    pub(super) description: &'static str,
    /// What it is a metric of.
    pub(super) subject: Subject,
    /// What it is computed from, beside the two texts.
    pub(super) needs: &'static [Need],
    /// The heading of its column in a table.
    pub(super) label: &'static str,
    /// The digits after the point that a table shows.
    pub(super) digits: u8,
    /// Which way is better.
    pub(super) better: Better,
    /// The numbers that a row may have.
    pub(super) range: Range,
    /// The score of a row.
    pub(super) score: RowScore,
    /// The number of all rows.
    pub(super) aggregate: Aggregate,
    /// Says why there is no number, given how many rows there are and how many of them lack a
    /// score for a reason of their own; nothing if those reasons say it.
    pub(super) why_missing: fn(rows: usize, unscored: usize) -> Option<String>,
}

/// What others need to know of a metric: those that show its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSummary {
    /// Its name, which is its column in tables.
    pub name: &'static str,
    /// What it measures, in one sentence.
    pub description: &'static str,
    /// What it is a metric of, as messages name it.
    pub subject: String,
    /// The heading of its column in a table.
    pub label: &'static str,
    /// The digits after the point that a table shows.
    pub digits: u8,
    /// Which way is better.
    pub better: Better,
}

/// Returns all metrics, in the order in which the manual shows them.
pub fn metrics() -> Vec<MetricSummary> {
    let summary = |metric: &&Metric| MetricSummary {
        name: metric.name,
        description: metric.description,
        subject: metric.subject.to_string(),
        label: metric.label,
        digits: metric.digits,
        better: metric.better,
    };
    METRICS.iter().map(summary).collect()
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

/// What a metric is computed from, beside the two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// What captions are split into.
    Tokens,
    /// The words of both captions, aligned: slow.
    Alignment,
    /// The synonyms of WordNet.
    WordNet,
    /// The molecules that the texts are.
    Molecules,
    /// Fingerprints of the molecules.
    Fingerprints,
    /// The activations of ChemNet.
    ChemNet,
}

/// Which way a number is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
    /// Nearer to 0, or to nothing in particular.
    Neither,
}

impl Better {
    /// Returns the same as tables have it.
    pub(super) fn in_tables(self) -> Option<engine::Better> {
        match self {
            Self::Higher => Some(engine::Better::Higher),
            Self::Lower => Some(engine::Better::Lower),
            Self::Neither => None,
        }
    }
}

/// The numbers that a row may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// From 0 to 1, or about there.
    Unit,
    /// Whole numbers, far from 0 or not.
    Integers,
    /// Any number from 0.
    NonNegative,
}

/// What one metric says of one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Score {
    Number(f64),
    /// What a BLEU is made of.
    Counts(Counts),
    /// It has none.
    Missing,
}

impl Score {
    /// Returns 1 or 0.
    pub(super) fn truth(is_true: bool) -> Self {
        Self::Number(f64::from(u8::from(is_true)))
    }
}

/// Why a row has no score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unscored {
    /// The metric does not apply to it, which is counted elsewhere.
    NotApplicable,
    /// There is something to score, and it cannot be.
    Because(String),
    /// Its stage fails.
    Fatal(String),
}

/// Scores rows one after the other, by those before.
pub(super) type SequentialScore = Box<dyn FnMut(&Scored) -> Score>;

/// How a row is scored.
pub(super) enum RowScore {
    /// By its text alone.
    Text(fn(&str) -> f64),
    /// By a prediction and its reference.
    Pair(fn(&Features<'_>) -> Result<Score, Unscored>),
    /// By what a judge said of it on one level.
    Judgement(Level, fn(&Judged) -> Option<f64>),
    /// By what was predicted in the rows before, in their order.
    Sequential(fn() -> SequentialScore),
    /// Not at all: the metric is of all rows together.
    None,
}

/// What the scores of all rows come to.
pub(super) enum Aggregate {
    /// The mean over the rows that have one.
    Mean,
    /// Mean, deviation, median and more, a column each.
    Statistics,
    /// BLEU of the corpus, to n-grams of this order.
    CorpusBleu { max_order: usize },
    /// A number of all predictions as a set.
    Set(fn(&Params) -> Result<Box<dyn SetScore>, StageFailure>),
}

/// A number of all predictions together. What it keeps must not grow with them.
pub(super) trait SetScore {
    /// Adds some rows.
    ///
    /// # Errors
    /// [`StageFailure`] if it cannot be computed, or was cancelled.
    fn add(&mut self, rows: &[Scored], context: &mut Context) -> Result<(), StageFailure>;

    /// Returns the number.
    ///
    /// # Errors
    /// Why there is none.
    fn value(&self) -> Result<f64, String>;
}

/// For metrics whose rows say why they lack a score.
pub(super) fn rows_say_why(_rows: usize, _unscored: usize) -> Option<String> {
    None
}

impl Metric {
    /// Returns the metric of a name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().copied().find(|metric| metric.name == name)
    }

    pub(super) fn needs(&self, need: Need) -> bool {
        self.needs.contains(&need)
    }

    /// Returns whether a row's score says something of that row alone, so that rows can be drawn.
    pub(super) fn is_of_single_rows(&self) -> bool {
        !matches!(self.score, RowScore::Sequential(_) | RowScore::None)
    }

    /// Returns the order of the longest n-grams of a BLEU.
    pub(super) fn max_order(&self) -> Option<usize> {
        match self.aggregate {
            Aggregate::CorpusBleu { max_order } => Some(max_order),
            _ => None,
        }
    }

    /// Returns its column in tables.
    pub(super) fn column(&self, params: &Params) -> OutputColumn {
        OutputColumn {
            label: self.label.to_owned(),
            digits: Some(self.digits),
            better: self.better.in_tables(),
            definition: Some(definition(params, self)),
            ..OutputColumn::new(self.name)
        }
    }

    /// Returns how many cores can share its work.
    pub(super) fn cores(&self) -> u32 {
        let cores = |need: &Need| match need {
            Need::ChemNet => u32::MAX,
            // All else about captions is done before it is divided.
            Need::Molecules | Need::Fingerprints | Need::Alignment => 4,
            Need::Tokens | Need::WordNet => 1,
        };
        self.needs.iter().map(cores).max().unwrap_or(1)
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Metric").field(&self.name).finish()
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
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

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

impl JsonSchema for Metric {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Metric".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = |metric: &&Metric| json!({ "description": metric.description, "type": "string", "const": metric.name });
        let names: Vec<_> = METRICS.iter().map(name).collect();
        json_schema!({
            "description": "A metric by name. But for `words`, its name is its column in tables.",
            "oneOf": names,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_written_by_its_name() {
        for metric in METRICS {
            assert_eq!(serde_json::to_value(metric).expect("JSON"), metric.name);
            assert_eq!(Metric::named(metric.name), Some(*metric), "two metrics have one name");
        }
        assert_eq!(Metric::named("bleu9"), None);
    }

    #[test]
    fn what_is_said_of_a_metric_fits_together() {
        for metric in METRICS {
            let name = metric.name;
            assert!(metric.description.ends_with('.') && !metric.label.is_empty(), "{name}");
            assert_eq!(metric.subject == Subject::Rows, matches!(metric.score, RowScore::Text(_)), "{name}");
            let is_judged = matches!(metric.score, RowScore::Judgement(..));
            assert_eq!(metric.subject == Subject::Judgements, is_judged, "{name}");
            let is_of_a_set = matches!(metric.aggregate, Aggregate::Set(_));
            assert_eq!(matches!(metric.score, RowScore::None), is_of_a_set, "{name}");
            // Whether a prediction is a molecule is counted for all of them.
            assert_eq!(metric.subject == Subject::Molecules, metric.needs(Need::Molecules), "{name}");
            assert!(metric.digits <= 4 && metric.cores() > 0, "{name}");
        }
    }
}
