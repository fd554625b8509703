//! Cells from artifacts: each number read from the bytes that a stage made.

use std::collections::{BTreeMap, BTreeSet};

use cache::{Cache, Trace};

use crate::kind::metrics_file::{METRICS_FILE, read_metric};
use crate::plan::graph::Plan;
use crate::table::cells::{Cell, CellValue, Delta, DeltaCell, Provenance, Row, RowOrigin, Table};

use crate::experiment::published::Published;
use crate::experiment::spec::Experiment;
use crate::kind::name::split_namespace;
use crate::plan::table::planned::{Column, PlannedCell, PlannedDelta, PlannedRow, PlannedTable};

/// Fills the tables with the numbers that are there. `traces` holds the finished work by node,
/// `reasons` why other nodes have none.
pub fn fill(
    plan: &Plan,
    cache: &Cache,
    traces: &[Option<Trace>],
    reasons: &dyn Fn(usize) -> String,
) -> Vec<Table> {
    let mut files = MetricFiles { plan, cache, traces, reasons, read: BTreeMap::new() };
    let tables = plan.tables.iter().map(|planned| {
        let declaration = plan.experiment.tables.iter().find(|table| table.name == planned.name);
        fill_table(planned, declaration.and_then(|table| table.published.as_ref()), &mut files)
    });
    tables.collect()
}

fn fill_table(planned: &PlannedTable, published: Option<&Published>, files: &mut MetricFiles<'_>) -> Table {
    let plan = files.plan;
    let cell_of =
        |row: &str, column: &Column| published.and_then(|published| published.cell(row, &column.name));
    let mut rows: Vec<Row> = Vec::new();
    for row in &planned.rows {
        let origin = if row.is_made() {
            RowOrigin::Made { stage: stages_of(row, plan) }
        } else {
            RowOrigin::PublishedOnly
        };
        let cells = planned.columns.iter().enumerate().map(|(at, column)| {
            let published = cell_of(&row.published, column);
            let empty = |value| Cell { published, ..Cell::empty(value) };
            match row.cells.get(at) {
                Some(PlannedCell::Made { nodes, definition, differs }) => Cell {
                    definition: definition.clone(),
                    differs: differs.clone(),
                    ..files.cell(nodes, &column.name, published)
                },
                Some(PlannedCell::Absent { reason }) => empty(CellValue::Absent { reason: reason.clone() }),
                None => {
                    let reason = "no stage makes this published row".to_owned();
                    empty(CellValue::Missing { reason })
                }
            }
        });
        rows.push(Row { label: row.label.clone(), origin, cells: cells.collect() });
    }
    let deltas = planned.deltas.iter().map(|delta| fill_delta(delta, planned, &rows, published)).collect();
    // Rows that are only published stand below those that are made.
    let (made, only_published): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.origin != RowOrigin::PublishedOnly);
    let notes = plan.experiment.profile_note.iter().chain(&planned.comparability).cloned().collect();
    let title = planned.title.clone().unwrap_or_else(|| title_of(planned, &plan.experiment));
    let rows = made.into_iter().chain(only_published).collect();
    Table { name: planned.name.clone(), title, columns: planned.columns.clone(), rows, deltas, notes }
}

/// Returns the title of the file that a table is in: the experiment, or one that it includes under a
/// name.
fn title_of(table: &PlannedTable, experiment: &Experiment) -> String {
    let name = table.name.as_deref().unwrap_or_default();
    let namespace = experiment.namespaces.get(name).or_else(|| {
        let (namespace, _) = split_namespace(name);
        experiment.namespaces.get(namespace)
    });
    namespace.and_then(|namespace| namespace.title.clone()).unwrap_or_else(|| experiment.title())
}

/// Returns the names of the stages that fill a row.
fn stages_of(row: &PlannedRow, plan: &Plan) -> String {
    let nodes = row.cells.iter().filter_map(|cell| match cell {
        PlannedCell::Made { nodes, .. } => Some(nodes),
        PlannedCell::Absent { .. } => None,
    });
    let stages: BTreeSet<&str> =
        nodes.flatten().map(|(node, _)| plan.stage_name(plan.nodes()[*node].stage)).collect();
    stages.into_iter().collect::<Vec<_>>().join(", ")
}

fn fill_delta(
    delta: &PlannedDelta,
    planned: &PlannedTable,
    rows: &[Row],
    published: Option<&Published>,
) -> Delta {
    let number = |cell: &Cell| match cell.value {
        CellValue::Number(value) | CellValue::Mean { mean: value, .. } => Some(value),
        CellValue::Absent { .. } | CellValue::Missing { .. } => None,
    };
    let is_absent = |row: &Row, at: usize| {
        row.origin == RowOrigin::PublishedOnly || matches!(row.cells[at].value, CellValue::Absent { .. })
    };
    let cells = planned.columns.iter().enumerate().map(|(at, column)| {
        let (row, minus) = (&rows[delta.row], &rows[delta.minus]);
        let both = |of: &dyn Fn(&Cell) -> Option<f64>| Some(of(&row.cells[at])? - of(&minus.cells[at])?);
        let printed = published.and_then(|published| published.printed(&delta.printed, &column.name));
        DeltaCell {
            ours: both(&number),
            is_absent: is_absent(row, at) || is_absent(minus, at),
            published: both(&|cell| cell.published),
            printed: printed.map(|(value, _)| value),
            printed_scale: printed.map_or(1.0, |(_, scale)| scale),
        }
    });
    Delta { label: delta.label.clone(), cells: cells.collect() }
}

impl Cell {
    /// Makes a cell without a number.
    fn empty(value: CellValue) -> Self {
        Self { value, published: None, provenance: Vec::new(), definition: None, differs: None }
    }
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
        Cell { published, provenance, ..Cell::empty(value) }
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
