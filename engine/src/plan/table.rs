//! Which nodes fill which cells: planned before anything runs.

use crate::experiment::axes::{Assignment, AxisId};
use crate::experiment::reference::Reference;
use crate::experiment::spec::unknown_stage;
use crate::plan::lookup::Lookup;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::value::Value;

use crate::experiment::table_spec::{Column, DeltaSpec, TableSpec};

/// A table whose cells know which nodes fill them.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTable {
    pub(crate) title: Option<String>,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<PlannedRow>,
    pub(crate) deltas: Vec<DeltaSpec>,
}

#[derive(Debug, Clone)]
pub(crate) struct PlannedRow {
    pub(crate) label: String,
    pub(crate) published: String,
    /// For each column, the nodes whose numbers are averaged, and the output to look in.
    pub(crate) cells: Vec<Vec<(usize, String)>>,
}

impl PlannedTable {
    /// Returns the nodes that fill the table.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().flat_map(|row| &row.cells).flatten().map(|(node, _)| *node)
    }
}

/// Finds out which nodes fill which cells.
pub(crate) fn plan_table(
    spec: &TableSpec,
    value: &Value,
    lookup: Lookup<'_>,
    has_gaps: bool,
) -> Result<PlannedTable, Vec<Diagnostic>> {
    let mut planner = Planner { spec, value, lookup, has_gaps, diagnostics: Vec::new() };
    let columns: Vec<Column> = spec
        .columns
        .iter()
        .map(|column| Column {
            name: column.metric.clone(),
            label: column.label.clone().unwrap_or_else(|| column.metric.clone()),
            digits: column.digits,
            better: column.better,
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
    if planner.diagnostics.is_empty() {
        Ok(PlannedTable { title: spec.title.clone(), columns, rows, deltas: spec.delta.clone() })
    } else {
        Err(planner.diagnostics)
    }
}

struct Planner<'a> {
    spec: &'a TableSpec,
    value: &'a Value,
    lookup: Lookup<'a>,
    /// Whether stages are wrong or missing.
    has_gaps: bool,
    diagnostics: Vec<Diagnostic>,
}

impl Planner<'_> {
    fn complain(&mut self, place: &[&str], message: impl Into<String>, help: Option<String>) {
        let place: Vec<String> = place.iter().map(|part| (*part).to_owned()).collect();
        let span = self.value.at(&place).map_or_else(|| self.value.span.clone(), |value| value.span.clone());
        self.diagnostics.push(Diagnostic::new(span, message).maybe_help(help));
    }

    fn check_average(&mut self) {
        let known = self.lookup.axis_names();
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
        let first = *self.lookup.nodes_of(stage).first()?;
        let outputs = &self.lookup.nodes[first].outputs;
        outputs
            .iter()
            .find(|output| output.columns.iter().any(|column| column == metric))
            .map(|output| output.name.as_str())
    }

    fn all_metrics(&self) -> Vec<String> {
        let mut metrics: Vec<String> = self
            .lookup
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
        let nodes = self.lookup.nodes_of(stage);
        let nothing = Assignment::new();
        let assignment = nodes.first().map_or(&nothing, |first| &self.lookup.nodes[*first].assignment);
        self.lookup.axis_named(assignment, name)
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
        let mut kinds = self.lookup.stages.values().map(|stage| stage.kind);
        if let Some(message) = kinds.find_map(|kind| kind.renamed().column(metric)) {
            return self.complain(&["columns", &position.to_string()], message, None);
        }
        let all = self.all_metrics();
        let help = nearest_or_all(metric, "columns that stages make", all.iter().map(String::as_str))
            .unwrap_or_else(|| "no stage declares numbers for a table".to_owned());
        let place = position.to_string();
        self.complain(&["columns", &place], format!("nothing makes column `{metric}`"), Some(help));
    }

    /// Finds the one stage that makes a metric and has all axes of the rows.
    fn maker_of(&mut self, position: usize, metric: &str) -> Option<(usize, Vec<usize>)> {
        let producers: Vec<usize> = (0..self.lookup.stage_count())
            .filter(|stage| self.output_with(*stage, metric).is_some())
            .collect();
        let place = position.to_string();
        if producers.is_empty() {
            self.nothing_makes(position, metric);
            return None;
        }
        let fitting: Vec<usize> = producers
            .iter()
            .copied()
            .filter(|stage| self.spec.rows.iter().all(|axis| self.axis(*stage, axis).is_some()))
            .collect();
        match fitting.as_slice() {
            [stage] => Some((*stage, self.lookup.nodes_of(*stage).to_vec())),
            [] => {
                if let [maker] = producers.as_slice() {
                    return Some((*maker, self.lookup.nodes_of(*maker).to_vec()));
                }
                for (row, axis) in self.spec.rows.iter().enumerate() {
                    if !producers.iter().any(|stage| self.axis(*stage, axis).is_some()) {
                        let known = self.lookup.axis_names();
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
                    several.iter().map(|stage| format!("`{}`", self.lookup.stage_name(*stage))).collect();
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
                    let message = format!("stage `{}` {problem}", self.lookup.stage_name(stage));
                    self.complain(&["rows", &position], message, help);
                    return Vec::new();
                }
            }
        }
        self.refuse_unaveraged(stage, nodes, &row_axes);
        let mut groups: Vec<(Vec<Option<usize>>, Vec<usize>)> = Vec::new();
        for node in nodes {
            let assignment = &self.lookup.nodes[*node].assignment;
            let of =
                |axis: &AxisId| assignment.iter().find(|(id, _)| id == axis).map(|(_, variant)| *variant);
            let place: Vec<Option<usize>> = row_axes.iter().map(of).collect();
            match groups.iter_mut().find(|(other, _)| *other == place) {
                Some((_, nodes)) => nodes.push(*node),
                None => groups.push((place, vec![*node])),
            }
        }
        // Rows stand in the order in which the axes declare their variants.
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        let label = |place: &[Option<usize>]| {
            if place.is_empty() {
                return self.lookup.stage_name(stage).to_owned();
            }
            let names = row_axes.iter().zip(place).map(|(axis, variant)| {
                variant.map_or("-", |variant| self.lookup.variant_name(*axis, variant))
            });
            names.collect::<Vec<_>>().join("/")
        };
        groups.iter().map(|(place, nodes)| (label(place), nodes.clone())).collect()
    }

    /// An axis that is neither a row nor averaged would silently mix different things.
    fn refuse_unaveraged(&mut self, stage: usize, nodes: &[usize], row_axes: &[AxisId]) {
        let mut left: Vec<AxisId> = Vec::new();
        for node in nodes {
            for (axis, _) in &self.lookup.nodes[*node].assignment {
                if !row_axes.contains(axis) && !left.contains(axis) {
                    left.push(*axis);
                }
            }
        }
        for axis in left {
            let name = self.lookup.axis_name(axis).to_owned();
            let varies = nodes
                .iter()
                .map(|node| self.lookup.nodes[*node].assignment.iter().find(|(id, _)| *id == axis))
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                > 1;
            let averaged = match &self.spec.average {
                Some(names) => names.contains(&name),
                None => self.lookup.is_seed_axis(axis),
            };
            if varies && !averaged {
                let message = format!(
                    "stage `{}` has the axis `{name}`, which is neither a row nor averaged",
                    self.lookup.stage_name(stage)
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
        let Some(stage) = self.lookup.stage_named(&reference.stage) else {
            let path: Vec<String> = place.iter().map(|part| (*part).to_owned()).collect();
            let span =
                self.value.at(&path).map_or_else(|| self.value.span.clone(), |value| value.span.clone());
            self.diagnostics.push(unknown_stage(&reference.stage, span, self.lookup.stages));
            return None;
        };
        match self.lookup.select(stage, &reference) {
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
        let mut sources = Vec::new();
        for from in &row.from.0 {
            let (stage, nodes) = self.stage_of(from, &["row", &at, "from"])?;
            if nodes.is_empty() {
                // The stage itself is wrong, and has been reported.
                return None;
            }
            self.refuse_unaveraged_row(stage, &nodes, &at);
            sources.push((stage, nodes));
        }
        let mut cells = Vec::new();
        for column in &self.spec.columns {
            let made = sources
                .iter()
                .find_map(|(stage, nodes)| Some((nodes, self.output_with(*stage, &column.metric)?)));
            let Some((nodes, output)) = made else {
                self.row_makes_no(&sources, &column.metric, &at);
                return None;
            };
            cells.push(nodes.iter().map(|node| (*node, output.to_owned())).collect());
        }
        let published = row.published.clone().unwrap_or_else(|| row.label.clone());
        Some(PlannedRow { label: row.label.clone(), published, cells })
    }

    fn row_makes_no(&mut self, sources: &[(usize, Vec<usize>)], metric: &str, at: &str) {
        let names: Vec<String> =
            sources.iter().map(|(stage, _)| format!("`{}`", self.lookup.stage_name(*stage))).collect();
        let message = match names.as_slice() {
            [name] => format!("stage {name} makes no column `{metric}`"),
            _ => format!("stages {} make no column `{metric}`", names.join(" and ")),
        };
        let made: Vec<String> = sources
            .iter()
            .flat_map(|(_, nodes)| &self.lookup.nodes[nodes[0]].outputs)
            .flat_map(|output| output.columns.clone())
            .collect();
        let help = nearest_or_all(metric, "it makes", made.iter().map(String::as_str))
            .or_else(|| Some("it makes no numbers for tables".to_owned()));
        self.complain(&["row", at, "from"], message, help);
    }

    fn refuse_unaveraged_row(&mut self, stage: usize, nodes: &[usize], at: &str) {
        let first: &Assignment = &self.lookup.nodes[nodes[0]].assignment;
        let varying = first.iter().map(|(axis, _)| *axis).find(|axis| {
            let averaged = match &self.spec.average {
                Some(names) => names.iter().any(|name| name == self.lookup.axis_name(*axis)),
                None => self.lookup.is_seed_axis(*axis),
            };
            let variant =
                |node: &usize| self.lookup.nodes[*node].assignment.iter().find(|(id, _)| id == axis).copied();
            !averaged && nodes.iter().any(|node| variant(node) != variant(&nodes[0]))
        });
        if let Some(axis) = varying {
            let (stage, axis) =
                (self.lookup.stage_name(stage).to_owned(), self.lookup.axis_name(axis).to_owned());
            let message = format!("stage `{stage}` has the axis `{axis}`, and a row is one of its variants");
            let help = format!("write `{stage}[{axis}=…]`, or add \"{axis}\" to `average`");
            self.complain(&["row", at, "from"], message, Some(help));
        }
    }

    fn check_deltas(&mut self, rows: &[PlannedRow]) {
        if !self.diagnostics.is_empty() || self.has_gaps {
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
