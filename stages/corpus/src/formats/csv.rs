//! Comma-separated values as in RFC 4180.
//!
//! A cell that begins with a quotation mark goes to the next single one and may hold commas,
//! line ends and doubled marks, which stand for one. A mark elsewhere is data, as in the crate
//! `csv`, and the tests compare the two. Read here line by line and not by that crate, since a
//! report needs the line a row starts on, the blank lines passed over and the mark never closed.

use super::error::ReadError;
use super::lines::{Lines, part_ending};
use super::table::Record;

pub(super) fn next(lines: &mut Lines<'_>, record: &mut Record) -> Result<bool, ReadError> {
    let mut parser = Parser::default();
    let (mut bytes, mut first, mut count) = (0, 0, 0);
    loop {
        let Some(line) = lines.next(bytes).map_err(|error| blame(error, first))? else {
            if count == 0 {
                return Ok(false);
            }
            return Err(ReadError::UnclosedQuote { line: first });
        };
        let (body, ending) = part_ending(line);
        if count == 0 && body.is_empty() {
            lines.blank += 1;
            continue;
        }
        bytes += line.len();
        let complete = parser.feed(body, ending);
        count += 1;
        if first == 0 {
            first = lines.number;
        }
        if complete {
            record.cells = parser.cells;
            record.line = first;
            record.lines = count;
            return Ok(true);
        }
    }
}

/// A row that is too long is named by the line it starts on.
fn blame(error: ReadError, first: u64) -> ReadError {
    match error {
        ReadError::TooLong { limit, .. } if first > 0 => ReadError::TooLong { line: first, limit },
        other => other,
    }
}

#[derive(Default)]
struct Parser {
    cells: Vec<String>,
    cell: String,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Start,
    Bare,
    Quoted,
    /// Just behind a mark inside a quoted cell: its end, or the first of two.
    Mark,
}

impl Parser {
    /// Takes one line and says whether it completes the row.
    fn feed(&mut self, body: &str, ending: &str) -> bool {
        for character in body.chars() {
            self.state = match (self.state, character) {
                (State::Start, '"') => State::Quoted,
                (State::Quoted, '"') => State::Mark,
                (State::Quoted, other) => {
                    self.cell.push(other);
                    State::Quoted
                }
                (State::Mark, '"') => {
                    self.cell.push('"');
                    State::Quoted
                }
                (_, ',') => {
                    self.cells.push(std::mem::take(&mut self.cell));
                    State::Start
                }
                (_, other) => {
                    self.cell.push(other);
                    State::Bare
                }
            };
        }
        if self.state == State::Quoted {
            self.cell.push_str(ending);
            return false;
        }
        self.cells.push(std::mem::take(&mut self.cell));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<Vec<(u64, Vec<String>)>, ReadError> {
        let mut lines = Lines::open(text.as_bytes())?;
        let mut record = Record::default();
        let mut found = Vec::new();
        while next(&mut lines, &mut record)? {
            found.push((record.line, record.cells.clone()));
        }
        Ok(found)
    }

    fn cells(text: &str) -> Vec<Vec<String>> {
        all(text).unwrap().into_iter().map(|(_, cells)| cells).collect()
    }

    #[test]
    fn quoted_cells_hold_anything() {
        let text = "a,\"b,c\",\"d\"\"e\"\r\n\"f\r\ng\",,h\n";
        assert_eq!(cells(text), [vec!["a", "b,c", "d\"e"], vec!["f\r\ng", "", "h"]]);
    }

    #[test]
    fn a_mark_inside_a_bare_cell_is_data() {
        assert_eq!(cells("5\" pipe,x\n"), [vec!["5\" pipe", "x"]]);
    }

    #[test]
    fn rows_know_the_line_they_start_on() {
        let found = all("a\n\n\"b\n\nc\"\nd\n").unwrap();
        let lines: Vec<u64> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 6]);
    }

    #[test]
    fn a_quote_without_an_end_is_an_error_where_it_starts() {
        assert!(matches!(all("a\n\"b\nc\n"), Err(ReadError::UnclosedQuote { line: 2 })));
    }

    proptest! {
        #[test]
        fn what_the_crate_writes_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a\", \r\n\u{e9}]{0,6}", 2..5), 0..6)
        ) {
            let mut writer = ::csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(cells(&text), rows);
        }

        #[test]
        fn any_text_is_read_as_the_crate_reads_it(text in "[a\",\n]{0,20}") {
            let mut reader = ::csv::ReaderBuilder::new()
                .flexible(true)
                .has_headers(false)
                .from_reader(text.as_bytes());
            let theirs: Vec<Vec<String>> = reader
                .records()
                .map(|record| record.unwrap().iter().map(str::to_owned).collect())
                .collect();
            match all(&text) {
                Ok(ours) => {
                    let ours: Vec<_> = ours.into_iter().map(|(_, cells)| cells).collect();
                    prop_assert_eq!(ours, theirs);
                }
                // The crate takes what there is for the last cell.
                Err(error) => {
                    let unclosed = matches!(error, ReadError::UnclosedQuote { .. });
                    prop_assert!(unclosed, "{error}");
                }
            }
        }
    }
}
