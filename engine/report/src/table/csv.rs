//! The table as CSV: one line per row, full precision, quoted as RFC 4180 says.

use crate::table::cells::{Cell, CellValue, Column, Row, RowOrigin, Table};
use crate::table::normalize::normalize;

/// Returns the table as CSV with a header, one line per row.
///
/// Each column gives `<name>` and `<name>_published`, and `<name>_std` and `<name>_n` where any cell
/// of the table is an average. The last field, `missing`, holds the reasons for empty ones; before
/// it stands `definition` where numbers are computed otherwise than those of the first row. Text
/// that a spreadsheet would run as a formula is left as it is: this is for programs.
pub fn csv(table: &Table) -> String {
    let table = normalize(table);
    let averaged = Averaged::of(&table);
    let mut out = String::new();
    let columns = table.columns.iter().flat_map(|column| averaged.names(column));
    let has_definitions = table.rows.iter().flat_map(|row| &row.cells).any(|cell| cell.differs.is_some());
    let last = |definition: String, missing: String| {
        if has_definitions { vec![definition, missing] } else { vec![missing] }
    };
    let names = last("definition".to_owned(), "missing".to_owned());
    line(&mut out, [vec!["label".to_owned()], columns.collect(), names]);
    for row in &table.rows {
        let cells = row.cells.iter().flat_map(|cell| averaged.fields(cell));
        let last = last(definition(&table, row), missing(&table, row));
        line(&mut out, [vec![row.label.clone()], cells.collect(), last]);
    }
    out
}

/// Says whether the fields of averages are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Averaged {
    Somewhere,
    Nowhere,
}

impl Averaged {
    fn of(table: &Table) -> Self {
        let mut cells = table.rows.iter().flat_map(|row| &row.cells);
        if cells.any(|cell| matches!(cell.value, CellValue::Mean { .. })) {
            Self::Somewhere
        } else {
            Self::Nowhere
        }
    }

    fn names(self, column: &Column) -> Vec<String> {
        let name = &column.name;
        let mut names = vec![name.clone(), format!("{name}_published")];
        if self == Self::Somewhere {
            names.extend([format!("{name}_std"), format!("{name}_n")]);
        }
        names
    }

    fn fields(self, cell: &Cell) -> Vec<String> {
        let (value, std, n) = match cell.value {
            CellValue::Number(value) => (exact(value), String::new(), String::new()),
            CellValue::Mean { mean, std, n } => (exact(mean), exact(std), n.to_string()),
            CellValue::Absent { .. } | CellValue::Missing { .. } => Default::default(),
        };
        let mut fields = vec![value, cell.published.map(exact).unwrap_or_default()];
        if self == Self::Somewhere {
            fields.extend([std, n]);
        }
        fields
    }
}

/// Returns the shortest text that reads back as the same number.
fn exact(value: f64) -> String {
    format!("{value:?}")
}

fn missing(table: &Table, row: &Row) -> String {
    if row.origin == RowOrigin::PublishedOnly {
        return "published only".to_owned();
    }
    let reasons = table.columns.iter().zip(&row.cells).filter_map(|(column, cell)| {
        match (&cell.value, cell.blamed(row)) {
            (CellValue::Missing { reason }, Some(stage)) => {
                Some(format!("{}: {stage}: {reason}", column.name))
            }
            (CellValue::Missing { reason } | CellValue::Absent { reason }, _) => {
                Some(format!("{}: {reason}", column.name))
            }
            _ => None,
        }
    });
    reasons.collect::<Vec<_>>().join("; ")
}

fn definition(table: &Table, row: &Row) -> String {
    let differences = table
        .columns
        .iter()
        .zip(&row.cells)
        .filter_map(|(column, cell)| Some(format!("{}: {}", column.name, cell.differs.as_ref()?)));
    differences.collect::<Vec<_>>().join("; ")
}

fn line(out: &mut String, groups: [Vec<String>; 3]) {
    for (at, field) in groups.iter().flatten().enumerate() {
        if at > 0 {
            out.push(',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(field);
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::formatted::tests::{cell, column, failed, made, published_only, table};
    use insta::assert_snapshot;

    #[test]
    fn numbers_are_exact_and_gaps_explained() {
        let columns = vec![column("accuracy"), column("error")];
        let rows = vec![
            made("a", vec![cell(CellValue::Number(0.1 + 0.2), Some(0.3)), failed("out of memory")]),
            published_only("old, \"b\"", vec![Some(0.5), None]),
        ];
        assert_snapshot!(csv(&table(columns, rows)), @r#"
        label,accuracy,accuracy_published,error,error_published,missing
        a,0.30000000000000004,0.3,,,error: scores[a]: out of memory
        "old, ""b""",,0.5,,,published only
        "#);
    }

    #[test]
    fn other_definitions_have_a_field() {
        let mut other = cell(CellValue::Number(2.0), None);
        other.differs = Some("words, not pieces".into());
        let absent = cell(CellValue::Absent { reason: "no such column".into() }, None);
        let rows = vec![made("a", vec![cell(CellValue::Number(1.0), None), absent]), made("b", vec![other])];
        assert_snapshot!(csv(&table(vec![column("x"), column("y")], rows)), @r#"
        label,x,x_published,y,y_published,definition,missing
        a,1.0,,,,,y: no such column
        b,2.0,,,,"x: words, not pieces",y: scores[b]: no value was given
        "#);
    }

    #[test]
    fn averages_add_their_fields() {
        let mean = CellValue::Mean { mean: 0.5, std: 0.125, n: 3 };
        let rows = vec![made("a", vec![cell(mean, None), cell(CellValue::Number(2.0), Some(1e-7))])];
        assert_snapshot!(csv(&table(vec![column("accuracy"), column("error")], rows)), @"
        label,accuracy,accuracy_published,accuracy_std,accuracy_n,error,error_published,error_std,error_n,missing
        a,0.5,,0.125,3,2.0,1e-7,,,
        ");
    }
}
