//! Artifacts to cells: which stage fills which cell, and the numbers once they are there.

use std::collections::BTreeMap;
use std::fmt;

use cache::{Cache, Trace};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};

use crate::axes::{Assignment, AxisId};
use crate::cells::{Better, Cell, CellValue, Column, Delta, DeltaCell, Provenance, Row, RowOrigin, Table};
use crate::diagnostic::{Finding, nearest_or_all};
use crate::experiment::unknown_stage;
use crate::node::{Content, Node, Table as Toml};
use crate::plan::{Draft, Plan, select};
use crate::reference::Reference;

/// The file in an artifact that numbers for tables are read from.
pub(crate) const METRICS_FILE: &str = "metrics.json";

/// `[table]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableSpec {
    title: Option<String>,
    from: Option<String>,
    #[serde(default)]
    rows: Vec<String>,
    columns: Vec<ColumnSpec>,
    average: Option<Vec<String>>,
    pub published: Option<String>,
    #[serde(default)]
    row: Vec<RowSpec>,
    #[serde(default)]
    delta: Vec<DeltaSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowSpec {
    label: String,
    from: String,
    published: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaSpec {
    row: String,
    minus: String,
    label: Option<String>,
    printed: Option<String>,
}

/// A column: a metric's name, or a table that says more about it.
#[derive(Debug, Clone)]
struct ColumnSpec {
    metric: String,
    label: Option<String>,
    digits: Option<u8>,
    better: Option<BetterSpec>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BetterSpec {
    Higher,
    Lower,
}

impl<'de> Deserialize<'de> for ColumnSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            metric: String,
            label: Option<String>,
            digits: Option<u8>,
            better: Option<BetterSpec>,
        }

        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ColumnSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a metric's name or a table with `metric`")
            }
            fn visit_str<E>(self, metric: &str) -> Result<ColumnSpec, E> {
                Ok(ColumnSpec { metric: metric.to_owned(), label: None, digits: None, better: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnSpec, A::Error> {
                let Full { metric, label, digits, better } =
                    Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ColumnSpec { metric, label, digits, better })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The numbers that a paper prints.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    columns: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
    deltas: BTreeMap<String, Vec<f64>>,
    /// What one unit of a metric is in the unit of the printed deltas: 100 for percentage points.
    delta_scale: Vec<f64>,
}

impl Published {
    /// Reads a file of published numbers.
    pub fn read(root: &Toml, findings: &mut Vec<Finding>) -> Self {
        let mut published = Self::default();
        let known = ["task", "source", "row_axes", "columns", "rows", "delta_printed", "delta_scale"];
        for (name, entry) in root {
            match name.as_str() {
                "columns" => {
                    let items = entry.node.as_list().unwrap_or_default();
                    published.columns =
                        items.iter().filter_map(|item| item.as_text().map(str::to_owned)).collect();
                }
                "rows" => published.rows = rows_of(&entry.node, findings),
                "delta_printed" => published.deltas = rows_of(&entry.node, findings).into_iter().collect(),
                "delta_scale" => published.delta_scale = numbers(&entry.node, findings),
                other if known.contains(&other) => {}
                other => findings.push(
                    Finding::new(entry.key.clone(), format!("unknown part `{other}` of published numbers"))
                        .maybe_help(nearest_or_all(other, "they have", known)),
                ),
            }
        }
        for (label, values) in &published.rows {
            if values.len() != published.columns.len() {
                let label_of = format!("{} for {} columns", values.len(), published.columns.len());
                let message = format!("published row `{label}` does not have one number per column");
                let span = root.get("rows").and_then(|entry| entry.node.at(std::slice::from_ref(label)));
                findings
                    .push(Finding::new(span.map_or(0..0, |node| node.span.clone()), message).label(label_of));
            }
        }
        published
    }

    fn row(&self, label: &str) -> Option<&[f64]> {
        self.rows.iter().find(|(found, _)| found == label).map(|(_, values)| values.as_slice())
    }

    fn cell(&self, label: &str, metric: &str) -> Option<f64> {
        let column = self.columns.iter().position(|found| found == metric)?;
        self.row(label)?.get(column).copied()
    }

    fn printed(&self, delta: &str, metric: &str) -> Option<(f64, f64)> {
        let column = self.columns.iter().position(|found| found == metric)?;
        let value = *self.deltas.get(delta)?.get(column)?;
        Some((value, self.delta_scale.get(column).copied().unwrap_or(1.0)))
    }
}

fn rows_of(node: &Node, findings: &mut Vec<Finding>) -> Vec<(String, Vec<f64>)> {
    let Some(table) = node.as_table() else {
        findings.push(Finding::new(
            node.span.clone(),
            format!("expected a table of rows, not {}", node.describe()),
        ));
        return Vec::new();
    };
    table.iter().map(|(name, entry)| (name.clone(), numbers(&entry.node, findings))).collect()
}

fn numbers(node: &Node, findings: &mut Vec<Finding>) -> Vec<f64> {
    let mut values = Vec::new();
    for item in node.as_list().unwrap_or_default() {
        match item.content {
            Content::Integer(integer) => values.push(integer as f64),
            Content::Float(float) => values.push(float),
            _ => findings
                .push(Finding::new(item.span.clone(), format!("expected a number, not {}", item.describe()))),
        }
    }
    if node.as_list().is_none() {
        findings.push(Finding::new(
            node.span.clone(),
            format!("expected a list of numbers, not {}", node.describe()),
        ));
    }
    values
}

/// A table whose cells know which nodes fill them.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTable {
    title: Option<String>,
    columns: Vec<Column>,
    rows: Vec<PlannedRow>,
    deltas: Vec<DeltaSpec>,
}

#[derive(Debug, Clone)]
struct PlannedRow {
    label: String,
    published: String,
    /// For each column, the nodes whose numbers are averaged, and the output to look in.
    cells: Vec<Vec<(usize, String)>>,
}

impl PlannedTable {
    /// Returns the nodes that fill the table.
    pub fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().flat_map(|row| &row.cells).flatten().map(|(node, _)| *node)
    }
}

/// Finds out which nodes fill which cells.
pub(crate) fn plan(spec: &TableSpec, node: &Node, draft: &Draft<'_>) -> Result<PlannedTable, Vec<Finding>> {
    let mut planner = Planner { spec, node, draft, findings: Vec::new() };
    let columns: Vec<Column> = spec
        .columns
        .iter()
        .map(|column| Column {
            name: column.metric.clone(),
            label: column.label.clone().unwrap_or_else(|| column.metric.clone()),
            digits: column.digits,
            better: column.better.map(|better| match better {
                BetterSpec::Higher => Better::Higher,
                BetterSpec::Lower => Better::Lower,
            }),
        })
        .collect();
    if columns.is_empty() {
        planner.complain(
            &["columns"],
            "the table has no columns",
            Some("name at least one metric".to_owned()),
        );
    }
    planner.check_average();
    let mut rows = if spec.rows.is_empty() && spec.from.is_none() && !spec.row.is_empty() {
        Vec::new()
    } else {
        planner.rows_from_axes()
    };
    for position in 0..spec.row.len() {
        rows.extend(planner.explicit_row(position));
    }
    planner.check_deltas(&rows);
    if planner.findings.is_empty() {
        Ok(PlannedTable { title: spec.title.clone(), columns, rows, deltas: spec.delta.clone() })
    } else {
        Err(planner.findings)
    }
}

struct Planner<'a> {
    spec: &'a TableSpec,
    node: &'a Node,
    draft: &'a Draft<'a>,
    findings: Vec<Finding>,
}

impl Planner<'_> {
    fn complain(&mut self, place: &[&str], message: impl Into<String>, help: Option<String>) {
        let place: Vec<String> = place.iter().map(|part| (*part).to_owned()).collect();
        let span = self.node.at(&place).map_or_else(|| self.node.span.clone(), |node| node.span.clone());
        self.findings.push(Finding::new(span, message).maybe_help(help));
    }

    fn check_average(&mut self) {
        let known = self.draft.axis_names();
        for (position, name) in self.spec.average.iter().flatten().enumerate() {
            if !known.contains(name) {
                let help = nearest_or_all(name, "axes", known.iter().map(String::as_str));
                let message = format!("there is no axis `{name}` to average over");
                self.complain(&["average", &position.to_string()], message, help);
            }
        }
    }

    /// Returns the output of a stage that has a metric.
    fn output_with(&self, stage: usize, metric: &str) -> Option<&str> {
        let first = *self.draft.nodes_of(stage).first()?;
        let outputs = &self.draft.nodes[first].outputs;
        outputs
            .iter()
            .find(|output| output.columns.iter().any(|column| column == metric))
            .map(|output| output.name.as_str())
    }

    fn all_metrics(&self) -> Vec<String> {
        let mut metrics: Vec<String> = self
            .draft
            .nodes
            .iter()
            .flat_map(|node| &node.outputs)
            .flat_map(|output| output.columns.iter().cloned())
            .collect();
        metrics.sort();
        metrics.dedup();
        metrics
    }

    /// Returns the axis of a stage's nodes by its name, maybe written `stage.axis`.
    fn axis(&self, stage: usize, name: &str) -> Option<AxisId> {
        self.find_axis(stage, name).ok()
    }

    fn find_axis(&self, stage: usize, name: &str) -> Result<AxisId, (String, Option<String>)> {
        let nodes = self.draft.nodes_of(stage);
        let nothing = Assignment::new();
        let assignment = nodes.first().map_or(&nothing, |first| &self.draft.nodes[*first].assignment);
        self.draft.axis_named(assignment, name)
    }

    fn rows_from_axes(&mut self) -> Vec<PlannedRow> {
        let from = match &self.spec.from {
            None => None,
            Some(text) => match self.stage_of(text, &["from"]) {
                Some((stage, nodes)) => Some((stage, nodes)),
                None => return Vec::new(),
            },
        };
        let mut rows: Vec<PlannedRow> = Vec::new();
        for (position, column) in self.spec.columns.iter().enumerate() {
            let Some((stage, nodes)) = from.clone().or_else(|| self.maker_of(position, &column.metric))
            else {
                continue;
            };
            let Some(output) = self.output_with(stage, &column.metric).map(str::to_owned) else {
                self.nothing_makes(position, &column.metric);
                continue;
            };
            for (label, nodes) in self.group(stage, &nodes) {
                let cells = nodes.into_iter().map(|node| (node, output.clone())).collect();
                match rows.iter_mut().find(|row| row.label == label) {
                    Some(row) => row.cells[position] = cells,
                    None => {
                        let mut row = PlannedRow {
                            published: label.clone(),
                            label,
                            cells: vec![Vec::new(); self.spec.columns.len()],
                        };
                        row.cells[position] = cells;
                        rows.push(row);
                    }
                }
            }
        }
        rows
    }

    fn nothing_makes(&mut self, position: usize, metric: &str) {
        let all = self.all_metrics();
        let help = nearest_or_all(metric, "columns that stages make", all.iter().map(String::as_str))
            .unwrap_or_else(|| "no stage declares numbers for a table".to_owned());
        let place = position.to_string();
        self.complain(&["columns", &place], format!("nothing makes column `{metric}`"), Some(help));
    }

    /// Finds the one stage that makes a metric and has all axes of the rows.
    fn maker_of(&mut self, position: usize, metric: &str) -> Option<(usize, Vec<usize>)> {
        let makers: Vec<usize> = (0..self.draft.stage_count())
            .filter(|stage| self.output_with(*stage, metric).is_some())
            .collect();
        let place = position.to_string();
        if makers.is_empty() {
            self.nothing_makes(position, metric);
            return None;
        }
        let fitting: Vec<usize> = makers
            .iter()
            .copied()
            .filter(|stage| self.spec.rows.iter().all(|axis| self.axis(*stage, axis).is_some()))
            .collect();
        match fitting.as_slice() {
            [stage] => Some((*stage, self.draft.nodes_of(*stage).to_vec())),
            [] => {
                if let [maker] = makers.as_slice() {
                    return Some((*maker, self.draft.nodes_of(*maker).to_vec()));
                }
                for (row, axis) in self.spec.rows.iter().enumerate() {
                    if !makers.iter().any(|stage| self.axis(*stage, axis).is_some()) {
                        let known = self.draft.axis_names();
                        let help = nearest_or_all(axis, "axes", known.iter().map(String::as_str));
                        let row = row.to_string();
                        let message = format!("no stage that makes `{metric}` has the axis `{axis}`");
                        self.complain(&["rows", &row], message, help);
                        return None;
                    }
                }
                let message = format!("no single stage that makes `{metric}` has all axes of the rows");
                self.complain(&["rows"], message, None);
                None
            }
            several => {
                let names: Vec<String> =
                    several.iter().map(|stage| format!("`{}`", self.draft.stage_name(*stage))).collect();
                let message = format!("column `{metric}` is made by {}", names.join(" and "));
                let help = "say which one with `from`, or write the rows one by one".to_owned();
                self.complain(&["columns", &place], message, Some(help));
                None
            }
        }
    }

    /// Groups nodes by the axes of the rows; what is left over is averaged.
    fn group(&mut self, stage: usize, nodes: &[usize]) -> Vec<(String, Vec<usize>)> {
        let mut row_axes = Vec::new();
        for (position, name) in self.spec.rows.iter().enumerate() {
            match self.find_axis(stage, name) {
                Ok(axis) => row_axes.push(axis),
                Err((problem, help)) => {
                    let position = position.to_string();
                    let message = format!("stage `{}` {problem}", self.draft.stage_name(stage));
                    self.complain(&["rows", &position], message, help);
                    return Vec::new();
                }
            }
        }
        self.refuse_unaveraged(stage, nodes, &row_axes);
        let mut groups: Vec<(Vec<Option<usize>>, Vec<usize>)> = Vec::new();
        for node in nodes {
            let assignment = &self.draft.nodes[*node].assignment;
            let of =
                |axis: &AxisId| assignment.iter().find(|(id, _)| id == axis).map(|(_, variant)| *variant);
            let place: Vec<Option<usize>> = row_axes.iter().map(of).collect();
            match groups.iter_mut().find(|(found, _)| *found == place) {
                Some((_, nodes)) => nodes.push(*node),
                None => groups.push((place, vec![*node])),
            }
        }
        // Rows stand in the order in which the axes declare their variants.
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        let label = |place: &[Option<usize>]| {
            if place.is_empty() {
                return self.draft.stage_name(stage).to_owned();
            }
            let names = row_axes.iter().zip(place).map(|(axis, variant)| {
                variant.map_or("-", |variant| self.draft.variant_name(*axis, variant))
            });
            names.collect::<Vec<_>>().join("/")
        };
        groups.iter().map(|(place, nodes)| (label(place), nodes.clone())).collect()
    }

    /// An axis that is neither a row nor averaged would silently mix different things.
    fn refuse_unaveraged(&mut self, stage: usize, nodes: &[usize], row_axes: &[AxisId]) {
        let mut left: Vec<AxisId> = Vec::new();
        for node in nodes {
            for (axis, _) in &self.draft.nodes[*node].assignment {
                if !row_axes.contains(axis) && !left.contains(axis) {
                    left.push(*axis);
                }
            }
        }
        for axis in left {
            let name = self.draft.axis_name(axis).to_owned();
            let varies = nodes
                .iter()
                .map(|node| self.draft.nodes[*node].assignment.iter().find(|(id, _)| *id == axis))
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                > 1;
            let averaged = match &self.spec.average {
                Some(names) => names.contains(&name),
                None => self.draft.is_seed_axis(axis),
            };
            if varies && !averaged {
                let message = format!(
                    "stage `{}` has the axis `{name}`, which is neither a row nor averaged",
                    self.draft.stage_name(stage)
                );
                let help = format!("add \"{name}\" to `rows`, or to `average`");
                self.complain(&["rows"], message, Some(help));
                return;
            }
        }
    }

    fn stage_of(&mut self, text: &str, place: &[&str]) -> Option<(usize, Vec<usize>)> {
        let reference = match Reference::parse(text) {
            Ok(reference) => reference,
            Err(help) => {
                self.complain(place, format!("`{text}` does not name a stage"), Some(help));
                return None;
            }
        };
        let Some(stage) = self.draft.stage_named(&reference.stage) else {
            let path: Vec<String> = place.iter().map(|part| (*part).to_owned()).collect();
            let span = self.node.at(&path).map_or_else(|| self.node.span.clone(), |node| node.span.clone());
            self.findings.push(unknown_stage(&reference.stage, span, self.draft.stages));
            return None;
        };
        match select(self.draft, stage, &reference) {
            Ok(nodes) => Some((stage, nodes)),
            Err((message, help)) => {
                self.complain(place, message, help);
                None
            }
        }
    }

    fn explicit_row(&mut self, position: usize) -> Option<PlannedRow> {
        let row = &self.spec.row[position];
        let at = position.to_string();
        let (stage, nodes) = self.stage_of(&row.from, &["row", &at, "from"])?;
        if nodes.is_empty() {
            // The stage itself is wrong, and has been reported.
            return None;
        }
        self.refuse_unaveraged_row(stage, &nodes, &at);
        let mut cells = Vec::new();
        for column in &self.spec.columns {
            let Some(output) = self.output_with(stage, &column.metric) else {
                let message =
                    format!("stage `{}` makes no column `{}`", self.draft.stage_name(stage), column.metric);
                let made: Vec<String> = self.draft.nodes[nodes[0]]
                    .outputs
                    .iter()
                    .flat_map(|output| output.columns.clone())
                    .collect();
                let help = nearest_or_all(&column.metric, "it makes", made.iter().map(String::as_str))
                    .or_else(|| Some("it makes no numbers for tables".to_owned()));
                self.complain(&["row", &at, "from"], message, help);
                return None;
            };
            cells.push(nodes.iter().map(|node| (*node, output.to_owned())).collect());
        }
        let published = row.published.clone().unwrap_or_else(|| row.label.clone());
        Some(PlannedRow { label: row.label.clone(), published, cells })
    }

    fn refuse_unaveraged_row(&mut self, stage: usize, nodes: &[usize], at: &str) {
        let first: &Assignment = &self.draft.nodes[nodes[0]].assignment;
        let varying = first.iter().map(|(axis, _)| *axis).find(|axis| {
            let averaged = match &self.spec.average {
                Some(names) => names.iter().any(|name| name == self.draft.axis_name(*axis)),
                None => self.draft.is_seed_axis(*axis),
            };
            let variant =
                |node: &usize| self.draft.nodes[*node].assignment.iter().find(|(id, _)| id == axis).copied();
            !averaged && nodes.iter().any(|node| variant(node) != variant(&nodes[0]))
        });
        if let Some(axis) = varying {
            let (stage, axis) =
                (self.draft.stage_name(stage).to_owned(), self.draft.axis_name(axis).to_owned());
            let message = format!("stage `{stage}` has the axis `{axis}`, and a row is one of its variants");
            let help = format!("write `{stage}[{axis}=…]`, or add \"{axis}\" to `average`");
            self.complain(&["row", at, "from"], message, Some(help));
        }
    }

    fn check_deltas(&mut self, rows: &[PlannedRow]) {
        if !self.findings.is_empty() || self.draft.has_gaps() {
            return;
        }
        for (position, delta) in self.spec.delta.iter().enumerate() {
            for (field, label) in [("row", &delta.row), ("minus", &delta.minus)] {
                if rows.iter().any(|row| row.label == *label) {
                    continue;
                }
                let position = position.to_string();
                let help = nearest_or_all(label, "rows", rows.iter().map(|row| row.label.as_str()));
                self.complain(&["delta", &position, field], format!("the table has no row `{label}`"), help);
            }
        }
    }
}

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
            row.cells.iter().flatten().map(|(node, _)| plan.nodes()[*node].stage_name(plan)).collect();
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
        let label = self.plan.nodes()[node].label().to_owned();
        let (plan, cache, traces, reasons) = (self.plan, self.cache, self.traces, self.reasons);
        let file = self.read.entry((node, output.to_owned())).or_insert_with(|| {
            let Some(trace) = &traces[node] else {
                return Err(reasons(node));
            };
            let artifact = trace.output(output).ok_or_else(|| {
                format!("{}: the cache has no output `{output}`", plan.nodes()[node].label())
            })?;
            let bytes = cache.read(artifact, METRICS_FILE).map_err(|error| format!("{label}: {error}"))?;
            let bytes = bytes.ok_or_else(|| format!("{label}: output `{output}` has no {METRICS_FILE}"))?;
            let value = serde_json::from_slice(&bytes)
                .map_err(|error| format!("{label}: {METRICS_FILE} is not JSON: {error}"))?;
            Ok((artifact.to_string(), value))
        });
        let (artifact, metrics) = file.as_ref().map_err(Clone::clone)?;
        let label = self.plan.nodes()[node].label();
        read_metric(metrics, metric)
            .map(|value| (artifact.clone(), value))
            .map_err(|reason| format!("{label}: {reason}"))
    }
}

/// Reads one number: plain, as `{ "value": … }`, or `{ "missing": "reason" }`.
pub(crate) fn read_metric(metrics: &serde_json::Value, metric: &str) -> Result<f64, String> {
    let Some(found) = metrics.get(metric) else {
        return Err(format!("{METRICS_FILE} has no `{metric}`"));
    };
    if let Some(reason) = found.get("missing").and_then(serde_json::Value::as_str) {
        return Err(reason.to_owned());
    }
    let number = found.as_f64().or_else(|| found.get("value")?.as_f64());
    number.ok_or_else(|| format!("`{metric}` in {METRICS_FILE} is not a number"))
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
    use serde_json::json;

    #[test]
    fn metrics_are_numbers_or_missing_with_a_reason() {
        let metrics =
            json!({ "a": 1.5, "b": { "value": 2 }, "c": { "missing": "no weights" }, "d": "x", "e": null });
        assert_eq!(read_metric(&metrics, "a"), Ok(1.5));
        assert_eq!(read_metric(&metrics, "b"), Ok(2.0));
        assert_eq!(read_metric(&metrics, "c"), Err("no weights".to_owned()));
        for name in ["d", "e", "f"] {
            assert!(read_metric(&metrics, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_mean_carries_its_sample_deviation() {
        assert_eq!(mean(&[1.0, 2.0, 3.0]), CellValue::Mean { mean: 2.0, std: 1.0, n: 3 });
    }
}
