//! What people read of a table: rounded text per cell, and the lines that explain it.
//!
//! `text` and `markdown` share it, so that they cannot round or number differently.

use std::collections::BTreeMap;

use crate::table::cells::{Better, Cell, CellValue, Column, Delta, DeltaCell, Row, RowOrigin, Table};
use crate::table::normalize::normalize;
use crate::table::number::{decimals, digits_for, number, signed};

/// Is a table as people read it.
pub(crate) struct FormattedTable {
    pub title: String,
    pub heads: Vec<String>,
    pub rows: Vec<FormattedRow>,
    pub deltas: Vec<FormattedDelta>,
    pub legend: Vec<String>,
    pub footnotes: Vec<Footnote>,
    pub delta_legend: Vec<String>,
    pub notes: Vec<String>,
}

pub(crate) struct FormattedRow {
    pub label: String,
    pub cells: Vec<FormattedCell>,
}

/// Is one cell; either half may be empty, never both.
pub(crate) struct FormattedCell {
    pub ours: String,
    /// Is the number of the footnote that says why the cell is empty, or how its number differs.
    pub footnote: Option<usize>,
    /// Is the published number, in its brackets.
    pub published: String,
}

pub(crate) struct FormattedDelta {
    pub label: String,
    pub lines: Vec<FormattedDeltaLine>,
}

pub(crate) struct FormattedDeltaLine {
    pub source: &'static str,
    pub cells: Vec<FormattedDeltaCell>,
}

pub(crate) struct FormattedDeltaCell {
    pub number: String,
    pub verdict: Verdict,
}

/// Says whether a printed difference follows from the printed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Agrees,
    Disagrees,
}

pub(crate) struct Footnote {
    pub stage: Option<String>,
    pub reason: String,
}

/// Stands where there is nothing to show and nothing is wrong.
const NOTHING: &str = "–";
const MISSING: &str = "missing";

impl FormattedTable {
    pub(super) fn of(table: &Table) -> Self {
        let table = normalize(table);
        let digits: Vec<u8> = (0..table.columns.len()).map(|at| column_digits(&table, at)).collect();
        let spread = Spread::of(&table);
        let mut footnotes = Footnotes::default();
        let format_row = |row: &Row| FormattedRow {
            label: match row.origin {
                RowOrigin::Made { .. } => one_line(&row.label),
                RowOrigin::PublishedOnly => format!("{} (published only)", one_line(&row.label)),
            },
            cells: (row.cells.iter().zip(&digits))
                .map(|(cell, &digits)| format_cell(row, cell, (digits, spread), &mut footnotes))
                .collect(),
        };
        let rows = table.rows.iter().map(format_row).collect();
        let deltas = Deltas { table: &table, digits: &digits };
        Self {
            title: one_line(&table.title),
            heads: table.columns.iter().map(head).collect(),
            rows,
            deltas: deltas.format(),
            legend: legend(&table, spread),
            footnotes: footnotes.list,
            delta_legend: deltas.legend(),
            notes: table.notes.iter().map(|note| one_line(note)).collect(),
        }
    }
}

/// Returns the text without line breaks and control characters, which would break a table or
/// drive a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.trim().to_owned()
}

fn head(column: &Column) -> String {
    let label = one_line(&column.label);
    match column.better {
        Some(Better::Higher) => format!("{label} ↑"),
        Some(Better::Lower) => format!("{label} ↓"),
        None => label,
    }
}

fn column_digits(table: &Table, at: usize) -> u8 {
    if let Some(digits) = table.columns[at].digits {
        return digits;
    }
    let mut values = Vec::new();
    for cell in table.rows.iter().map(|row| &row.cells[at]) {
        match cell.value {
            CellValue::Number(value) => values.push(value),
            CellValue::Mean { mean, std, .. } => values.extend([mean, std]),
            CellValue::Absent { .. } | CellValue::Missing { .. } => {}
        }
        values.extend(cell.published);
    }
    digits_for(&values)
}

/// Says what the reader is told about averages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    None,
    /// All averages are over as many numbers, so that one line can say so for all.
    Even(usize),
    Uneven,
}

impl Spread {
    fn of(table: &Table) -> Self {
        let cells = table.rows.iter().flat_map(|row| &row.cells);
        let mut counts = cells.filter_map(|cell| match cell.value {
            CellValue::Mean { n, .. } => Some(n),
            CellValue::Number(_) | CellValue::Absent { .. } | CellValue::Missing { .. } => None,
        });
        match counts.next() {
            None => Self::None,
            Some(first) if counts.all(|n| n == first) => Self::Even(first),
            Some(_) => Self::Uneven,
        }
    }
}

#[derive(Default)]
struct Footnotes {
    list: Vec<Footnote>,
    seen: BTreeMap<(Option<String>, String), usize>,
}

impl Footnotes {
    /// Returns the number of the footnote; the same stage and reason share one.
    fn number(&mut self, stage: Option<&str>, reason: &str) -> usize {
        let (stage, reason) = (stage.map(one_line), one_line(reason));
        *self.seen.entry((stage.clone(), reason.clone())).or_insert_with(|| {
            self.list.push(Footnote { stage, reason });
            self.list.len()
        })
    }
}

fn format_cell(row: &Row, cell: &Cell, style: (u8, Spread), footnotes: &mut Footnotes) -> FormattedCell {
    let (digits, spread) = style;
    let shown = |value: f64| number(value, Some(digits));
    let published = cell.published.map(|value| format!("({})", shown(value))).unwrap_or_default();
    // A number whose definition is another than that of the first row.
    let mut differs = || cell.differs.as_ref().map(|differs| footnotes.number(cell.blamed(row), differs));
    let (ours, footnote) = match &cell.value {
        CellValue::Number(value) => (shown(*value), differs()),
        CellValue::Mean { mean, std, n } => {
            let text = format!("{} ± {}", shown(*mean), shown(*std));
            let counted = spread == Spread::Uneven;
            (if counted { format!("{text} (n={n})") } else { text }, differs())
        }
        CellValue::Absent { reason } => (NOTHING.to_owned(), Some(footnotes.number(None, reason))),
        // Nothing failed: the experiment never meant to make this cell.
        CellValue::Missing { .. } if row.origin == RowOrigin::PublishedOnly => {
            let blank = if published.is_empty() { NOTHING } else { "" };
            (blank.to_owned(), None)
        }
        CellValue::Missing { reason } => {
            (MISSING.to_owned(), Some(footnotes.number(cell.blamed(row), reason)))
        }
    };
    FormattedCell { ours, footnote, published }
}

fn legend(table: &Table, spread: Spread) -> Vec<String> {
    let mut lines = Vec::new();
    let mut cells = table.rows.iter().flat_map(|row| &row.cells);
    if cells.any(|cell| cell.published.is_some()) {
        lines.push("in brackets: published".to_owned());
    }
    if table.rows.iter().any(|row| row.origin == RowOrigin::PublishedOnly) {
        lines.push("published only: no stage of this experiment makes the row".to_owned());
    }
    match spread {
        Spread::None => {}
        Spread::Even(n) => lines.push(format!("±: standard deviation, n = {n}")),
        Spread::Uneven => lines.push("±: standard deviation of n numbers".to_owned()),
    }
    let better = |way| table.columns.iter().any(|column| column.better == Some(way));
    match (better(Better::Higher), better(Better::Lower)) {
        (true, true) => lines.push("↑ higher is better, ↓ lower is better".to_owned()),
        (true, false) => lines.push("↑ higher is better".to_owned()),
        (false, true) => lines.push("↓ lower is better".to_owned()),
        (false, false) => {}
    }
    lines
}

/// Renders the differences of a normalized table, all in the unit of the rows above them.
struct Deltas<'a> {
    table: &'a Table,
    digits: &'a [u8],
}

impl Deltas<'_> {
    fn format(&self) -> Vec<FormattedDelta> {
        let digits: Vec<u8> = (0..self.digits.len()).map(|at| self.column_digits(at)).collect();
        let any = |pick: fn(&DeltaCell) -> Option<f64>| {
            let mut cells = self.table.deltas.iter().flat_map(|delta| &delta.cells);
            cells.any(|cell| pick(cell).is_some())
        };
        let (published, printed) = (any(|cell| cell.published), any(|cell| cell.printed));
        let format_delta = |delta: &Delta| {
            let line = |source, text: &dyn Fn(usize, &DeltaCell) -> FormattedDeltaCell| FormattedDeltaLine {
                source,
                cells: delta.cells.iter().enumerate().map(|(at, cell)| text(at, cell)).collect(),
            };
            let plain = |value: Option<f64>, digits: u8, absent: &str| FormattedDeltaCell {
                number: value.map_or_else(|| absent.to_owned(), |value| signed(value, digits)),
                verdict: Verdict::Agrees,
            };
            let mut lines = vec![line("ours", &|at, cell| {
                plain(cell.ours, digits[at], if cell.is_absent { NOTHING } else { MISSING })
            })];
            if published {
                lines.push(line("published", &|at, cell| plain(cell.published, digits[at], NOTHING)));
            }
            if printed {
                lines.push(line("printed", &|at, cell| FormattedDeltaCell {
                    verdict: self.verdict(at, cell),
                    ..plain(in_metric_unit(cell), digits[at], NOTHING)
                }));
            }
            FormattedDelta { label: one_line(&delta.label), lines }
        };
        self.table.deltas.iter().map(format_delta).collect()
    }

    /// Returns decimals enough for the rows and for what the paper prints: a printed number that
    /// is rounded again would no longer be the printed number.
    fn column_digits(&self, at: usize) -> u8 {
        let cells = self.table.deltas.iter().map(|delta| &delta.cells[at]);
        let printed = cells.clone().filter_map(|cell| {
            let zeros = cell.printed_scale.log10().round().clamp(0.0, 9.0) as u8;
            cell.printed.map(|value| decimals(value) + zeros)
        });
        let computed = if self.has_numbers(at) {
            self.digits[at]
        } else {
            // The rows say nothing about decimals, so the differences must.
            let values = cells.flat_map(|cell| [cell.ours, cell.published]);
            digits_for(&values.flatten().collect::<Vec<_>>())
        };
        printed.fold(computed, u8::max)
    }

    fn has_numbers(&self, at: usize) -> bool {
        let mut cells = self.table.rows.iter().map(|row| &row.cells[at]);
        self.table.columns[at].digits.is_some()
            || cells.any(|cell| {
                let is_empty = matches!(cell.value, CellValue::Missing { .. } | CellValue::Absent { .. });
                cell.published.is_some() || !is_empty
            })
    }

    /// Returns whether rounding alone can explain a printed difference: half of its own last
    /// place, and half of the last place of each of the two rows.
    fn verdict(&self, at: usize, cell: &DeltaCell) -> Verdict {
        let (Some(recomputed), Some(printed)) = (cell.published, in_metric_unit(cell)) else {
            return Verdict::Agrees;
        };
        let own = 0.5 * 10_f64.powi(-i32::from(cell.printed.map_or(0, decimals))) / cell.printed_scale;
        let slack = own + 10_f64.powi(-i32::from(self.published_decimals(at)));
        if (printed - recomputed).abs() > slack + 1e-9 * recomputed.abs().max(1.0) {
            Verdict::Disagrees
        } else {
            Verdict::Agrees
        }
    }

    /// Returns the decimals of the published rows. A trailing zero does not survive in a number,
    /// so that the longest speaks for the column.
    fn published_decimals(&self, at: usize) -> u8 {
        let cells = self.table.rows.iter().filter_map(|row| row.cells[at].published);
        cells.map(decimals).max().unwrap_or(self.digits[at])
    }

    fn legend(&self) -> Vec<String> {
        let formatted = self.format();
        let lines = || formatted.iter().flat_map(|delta| &delta.lines);
        let source = |name: &str| lines().any(|line| line.source == name);
        let mut legend = Vec::new();
        if source("published") {
            legend.push("published: recomputed from the published rows".to_owned());
        }
        if source("printed") {
            legend.push("printed: as the paper prints it, in the unit of the rows".to_owned());
        }
        let mut cells = lines().flat_map(|line| &line.cells);
        if cells.any(|cell| cell.verdict == Verdict::Disagrees) {
            let doubt = "! does not follow from the published rows, even allowing for rounding";
            legend.push(doubt.to_owned());
        }
        legend
    }
}

fn in_metric_unit(cell: &DeltaCell) -> Option<f64> {
    cell.printed.map(|printed| printed / cell.printed_scale)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::table::cells::Provenance;

    pub(crate) fn table(columns: Vec<Column>, rows: Vec<Row>) -> Table {
        Table { name: None, title: "A table".into(), columns, rows, deltas: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn column(name: &str) -> Column {
        Column { name: name.into(), label: name.into(), digits: None, better: None }
    }

    pub(crate) fn made(label: &str, cells: Vec<Cell>) -> Row {
        Row { label: label.into(), origin: RowOrigin::Made { stage: format!("scores[{label}]") }, cells }
    }

    pub(crate) fn published_only(label: &str, published: Vec<Option<f64>>) -> Row {
        let missing = || CellValue::Missing { reason: "no stage".into() };
        let cells = published.into_iter().map(|published| Cell { published, ..cell(missing(), None) });
        Row { label: label.into(), origin: RowOrigin::PublishedOnly, cells: cells.collect() }
    }

    pub(crate) fn cell(value: CellValue, published: Option<f64>) -> Cell {
        let provenance = Provenance {
            stage: "scores".into(),
            artifact: "c0ffee".into(),
            path: "metrics.json#accuracy".into(),
        };
        Cell { value, published, provenance: vec![provenance], definition: None, differs: None }
    }

    pub(crate) fn failed(reason: &str) -> Cell {
        let value = CellValue::Missing { reason: reason.into() };
        Cell { provenance: Vec::new(), ..cell(value, None) }
    }

    pub(crate) fn numbers(ours: &[f64], published: &[f64]) -> Vec<Cell> {
        let pairs = ours.iter().zip(published);
        pairs.map(|(&ours, &published)| cell(CellValue::Number(ours), Some(published))).collect()
    }

    /// Returns a table with everything in it: averages, gaps, published rows and differences.
    pub(crate) fn full() -> Table {
        let mean = |mean, std, n| CellValue::Mean { mean, std, n };
        let better = |column, better| Column { better: Some(better), ..column };
        let mut table = table(
            vec![
                Column { label: "Accuracy".into(), ..better(column("accuracy"), Better::Higher) },
                Column { label: "Error".into(), ..better(column("error"), Better::Lower) },
                Column { label: "Items".into(), ..column("items") },
            ],
            vec![
                made(
                    "left",
                    vec![
                        cell(mean(0.4123, 0.0213, 3), Some(0.53)),
                        cell(CellValue::Number(186.994), Some(42.4)),
                        cell(CellValue::Number(3300.0), None),
                    ],
                ),
                made(
                    "right|wing",
                    vec![
                        cell(mean(0.5, 0.1, 3), Some(0.45)),
                        Cell { published: Some(9.5), ..failed("out of memory\nat step 3") },
                        failed("out of memory\nat step 3"),
                    ],
                ),
                published_only("Älter", vec![Some(0.3), Some(66.16), None]),
            ],
        );
        let delta = |ours, published, printed, printed_scale| DeltaCell {
            ours,
            is_absent: false,
            published,
            printed,
            printed_scale,
        };
        table.deltas = vec![Delta {
            label: "left - Älter".into(),
            cells: vec![
                delta(Some(0.1123), Some(0.23), Some(28.0), 100.0),
                delta(None, Some(-23.76), Some(-23.76), 1.0),
                delta(None, None, None, 1.0),
            ],
        }];
        table.notes = vec!["Made with the profile `mini`; not the paper's numbers.".into()];
        table
    }

    fn verdict_of(published: f64, printed: f64, scale: f64) -> Verdict {
        let rows = vec![published_only("a", vec![Some(0.53)])];
        let table = table(vec![column("accuracy")], rows);
        let cell = DeltaCell {
            ours: None,
            is_absent: false,
            published: Some(published),
            printed: Some(printed),
            printed_scale: scale,
        };
        Deltas { table: &table, digits: &[2] }.verdict(0, &cell)
    }

    #[test]
    fn rounding_explains_a_last_place() {
        // Two rows of two decimals and a whole percentage point: 0.015 in all.
        assert_eq!(verdict_of(0.45 - 0.19, 27.0, 100.0), Verdict::Agrees);
        assert_eq!(verdict_of(0.62 - 0.42, 20.0, 100.0), Verdict::Agrees);
        // 51 is 50.78 without its decimals.
        assert_eq!(verdict_of(93.18 - 42.40, 51.0, 1.0), Verdict::Agrees);
    }

    #[test]
    fn rounding_does_not_explain_more() {
        assert_eq!(verdict_of(0.45 - 0.30, 19.0, 100.0), Verdict::Disagrees);
        assert_eq!(verdict_of(1.00 - 0.57, 41.0, 100.0), Verdict::Disagrees);
        assert_eq!(verdict_of(0.42 - 0.99, 58.0, 100.0), Verdict::Disagrees);
        assert_eq!(verdict_of(44.01 - 66.16, -22.40, 1.0), Verdict::Disagrees);
        assert_eq!(verdict_of(11.22 - 4.19, 5.0, 1.0), Verdict::Disagrees);
    }

    #[test]
    fn one_reason_is_one_footnote() {
        let formatted = FormattedTable::of(&full());
        assert_eq!(formatted.footnotes.len(), 1);
        assert_eq!(formatted.footnotes[0].reason, "out of memory at step 3");
        assert_eq!(formatted.rows[1].cells[2].footnote, Some(1));
    }

    #[test]
    fn another_definition_is_marked_and_an_absent_number_is_no_failure() {
        let number = |number| cell(CellValue::Number(number), None);
        let other = Cell { differs: Some("words, where the first row has pieces".into()), ..number(0.4) };
        let absent = CellValue::Absent { reason: "stage `b` has no such column".into() };
        let rows =
            vec![made("a", vec![number(0.5), number(1.0)]), made("b", vec![other, cell(absent, None)])];
        let formatted = FormattedTable::of(&table(vec![column("x"), column("y")], rows));
        let cells = &formatted.rows[1].cells;
        assert_eq!((cells[0].ours.as_str(), cells[0].footnote), ("0.40", Some(1)));
        assert_eq!((cells[1].ours.as_str(), cells[1].footnote), (NOTHING, Some(2)));
        assert_eq!(formatted.footnotes[0].reason, "words, where the first row has pieces");
    }

    #[test]
    fn uneven_averages_are_counted_one_by_one() {
        let mean = |n| cell(CellValue::Mean { mean: 0.5, std: 0.1, n }, None);
        let rows = vec![made("a", vec![mean(3)]), made("b", vec![mean(2)])];
        let formatted = FormattedTable::of(&table(vec![column("accuracy")], rows));
        assert_eq!(formatted.rows[1].cells[0].ours, "0.50 ± 0.10 (n=2)");
        assert_eq!(formatted.legend, ["±: standard deviation of n numbers"]);
    }

    #[test]
    fn no_cell_is_blank() {
        let formatted = FormattedTable::of(&full());
        for cell in formatted.rows.iter().flat_map(|row| &row.cells) {
            assert!(!(cell.ours.is_empty() && cell.published.is_empty()));
        }
    }
}
