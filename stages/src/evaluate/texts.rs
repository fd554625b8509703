//! Measures the text of a field of rows.

use engine::{Context, OutputColumn, StageFailure};
use metrics::summary::{Sorted, Summary};
use serde_json::json;

use super::Params;
use super::metric::{Metric, RowScore};
use crate::support::rows::{RowWriter, read_rows, write_json};

/// The field that is measured if none is named.
const CAPTION: &str = "caption";

/// The numbers that each metric gives a table, after its name.
const STATISTICS: [&str; 6] = ["mean", "std", "median", "min", "max", "rows"];

/// The width of a bin of a distribution.
const BIN: f64 = 1.0;

/// Returns the columns for tables.
pub(super) fn columns(params: &Params) -> Vec<OutputColumn> {
    let column = |metric: &Metric, statistic: &str| {
        let digits = match statistic {
            "mean" | "std" => Some(metric.digits),
            "rows" => Some(0),
            _ => None,
        };
        OutputColumn {
            name: format!("{}_{statistic}", metric.name),
            label: format!("{} ({statistic})", metric.label),
            digits,
            is_default: statistic == "mean",
            ..metric.column(params)
        }
    };
    let each = |metric: &&'static Metric| STATISTICS.map(|statistic| column(metric, statistic));
    params.metrics.iter().flat_map(each).collect()
}

/// Measures all rows.
pub(super) fn measure(params: &Params, context: &mut Context) -> Result<(), StageFailure> {
    let field = params.field.as_deref().unwrap_or(CAPTION);
    let folder = context.output("scores")?;
    let mut writer = RowWriter::create(&folder)?;
    let scorers: Vec<fn(&str) -> f64> = params
        .metrics
        .iter()
        .filter_map(|metric| match metric.score {
            RowScore::Text(score) => Some(score),
            _ => None,
        })
        .collect();
    let mut scores: Vec<Vec<f64>> = vec![Vec::new(); scorers.len()];
    for row in read_rows(context.input("rows")?)? {
        let row = row?;
        let text = row
            .needed(field)
            .map_err(|error| StageFailure::new(error.to_string()).help("name another `field`"))?;
        let mut line = serde_json::Map::new();
        line.insert("id".to_owned(), row.id().into());
        for ((metric, scorer), scores) in params.metrics.iter().zip(&scorers).zip(&mut scores) {
            let score = scorer(text);
            line.insert(metric.name.to_owned(), score.into());
            scores.push(score);
        }
        writer.write(&line)?;
    }
    writer.finish()?;
    if scores.iter().all(Vec::is_empty) {
        return Err(StageFailure::new("there are no rows to measure"));
    }
    let mut metrics = serde_json::Map::new();
    let mut distributions = serde_json::Map::new();
    for (metric, values) in params.metrics.iter().zip(&scores) {
        let doing = || format!("summarise `{}`", metric.name);
        let summary = Summary::of(values).map_err(|error| StageFailure::caused(doing(), error))?;
        let sorted = Sorted::of(values).map_err(|error| StageFailure::caused(doing(), error))?;
        let histogram = sorted.histogram(BIN).map_err(|error| StageFailure::caused(doing(), error))?;
        let numbers = [
            summary.mean,
            summary.population_std,
            summary.median,
            summary.min,
            summary.max,
            values.len() as f64,
        ];
        for (statistic, number) in STATISTICS.iter().zip(numbers) {
            metrics.insert(format!("{}_{statistic}", metric.name), number.into());
        }
        let bins = json!({ "start": histogram.start, "width": histogram.width, "counts": histogram.counts });
        distributions.insert(metric.name.to_owned(), bins);
    }
    write_json(&folder.join("distributions.json"), &distributions)?;
    write_json(&folder.join("metrics.json"), &metrics)
}
