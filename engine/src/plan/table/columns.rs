//! The columns of a table: those that it lists, or those that its rows' stages declare.

use crate::experiment::table_layers::Part;
use crate::experiment::table_spec::{ColumnSpec, TableSpec};
use crate::kind::output_column::OutputColumn;
use crate::plan::lookup::Lookup;
use crate::plan::node::Node;
use crate::plan::table::planned::Column;
use crate::plan::table::rows::DraftRow;
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};

/// Plans the columns of a table.
pub(crate) fn plan_columns(
    spec: &TableSpec,
    rows: &[DraftRow],
    lookup: Lookup<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Column> {
    let declared = declared(rows, lookup);
    let column = |written: &ColumnSpec, diagnostics: &mut Vec<Diagnostic>| {
        let name = &written.metric.text;
        match declared.iter().find(|column| column.name == *name) {
            Some(column) => Some(shown(column, Some(written))),
            None => {
                diagnostics.push(nothing_makes(written, &declared, lookup));
                None
            }
        }
    };
    if let Some(list) = &spec.columns.list {
        return list.iter().filter_map(|written| column(written, diagnostics)).collect();
    }
    let mut columns: Vec<Column> =
        declared.iter().filter(|column| column.is_default).map(|column| shown(column, None)).collect();
    for removed in spec.removed.iter().filter(|removed| removed.part == Part::Columns) {
        let count = columns.len();
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        columns.retain(|column| column.name != removed.name);
        if columns.len() == count && removed.is_pending {
            let message = format!("there is no column `{}` to remove", removed.name);
            let help = nearest_or_all(&removed.name, "columns", names.iter().map(String::as_str));
            diagnostics.push(
                Diagnostic::new(removed.span.clone(), message).label("removes nothing").maybe_help(help),
            );
        }
    }
    for written in &spec.columns.more {
        let Some(column) = column(written, diagnostics) else { continue };
        match columns.iter_mut().find(|other| other.name == column.name) {
            Some(other) => *other = column,
            None => columns.push(column),
        }
    }
    let has_made_rows = rows.iter().any(|row| !row.sources.is_empty());
    if columns.is_empty() && has_made_rows && diagnostics.is_empty() {
        let help = "name at least one: these are shown by name only, or there are none";
        let all = nearest_or_all("", "the rows' stages make", declared.iter().map(|column| &*column.name));
        diagnostics.push(
            Diagnostic::new(spec.span.clone(), "the table has no columns")
                .help(all.unwrap_or_else(|| help.to_owned())),
        );
    }
    columns
}

/// Returns all columns that the rows' stages declare, each once, in the order of the rows.
fn declared<'a>(rows: &[DraftRow], lookup: Lookup<'a>) -> Vec<&'a OutputColumn> {
    let nodes = rows.iter().flat_map(|row| &row.sources).flat_map(|source| &source.nodes);
    let mut declared: Vec<&OutputColumn> = Vec::new();
    for output in nodes.flat_map(|node| &lookup.nodes[*node].outputs) {
        for column in &output.columns {
            if !declared.iter().any(|other| other.name == column.name) {
                declared.push(column);
            }
        }
    }
    declared
}

/// Returns a column as it is shown: what the table says of it, or else what its stage declares.
fn shown(declared: &OutputColumn, written: Option<&ColumnSpec>) -> Column {
    Column {
        name: declared.name.clone(),
        label: written.and_then(|written| written.label.clone()).unwrap_or_else(|| declared.label.clone()),
        digits: written.and_then(|written| written.digits).or(declared.digits),
        better: written.and_then(|written| written.better).or(declared.better),
    }
}

fn nothing_makes(written: &ColumnSpec, declared: &[&OutputColumn], lookup: Lookup<'_>) -> Diagnostic {
    let (name, span) = (&written.metric.text, written.metric.span.clone());
    let mut kinds = lookup.stages.values().map(|stage| stage.kind);
    if let Some(message) = kinds.find_map(|kind| kind.renamed().column(name)) {
        return Diagnostic::new(span, message);
    }
    let makes = |node: &&Node| {
        node.outputs.iter().flat_map(|output| &output.columns).any(|column| column.name == *name)
    };
    if let Some(node) = lookup.nodes.iter().find(makes) {
        let stage = lookup.stage_name(node.stage);
        return Diagnostic::new(span, format!("no row of the table makes column `{name}`"))
            .help(format!("stage `{stage}` makes it: name it in a row's `from`"));
    }
    let mut all: Vec<&str> = declared.iter().map(|column| column.name.as_str()).collect();
    if all.is_empty() {
        let outputs = lookup.nodes.iter().flat_map(|node| &node.outputs);
        all = outputs.flat_map(|output| &output.columns).map(|column| column.name.as_str()).collect();
    }
    all.sort_unstable();
    all.dedup();
    let help = nearest_or_all(name, "columns that stages make", all)
        .unwrap_or_else(|| "no stage declares numbers for a table".to_owned());
    Diagnostic::new(span, format!("nothing makes column `{name}`")).help(help)
}
