//! Differences between rows by name: `slerp/cpo - expert`.

use crate::experiment::table_layers::Part;
use crate::experiment::table_spec::{DeltaSpec, TableSpec};
use crate::plan::table::planned::PlannedDelta;
use crate::plan::table::rows::{DraftRow, is_within};
use crate::toml::diagnostic::{Diagnostic, nearest_or_all};
use crate::toml::source_map::Span;
use crate::toml::value::Spanned;

/// What stands between the names of two rows.
pub(crate) const MINUS: &str = " - ";

/// Plans the differences of a table.
pub(crate) fn plan_deltas(
    spec: &TableSpec,
    rows: &[DraftRow],
    removed_rows: &[String],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<PlannedDelta> {
    let mut deltas = Vec::new();
    for delta in &spec.deltas {
        match names_of(delta, rows) {
            Ok(names) => deltas.extend(plan_delta(delta, names, (rows, removed_rows, spec), diagnostics)),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    deltas
}

type Named<'a> = (&'a str, &'a Span);

/// Returns the names of the two rows, and where they are written.
fn names_of<'a>(delta: &'a DeltaSpec, rows: &[DraftRow]) -> Result<[Named<'a>; 2], Diagnostic> {
    let written = |spanned: &'a Spanned| (spanned.text.as_str(), &spanned.span);
    let (row, minus) = (delta.row.as_ref().map(written), delta.minus.as_ref().map(written));
    if let (Some(row), Some(minus)) = (row, minus) {
        return Ok([row, minus]);
    }
    let name = &delta.name;
    let splits: Vec<(&str, &str)> = name
        .text
        .match_indices(MINUS)
        .map(|(at, _)| (&name.text[..at], &name.text[at + MINUS.len()..]))
        .collect();
    let is_row = |label: &str| rows.iter().any(|row| row.base == label || row.label == label);
    let fitting = splits.iter().find(|(row, minus)| is_row(row) && is_row(minus)).or(splits.first());
    let Some((of_row, of_minus)) = fitting else {
        let message = format!("delta `{}` does not say which rows it is of", name.text);
        return Err(Diagnostic::new(name.span.clone(), message)
            .help("name it `ROW - OTHER`, or give it `row` and `minus`"));
    };
    Ok([row.unwrap_or((of_row, &name.span)), minus.unwrap_or((of_minus, &name.span))])
}

/// Plans one difference: of two rows, or of the rows that further axes have made of them.
fn plan_delta(
    delta: &DeltaSpec,
    names: [Named<'_>; 2],
    (rows, removed_rows, spec): (&[DraftRow], &[String], &TableSpec),
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<PlannedDelta> {
    let mut positions = [Vec::new(), Vec::new()];
    for ((name, span), positions) in names.iter().zip(&mut positions) {
        *positions = rows_named(name, rows);
        if positions.is_empty() {
            let is_removed = removed_rows.iter().any(|row| row == name)
                || spec.removed.iter().any(|removed| removed.part == Part::Rows && removed.name == *name);
            if !is_removed {
                let help = nearest_or_all(name, "rows", rows.iter().map(|row| row.label.as_str()));
                let message = format!("the table has no row `{name}`");
                diagnostics.push(Diagnostic::new((*span).clone(), message).maybe_help(help));
            }
            return Vec::new();
        }
    }
    let mut deltas = Vec::new();
    for row in &positions[0] {
        for minus in &positions[1] {
            let (of_row, of_minus) = (&rows[*row].suffix, &rows[*minus].suffix);
            let longer = if of_row.len() < of_minus.len() { of_minus } else { of_row };
            if !(is_within(of_row, longer) && is_within(of_minus, longer)) {
                continue;
            }
            let is_one = positions.iter().all(|positions| positions.len() == 1);
            let axes: String = longer
                .iter()
                .filter(|_| !is_one)
                .map(|(axis, variant)| format!(", {axis}={variant}"))
                .collect();
            deltas.push(PlannedDelta {
                label: format!("{}{axes}", delta.name.text),
                row: *row,
                minus: *minus,
                printed: delta
                    .printed
                    .clone()
                    .unwrap_or_else(|| format!("{}{MINUS}{}", names[0].0, names[1].0)),
            });
        }
    }
    deltas
}

/// Returns the row of a label, or the rows that further axes have made of it.
fn rows_named(name: &str, rows: &[DraftRow]) -> Vec<usize> {
    let with = |is_named: &dyn Fn(&DraftRow) -> bool| -> Vec<usize> {
        (0..rows.len()).filter(|at| is_named(&rows[*at])).collect()
    };
    let by_label = with(&|row| row.label == name);
    if by_label.is_empty() { with(&|row| row.base == name) } else { by_label }
}
