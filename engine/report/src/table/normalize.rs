//! The copy of a table that every rendering starts from.

use crate::table::cells::{Cell, CellValue, Delta, DeltaCell, Row, RowOrigin, Table};
use crate::table::number::NOT_A_NUMBER;

/// Returns the table with one cell per column in every row, and nothing in it that is not a number.
pub(crate) fn normalize(table: &Table) -> Table {
    let width = table.columns.len();
    Table {
        rows: table.rows.iter().map(|row| normalized_row(row, width)).collect(),
        deltas: table.deltas.iter().map(|delta| normalized_delta(delta, width)).collect(),
        ..table.clone()
    }
}

impl Cell {
    /// Returns the stage to name when the cell is missing.
    pub(crate) fn blamed<'a>(&'a self, row: &'a Row) -> Option<&'a str> {
        match (self.provenance.first(), &row.origin) {
            (Some(provenance), _) => Some(&provenance.stage),
            (None, RowOrigin::Made { stage }) => Some(stage),
            (None, RowOrigin::PublishedOnly) => None,
        }
    }
}

fn normalized_row(row: &Row, width: usize) -> Row {
    let absent = Cell {
        value: missing("no value was given"),
        published: None,
        provenance: Vec::new(),
        definition: None,
        differs: None,
    };
    Row {
        label: row.label.clone(),
        origin: row.origin.clone(),
        cells: (0..width)
            .map(|at| row.cells.get(at).map_or_else(|| absent.clone(), normalized_cell))
            .collect(),
    }
}

fn normalized_cell(cell: &Cell) -> Cell {
    Cell { value: normalized_value(&cell.value), published: finite(cell.published), ..cell.clone() }
}

fn normalized_value(value: &CellValue) -> CellValue {
    match value {
        CellValue::Number(number) if !number.is_finite() => missing(NOT_A_NUMBER),
        // One number has no spread; its mean is still a number.
        CellValue::Mean { mean, std, n: 1 } if mean.is_finite() && !std.is_finite() => {
            CellValue::Number(*mean)
        }
        CellValue::Mean { mean, std, .. } if !mean.is_finite() || !std.is_finite() => missing(NOT_A_NUMBER),
        CellValue::Missing { reason } if reason.trim().is_empty() => missing("no reason was given"),
        sound => sound.clone(),
    }
}

fn normalized_delta(delta: &Delta, width: usize) -> Delta {
    let absent =
        DeltaCell { ours: None, is_absent: false, published: None, printed: None, printed_scale: 1.0 };
    Delta {
        label: delta.label.clone(),
        cells: (0..width)
            .map(|at| delta.cells.get(at).map_or_else(|| absent.clone(), normalized_delta_cell))
            .collect(),
    }
}

fn normalized_delta_cell(cell: &DeltaCell) -> DeltaCell {
    let scale = cell.printed_scale;
    DeltaCell {
        ours: finite(cell.ours),
        is_absent: cell.is_absent,
        published: finite(cell.published),
        printed: finite(cell.printed),
        printed_scale: if scale.is_finite() && scale > 0.0 { scale } else { 1.0 },
    }
}

fn missing(reason: &str) -> CellValue {
    CellValue::Missing { reason: reason.to_owned() }
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_missing() {
        let not_a_number = missing(NOT_A_NUMBER);
        assert_eq!(normalized_value(&CellValue::Number(f64::NAN)), not_a_number);
        let spread = CellValue::Mean { mean: 1.0, std: f64::INFINITY, n: 3 };
        assert_eq!(normalized_value(&spread), not_a_number);
        let centre = CellValue::Mean { mean: f64::NAN, std: 0.0, n: 0 };
        assert_eq!(normalized_value(&centre), not_a_number);
    }

    #[test]
    fn a_mean_of_one_is_the_number() {
        let single = CellValue::Mean { mean: 0.5, std: f64::NAN, n: 1 };
        assert_eq!(normalized_value(&single), CellValue::Number(0.5));
    }

    #[test]
    fn rows_are_as_wide_as_the_table() {
        let origin = RowOrigin::Made { stage: "s".into() };
        let short = Row { label: "a".into(), origin, cells: Vec::new() };
        assert_eq!(normalized_row(&short, 2).cells.len(), 2);
        let delta = Delta { label: "d".into(), cells: Vec::new() };
        assert_eq!(normalized_delta(&delta, 2).cells.len(), 2);
    }
}
