//! Cells from artifacts: each number read from the bytes that a stage made.

use std::collections::BTreeMap;

use cache::{Cache, Trace};

use crate::kind::metrics_file::{METRICS_FILE, read_metric};
use crate::plan::graph::Plan;
use crate::table::cells::{Cell, CellValue, Delta, DeltaCell, Provenance, Row, RowOrigin, Table};

use crate::experiment::published::Published;
use crate::experiment::table_spec::DeltaSpec;
use crate::plan::table::PlannedTable;

/// Fills the table with the numbers that are there. `traces` holds the finished work by node,
/// `reasons` why other nodes have none.
pub fn fill(
    plan: &Plan,
    cache: &Cache,
    traces: &[Option<Trace>],
    reasons: &dyn Fn(usize) -> String,
) -> Option<Table> {
    let planned = plan.table.as_ref()?;
    let published = plan.experiment.published.as_ref();
    let mut files = MetricFiles { plan, cache, traces, reasons, read: BTreeMap::new() };
    let mut rows: Vec<Row> = Vec::new();
    for row in &planned.rows {
        let cells = planned.columns.iter().zip(&row.cells).map(|(column, nodes)| {
            let published = published.and_then(|published| published.cell(&row.published, &column.name));
            files.cell(nodes, &column.name, published)
        });
        let cells = cells.collect();
        let stages: std::collections::BTreeSet<&str> =
            row.cells.iter().flatten().map(|(node, _)| plan.stage_name(plan.nodes()[*node].stage)).collect();
        let stage = stages.into_iter().collect::<Vec<_>>().join(", ");
        rows.push(Row { label: row.label.clone(), origin: RowOrigin::Made { stage }, cells });
    }
    for (label, _) in published.map(|published| published.rows.as_slice()).unwrap_or_default() {
        if planned.rows.iter().any(|row| row.published == *label) {
            continue;
        }
        let cells = planned.columns.iter().map(|column| Cell {
            value: CellValue::Missing { reason: "no stage makes this published row".to_owned() },
            published: published.and_then(|published| published.cell(label, &column.name)),
            provenance: Vec::new(),
        });
        rows.push(Row { label: label.clone(), origin: RowOrigin::PublishedOnly, cells: cells.collect() });
    }
    let deltas = planned.deltas.iter().map(|delta| fill_delta(delta, planned, &rows, published)).collect();
    let mut notes = Vec::new();
    if let Some(note) = &plan.experiment.profile_note {
        notes.push(note.clone());
    }
    if let (Some(_), Some(profile), false) =
        (published, &plan.experiment.profile, plan.experiment.is_comparable)
    {
        notes.push(format!("Profile `{profile}`: these numbers are not comparable with the published ones."));
    }
    let title = planned.title.clone().unwrap_or_else(|| plan.experiment.title());
    Some(Table { title, columns: planned.columns.clone(), rows, deltas, notes })
}

fn fill_delta(
    delta: &DeltaSpec,
    planned: &PlannedTable,
    rows: &[Row],
    published: Option<&Published>,
) -> Delta {
    let row = |label: &str| rows.iter().find(|row| row.label == label);
    let label = format!("{} - {}", delta.row, delta.minus);
    let printed_name = delta.printed.clone().unwrap_or_else(|| label.clone());
    let number = |cell: &Cell| match cell.value {
        CellValue::Number(value) | CellValue::Mean { mean: value, .. } => Some(value),
        CellValue::Missing { .. } => None,
    };
    let cells = planned.columns.iter().enumerate().map(|(position, column)| {
        let cell = |label: &str| row(label).map(|row| &row.cells[position]);
        let both =
            |of: &dyn Fn(&Cell) -> Option<f64>| Some(of(cell(&delta.row)?)? - of(cell(&delta.minus)?)?);
        let printed = published.and_then(|published| published.printed(&printed_name, &column.name));
        DeltaCell {
            ours: both(&number),
            published: both(&|cell| cell.published),
            printed: printed.map(|(value, _)| value),
            printed_scale: printed.map_or(1.0, |(_, scale)| scale),
        }
    });
    Delta { label: delta.label.clone().unwrap_or(label), cells: cells.collect() }
}

/// The metric files of artifacts, each read once.
struct MetricFiles<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    traces: &'a [Option<Trace>],
    reasons: &'a dyn Fn(usize) -> String,
    read: BTreeMap<(usize, String), Result<(String, serde_json::Value), String>>,
}

impl MetricFiles<'_> {
    fn cell(&mut self, nodes: &[(usize, String)], metric: &str, published: Option<f64>) -> Cell {
        let mut values = Vec::new();
        let mut provenance = Vec::new();
        let mut missing = None;
        for (node, output) in nodes {
            match self.number(*node, output, metric) {
                Ok((artifact, value)) => {
                    values.push(value);
                    provenance.push(Provenance {
                        stage: self.plan.nodes()[*node].label().to_owned(),
                        artifact,
                        path: format!("{METRICS_FILE}#{metric}"),
                    });
                }
                Err(reason) => missing = Some(reason),
            }
        }
        let value = match (missing, values.as_slice()) {
            (Some(reason), _) => CellValue::Missing { reason },
            (None, []) => CellValue::Missing { reason: "no stage fills this cell".to_owned() },
            (None, [only]) => CellValue::Number(*only),
            (None, several) => mean(several),
        };
        Cell { value, published, provenance }
    }

    fn number(&mut self, node: usize, output: &str, metric: &str) -> Result<(String, f64), String> {
        let (cache, traces, reasons) = (self.cache, self.traces, self.reasons);
        let file = self.read.entry((node, output.to_owned())).or_insert_with(|| {
            let Some(trace) = &traces[node] else {
                return Err(reasons(node));
            };
            let artifact =
                trace.output(output).ok_or_else(|| format!("the cache has no output `{output}`"))?;
            let bytes = cache.read(artifact, METRICS_FILE).map_err(|error| error.to_string())?;
            let bytes = bytes.ok_or_else(|| format!("output `{output}` has no {METRICS_FILE}"))?;
            let value = serde_json::from_slice(&bytes)
                .map_err(|error| format!("{METRICS_FILE} is not JSON: {error}"))?;
            Ok((artifact.to_string(), value))
        });
        let (artifact, metrics) = file.as_ref().map_err(Clone::clone)?;
        read_metric(metrics, metric).map(|value| (artifact.clone(), value))
    }
}

/// Averages over a seed: mean and sample standard deviation.
fn mean(values: &[f64]) -> CellValue {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    CellValue::Mean { mean, std: (squares / (n as f64 - 1.0)).sqrt(), n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_carries_its_sample_deviation() {
        assert_eq!(mean(&[1.0, 2.0, 3.0]), CellValue::Mean { mean: 2.0, std: 1.0, n: 3 });
    }
}
