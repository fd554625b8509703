//! The table for a terminal.

use crate::table::cells::Table;
use crate::table::formatted::{Footnote, FormattedCell, FormattedDeltaCell, FormattedTable, Verdict};

/// Returns the table as aligned columns, our number first and the published one in brackets.
///
/// Columns that do not fit in `width` go into further blocks below, each with the row labels.
pub fn text(table: &Table, width: Option<usize>) -> String {
    let formatted = FormattedTable::of(table);
    let mut page = Page { out: String::new(), width };
    page.wrapped("", &formatted.title);
    page.grid(&rows_grid(&formatted));
    if !(formatted.legend.is_empty() && formatted.footnotes.is_empty()) {
        page.gap();
    }
    page.lines(&formatted.legend);
    for (at, footnote) in formatted.footnotes.iter().enumerate() {
        page.wrapped(&format!("[{}] ", at + 1), &because(footnote));
    }
    if !formatted.deltas.is_empty() {
        page.grid(&deltas_grid(&formatted));
        if !formatted.delta_legend.is_empty() {
            page.gap();
        }
        page.lines(&formatted.delta_legend);
    }
    if !formatted.notes.is_empty() {
        page.gap();
        page.lines(&formatted.notes);
    }
    page.out
}

/// Returns the columns that a text takes on a terminal.
///
/// Only what tables hold is told apart: marks that combine take none, wide scripts and emoji two.
pub(crate) fn columns(text: &str) -> usize {
    let wide = |c: char| {
        matches!(u32::from(c), 0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3
            | 0xF900..=0xFAFF | 0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6
            | 0x1F300..=0x1FAFF | 0x20000..=0x3FFFD)
    };
    let none = |c: char| {
        matches!(u32::from(c), 0x0300..=0x036F | 0x0483..=0x0489 | 0x0591..=0x05BD
            | 0x064B..=0x065F | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x200B..=0x200F
            | 0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F | 0xFEFF)
    };
    text.chars().map(|c| if none(c) { 0 } else { 1 + usize::from(wide(c)) }).sum()
}

struct Page {
    out: String,
    width: Option<usize>,
}

/// Holds labels on the left and columns whose cells are all padded to the same width.
struct Grid {
    corner: &'static str,
    labels: Vec<String>,
    columns: Vec<Vec<String>>,
}

const BETWEEN: usize = 2;

impl Page {
    fn gap(&mut self) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn lines(&mut self, lines: &[String]) {
        for line in lines {
            self.wrapped("", line);
        }
    }

    /// Writes a text after its prefix, broken between words where the page ends.
    fn wrapped(&mut self, prefix: &str, text: &str) {
        let indent = columns(prefix);
        let mut line = prefix.to_owned();
        let mut used = indent;
        for word in text.split_whitespace() {
            let wanted = columns(word);
            if used > indent && self.width.is_some_and(|width| used + 1 + wanted > width) {
                self.line(&line);
                line = " ".repeat(indent);
                used = indent;
            }
            if used > indent {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += wanted;
        }
        if !line.trim().is_empty() {
            self.line(&line);
        }
    }

    fn grid(&mut self, grid: &Grid) {
        let label_width = grid.labels.iter().map(|label| columns(label)).max().unwrap_or(0);
        let label_width = label_width.max(columns(grid.corner));
        let widths: Vec<usize> = grid.columns.iter().map(|column| columns(&column[0])).collect();
        let mut first = 0;
        // A table without columns still shows its rows.
        loop {
            let (last, used) = self.fitting(label_width, &widths[first..]);
            let block = &grid.columns[first..first + last];
            self.gap();
            for at in 0..=grid.labels.len() {
                let label = if at == 0 { grid.corner } else { &grid.labels[at - 1] };
                let mut line = pad_right(label, label_width);
                for column in block {
                    line.push_str(&" ".repeat(BETWEEN));
                    line.push_str(&column[at]);
                }
                self.line(&line);
                if at == 0 {
                    self.line(&"─".repeat(used));
                }
            }
            first += last;
            if first >= widths.len() {
                return;
            }
        }
    }

    /// Returns how many of the columns fit beside the labels, at least one, and the width used.
    fn fitting(&self, label_width: usize, widths: &[usize]) -> (usize, usize) {
        let mut used = label_width;
        for (at, width) in widths.iter().enumerate() {
            let wanted = used + BETWEEN + width;
            if at > 0 && self.width.is_some_and(|width| wanted > width) {
                return (at, used);
            }
            used = wanted;
        }
        (widths.len(), used)
    }
}

fn rows_grid(formatted: &FormattedTable) -> Grid {
    let column = |(at, head): (usize, &String)| {
        let cells: Vec<&FormattedCell> = formatted.rows.iter().map(|row| &row.cells[at]).collect();
        let width = |part: &dyn Fn(&FormattedCell) -> String| {
            cells.iter().map(|cell| columns(&part(cell))).max().unwrap_or(0)
        };
        let ours_width = width(&|cell| cell.ours.clone());
        // Beside the numbers, which stay below each other.
        let footnote_width = width(&footnote);
        let published = width(&|cell| cell.published.clone());
        let body = cells.iter().map(|cell| {
            let footnote = pad_right(&footnote(cell), footnote_width);
            let ours = format!("{}{footnote}", pad_left(&cell.ours, ours_width));
            match published {
                0 => ours,
                width => format!("{ours} {}", pad_left(&cell.published, width)),
            }
        });
        even(head, body.collect())
    };
    Grid {
        corner: "",
        labels: formatted.rows.iter().map(|row| row.label.clone()).collect(),
        columns: formatted.heads.iter().enumerate().map(column).collect(),
    }
}

fn deltas_grid(formatted: &FormattedTable) -> Grid {
    let lines = || formatted.deltas.iter().flat_map(|delta| &delta.lines);
    let name_width = formatted.deltas.iter().map(|delta| columns(&delta.label)).max().unwrap_or(0);
    let labels = formatted.deltas.iter().flat_map(|delta| {
        delta.lines.iter().enumerate().map(move |(at, line)| {
            // The name stands once, at the head of its lines.
            let name = if at == 0 { delta.label.as_str() } else { "" };
            format!("{}  {}", pad_right(name, name_width), line.source)
        })
    });
    let column = |(at, head): (usize, &String)| {
        let cells: Vec<&FormattedDeltaCell> = lines().map(|line| &line.cells[at]).collect();
        let marked = cells.iter().any(|cell| cell.verdict == Verdict::Disagrees);
        let body = cells.iter().map(|cell| match (cell.verdict, marked) {
            (Verdict::Disagrees, _) => format!("{} !", cell.number),
            (Verdict::Agrees, true) => format!("{}  ", cell.number),
            (Verdict::Agrees, false) => cell.number.clone(),
        });
        even(head, body.collect())
    };
    Grid {
        corner: "difference",
        labels: labels.collect(),
        columns: formatted.heads.iter().enumerate().map(column).collect(),
    }
}

fn footnote(cell: &FormattedCell) -> String {
    cell.footnote.map(|number| format!(" [{number}]")).unwrap_or_default()
}

fn because(footnote: &Footnote) -> String {
    match &footnote.stage {
        Some(stage) => format!("{stage}: {}", footnote.reason),
        None => footnote.reason.clone(),
    }
}

/// Returns the head and the cells below it, all padded to one width.
fn even(head: &str, mut cells: Vec<String>) -> Vec<String> {
    cells.insert(0, head.to_owned());
    let width = cells.iter().map(|cell| columns(cell)).max().unwrap_or(0);
    cells.iter().map(|cell| pad_left(cell, width)).collect()
}

pub(crate) fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns(text))))
}

pub(crate) fn pad_right(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::cells::CellValue;
    use crate::table::formatted::tests::{cell, column, full, made, numbers, table};
    use insta::assert_snapshot;
    use proptest::prelude::*;

    #[test]
    fn everything_has_its_place() {
        assert_snapshot!(text(&full(), None), @"
        A table

                                        Accuracy ↑              Error ↓        Items
        ────────────────────────────────────────────────────────────────────────────
        left                    0.41 ± 0.02 (0.53)   186.99     (42.40)     3300
        right|wing              0.50 ± 0.10 (0.45)  missing [1]  (9.50)  missing [1]
        Älter (published only)              (0.30)              (66.16)        –

        in brackets: published
        published only: no stage of this experiment makes the row
        ±: standard deviation, n = 3
        ↑ higher is better, ↓ lower is better
        [1] scores[right|wing]: out of memory at step 3

        difference               Accuracy ↑  Error ↓    Items
        ─────────────────────────────────────────────────────
        left - Älter  ours          +0.11    missing  missing
                      published     +0.23     -23.76        –
                      printed       +0.28 !   -23.76        –

        published: recomputed from the published rows
        printed: as the paper prints it, in the unit of the rows
        ! does not follow from the published rows, even allowing for rounding

        Made with the profile `mini`; not the paper's numbers.
        ");
    }

    #[test]
    fn what_does_not_fit_goes_below() {
        assert_snapshot!(text(&full(), Some(50)), @"
        A table

                                        Accuracy ↑
        ──────────────────────────────────────────
        left                    0.41 ± 0.02 (0.53)
        right|wing              0.50 ± 0.10 (0.45)
        Älter (published only)              (0.30)

                                            Error ↓
        ───────────────────────────────────────────
        left                     186.99     (42.40)
        right|wing              missing [1]  (9.50)
        Älter (published only)              (66.16)

                                      Items
        ───────────────────────────────────
        left                       3300
        right|wing              missing [1]
        Älter (published only)        –

        in brackets: published
        published only: no stage of this experiment makes
        the row
        ±: standard deviation, n = 3
        ↑ higher is better, ↓ lower is better
        [1] scores[right|wing]: out of memory at step 3

        difference               Accuracy ↑  Error ↓
        ────────────────────────────────────────────
        left - Älter  ours          +0.11    missing
                      published     +0.23     -23.76
                      printed       +0.28 !   -23.76

        difference                 Items
        ────────────────────────────────
        left - Älter  ours       missing
                      published        –
                      printed          –

        published: recomputed from the published rows
        printed: as the paper prints it, in the unit of
        the rows
        ! does not follow from the published rows, even
        allowing for rounding

        Made with the profile `mini`; not the paper's
        numbers.
        ");
    }

    #[test]
    fn unpublished_tables_have_no_brackets() {
        let rows = vec![made("a", vec![cell(CellValue::Number(0.5), None)])];
        assert_snapshot!(text(&table(vec![column("accuracy")], rows), None), @"
        A table

           accuracy
        ───────────
        a      0.50
        ");
    }

    #[test]
    fn brackets_stand_in_line() {
        let rows = vec![
            made("a", numbers(&[0.25, 186.994], &[0.5, 42.4])),
            made("b", numbers(&[0.5, 4.194], &[0.0, 294.63])),
        ];
        let columns = vec![column("accuracy"), column("distance")];
        assert_snapshot!(text(&table(columns, rows), None), @"
        A table

              accuracy         distance
        ───────────────────────────────
        a  0.25 (0.50)  186.99  (42.40)
        b  0.50 (0.00)    4.19 (294.63)

        in brackets: published
        ");
    }

    #[test]
    fn empty_tables_are_tables() {
        assert_snapshot!(text(&table(Vec::new(), Vec::new()), Some(0)), @"
        A
        table
        ");
    }

    #[test]
    fn widths_are_those_of_a_terminal() {
        assert_eq!(columns("naïve"), 5);
        assert_eq!(columns("e\u{301}"), 1);
        assert_eq!(columns("表 ±"), 4);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_grid(label in ".{0,12}", width in proptest::option::of(0..60_usize)) {
            let cells = numbers(&[0.5, 1.5], &[0.25, 100.0]);
            let columns = vec![column(&label), column("b")];
            let text = text(&table(columns, vec![made(&label, cells)]), width);
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
