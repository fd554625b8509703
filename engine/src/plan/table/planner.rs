//! Plans a table: its rows, its columns, and which nodes fill the cells between them.

use crate::experiment::table_spec::TableDeclaration;
use crate::plan::lookup::Lookup;
use crate::plan::table::cells::plan_cells;
use crate::plan::table::columns::plan_columns;
use crate::plan::table::comparable::{Paths, comparability};
use crate::plan::table::deltas::plan_deltas;
use crate::plan::table::planned::PlannedTable;
use crate::plan::table::published::{Shown, check_published};
use crate::plan::table::rows::{plan_rows, removed_rows};
use crate::toml::diagnostic::Diagnostic;

/// Finds out which nodes fill which cells.
///
/// # Errors
/// What is wrong with the table, or with its published numbers.
pub(crate) fn plan_table(
    declaration: &TableDeclaration,
    lookup: Lookup<'_>,
    paths: Paths<'_>,
) -> Result<PlannedTable, Vec<Diagnostic>> {
    let TableDeclaration { name, spec, published } = declaration;
    let mut diagnostics = Vec::new();
    let drafts = plan_rows(spec, lookup, paths.sources, &mut diagnostics);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let columns = plan_columns(spec, &drafts, lookup, &mut diagnostics);
    let rows = plan_cells(&drafts, &columns, lookup, &mut diagnostics);
    let removed_rows = removed_rows(spec, lookup);
    let deltas = plan_deltas(spec, &drafts, &removed_rows, &mut diagnostics);
    let comparability = comparability(spec, lookup, paths, &mut diagnostics);
    if diagnostics.is_empty() {
        let shown = Shown { rows: &drafts, columns: &columns, deltas: &deltas, removed_rows: &removed_rows };
        check_published(spec, published.as_ref(), &shown, &mut diagnostics);
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let title = spec.title.clone();
    Ok(PlannedTable { name: name.clone(), title, columns, rows, deltas, comparability })
}
