//! `kind = "evaluate"`: measures rows: per row, in aggregate, and as a distribution.

use std::collections::BTreeMap;

use engine::{Context, Failure, Place, Ports, Stage};
use metrics::summary::{Sorted, Summary};
use metrics::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::{ROWS, SCORES};
use crate::rows::{RowWriter, read_rows, write_json};

/// What to measure.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The metrics to compute.
    metrics: Vec<Metric>,
    /// The field with the text to measure.
    #[serde(default = "caption")]
    field: String,
}

fn caption() -> String {
    "caption".to_owned()
}

/// A metric by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Metric {
    /// Whitespace-separated words of a text.
    Words,
}

impl Metric {
    fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
        }
    }

    fn score(self, text: &str) -> f64 {
        match self {
            Self::Words => words::count(text) as f64,
        }
    }

    /// Returns the width of a bin of its distribution.
    fn bin(self) -> f64 {
        match self {
            Self::Words => 1.0,
        }
    }
}

/// The numbers that each metric gives a table, after its name.
const STATISTICS: [&str; 6] = ["mean", "std", "median", "min", "max", "rows"];

/// Measures rows.
pub struct Evaluate;

impl Stage for Evaluate {
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 1;
    const PLACE: Place = Place::Worker;
    type Params = Params;

    fn ports(params: &Params) -> Ports {
        let columns = params
            .metrics
            .iter()
            .flat_map(|metric| STATISTICS.iter().map(|statistic| format!("{}_{statistic}", metric.name())));
        Ports::new().input("rows", ROWS).scored_output("scores", SCORES, columns.collect())
    }

    fn check(params: &Params) -> Result<(), String> {
        let mut metrics = params.metrics.clone();
        metrics.sort_unstable();
        metrics.dedup();
        match () {
            () if params.metrics.is_empty() => Err("`metrics` is empty: name at least one".to_owned()),
            () if metrics.len() < params.metrics.len() => Err("`metrics` names one twice".to_owned()),
            () => Ok(()),
        }
    }

    fn run(params: &Params, context: &mut Context) -> Result<(), Failure> {
        let folder = context.output("scores")?;
        let mut writer = RowWriter::create(&folder)?;
        let mut scores: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
        for row in read_rows(context.input("rows")?)? {
            let row = row?;
            let Some(text) = row.text(&params.field) else {
                let fields: Vec<_> = row.names().map(|name| format!("`{name}`")).collect();
                let message = format!(
                    "row `{}` has no text `{}`; it has {}",
                    row.id(),
                    params.field,
                    fields.join(", ")
                );
                return Err(Failure::new(message).help("name another `field`"));
            };
            let mut line = serde_json::Map::new();
            line.insert("id".to_owned(), row.id().into());
            for metric in &params.metrics {
                let score = metric.score(text);
                line.insert(metric.name().to_owned(), score.into());
                scores.entry(*metric).or_default().push(score);
            }
            writer.write(&line)?;
        }
        writer.finish()?;
        let mut metrics = serde_json::Map::new();
        let mut distributions = serde_json::Map::new();
        for (metric, values) in &scores {
            let doing = || format!("summarise `{}`", metric.name());
            let summary = Summary::of(values).map_err(|error| Failure::caused(doing(), error))?;
            let sorted = Sorted::of(values).map_err(|error| Failure::caused(doing(), error))?;
            let histogram =
                sorted.histogram(metric.bin()).map_err(|error| Failure::caused(doing(), error))?;
            let numbers = [
                summary.mean,
                summary.population_std,
                summary.median,
                summary.min,
                summary.max,
                values.len() as f64,
            ];
            for (statistic, number) in STATISTICS.iter().zip(numbers) {
                metrics.insert(format!("{}_{statistic}", metric.name()), number.into());
            }
            let bins =
                json!({ "start": histogram.start, "width": histogram.width, "counts": histogram.counts });
            distributions.insert(metric.name().to_owned(), bins);
        }
        if scores.is_empty() {
            return Err(Failure::new("there are no rows to measure"));
        }
        write_json(&folder.join("distributions.json"), &distributions)?;
        write_json(&folder.join("metrics.json"), &metrics)
    }
}
