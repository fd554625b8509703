//! The cells of a table: which nodes fill each, and by what they compute its number.

use cache::Value;

use crate::kind::output_column::{Definition, OutputColumn};
use crate::plan::lookup::Lookup;
use crate::plan::node::Node;
use crate::plan::table::planned::{Column, PlannedCell, PlannedRow};
use crate::plan::table::rows::{DraftRow, Source};
use crate::toml::diagnostic::Diagnostic;

/// Fills the rows of a table with cells.
pub(crate) fn plan_cells(
    rows: &[DraftRow],
    columns: &[Column],
    lookup: Lookup<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<PlannedRow> {
    let mut first: Vec<Option<Defined>> = vec![None; columns.len()];
    let mut planned = Vec::new();
    for row in rows {
        diagnostics.extend(without_numbers(row, lookup));
        let cells = columns.iter().zip(&mut first).filter(|_| !row.sources.is_empty());
        let cells = cells.map(|(column, first)| plan_cell(row, &column.name, first, lookup)).collect();
        planned.push(PlannedRow { label: row.label.clone(), published: row.published.clone(), cells });
    }
    planned
}

/// What the number of a node is defined by; `None` if its stage declares no definition.
#[derive(Debug, Clone, PartialEq)]
struct Defined<'a>(Option<(&'a Definition, Vec<Option<&'a Value>>)>);

fn plan_cell<'a>(
    row: &DraftRow,
    metric: &str,
    first: &mut Option<Defined<'a>>,
    lookup: Lookup<'a>,
) -> PlannedCell {
    let made = row.sources.iter().find_map(|source| {
        let columns = source.nodes.iter().map(|node| {
            let node_of = &lookup.nodes[*node];
            let (output, column) = output_with(node_of, metric)?;
            Some(((*node, output.to_owned()), defined(node_of, column)))
        });
        columns.collect::<Option<Vec<_>>>()
    });
    let Some(made) = made else {
        return PlannedCell::Absent { reason: no_such_column(&row.sources, lookup) };
    };
    let (nodes, definitions): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let reference = first.get_or_insert_with(|| definitions[0].clone());
    let other = definitions.iter().find(|definition| *definition != reference);
    let differs = other.map(|definition| definition.beside(reference));
    let definition = definitions[0].text().filter(|text| !text.is_empty());
    PlannedCell::Made { nodes, definition, differs }
}

impl Defined<'_> {
    /// Says how it differs from that of the first row.
    fn beside(&self, first: &Self) -> String {
        let (Some((here, here_files)), Some((there, there_files))) = (&self.0, &first.0) else {
            return match (self.text(), first.text()) {
                (None, Some(text)) if !text.is_empty() => {
                    format!("its stage declares no definition, where the first row has {text}")
                }
                (Some(text), None) if !text.is_empty() => {
                    format!("{text}, where the stage of the first row declares no definition")
                }
                _ => "only one of its stage and that of the first row declares a definition".to_owned(),
            };
        };
        let only = |of: &Definition, other: &Definition| {
            let parts = of.parts.iter().filter(|part| !other.parts.contains(part));
            parts.cloned().collect::<Vec<_>>().join(", ")
        };
        match (only(here, there), only(there, here)) {
            (here_only, there_only) if here_only.is_empty() && there_only.is_empty() => {
                let (text, here, there) = (here.parts.join(", "), paths(here_files), paths(there_files));
                format!("{text} ({here}), where the first row has {there}")
            }
            (here, there) if there.is_empty() => format!("{here}, unlike the first row"),
            (here, there) if here.is_empty() => format!("the first row has {there}, and this not"),
            (here, there) => format!("{here}, where the first row has {there}"),
        }
    }

    fn text(&self) -> Option<String> {
        self.0.as_ref().map(|(definition, _)| definition.parts.join(", "))
    }
}

fn paths(files: &[Option<&Value>]) -> String {
    let paths = files.iter().flatten().filter_map(|value| match value {
        Value::Path(path) | Value::NamedPath(path) => Some(path.as_str()),
        _ => None,
    });
    paths.collect::<Vec<_>>().join(", ")
}

fn defined<'a>(node: &'a Node, column: &'a OutputColumn) -> Defined<'a> {
    Defined(column.definition.as_ref().map(|definition| {
        let files = definition.files.iter().map(|path| value_at(&node.params, path));
        (definition, files.collect())
    }))
}

fn value_at<'a>(params: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(params, |value, name| match value {
        Value::Map(fields) => fields.get(name),
        _ => None,
    })
}

/// Returns the output of a node that has a column.
fn output_with<'a>(node: &'a Node, metric: &str) -> Option<(&'a str, &'a OutputColumn)> {
    node.outputs.iter().find_map(|output| {
        let column = output.columns.iter().find(|column| column.name == metric)?;
        Some((&*output.name, column))
    })
}

fn no_such_column(sources: &[Source], lookup: Lookup<'_>) -> String {
    match stage_names(sources, lookup).as_slice() {
        [name] => format!("stage {name} has no such column"),
        names => format!("stages {} have no such column", names.join(" and ")),
    }
}

fn stage_names(sources: &[Source], lookup: Lookup<'_>) -> Vec<String> {
    let mut names: Vec<String> =
        sources.iter().map(|source| format!("`{}`", lookup.stage_name(source.stage))).collect();
    names.dedup();
    names
}

/// Refuses a row whose stages make no number for any table.
fn without_numbers(row: &DraftRow, lookup: Lookup<'_>) -> Option<Diagnostic> {
    let nodes = row.sources.iter().flat_map(|source| &source.nodes);
    let has_columns =
        |node: &usize| lookup.nodes[*node].outputs.iter().any(|output| !output.columns.is_empty());
    if row.sources.is_empty() || nodes.clone().any(has_columns) {
        return None;
    }
    let message = match stage_names(&row.sources, lookup).as_slice() {
        [name] => format!("stage {name} makes no numbers for tables"),
        names => format!("stages {} make no numbers for tables", names.join(" and ")),
    };
    let help = "name a stage of kind `evaluate`, or a command that declares `columns`";
    Some(Diagnostic::new(row.span.clone(), message).help(help))
}
