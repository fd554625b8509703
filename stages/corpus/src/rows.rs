//! Rows as one stage leaves them for the next: one JSON object per line, nothing to guess.

use crate::record::Record;
use crate::row::Row;
use serde::Serialize;
use std::io::{self, BufRead, BufReader, Read, Write};

/// Says why a file of rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The bytes could not be fetched.
    #[error("cannot read past line {line}: {source}")]
    Io {
        /// The last line that could be read.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A line is something else.
    #[error("line {line} is not {wanted}: {source}")]
    Other {
        /// The line, from 1.
        line: u64,
        /// What it should be.
        wanted: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
}

/// Writes rows or other records, one object per line.
pub fn write_jsonl<R: Serialize>(
    records: impl IntoIterator<Item = R>,
    mut writer: impl Write,
) -> io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut writer, &record)?;
        writer.write_all(b"\n")?;
    }
    writer.flush()
}

/// Reads the rows that [`write_jsonl`] wrote, one at a time.
pub fn read_jsonl_rows(source: impl Read) -> impl Iterator<Item = Result<Row, RowsError>> {
    read_jsonl(source)
}

/// Reads the records that [`write_jsonl`] wrote, one at a time.
///
/// Nothing is skipped: a line that is something else is an error, and the last one.
pub fn read_jsonl<R: Record>(source: impl Read) -> impl Iterator<Item = Result<R, RowsError>> {
    let mut input = BufReader::with_capacity(1 << 16, source);
    let mut bytes = Vec::new();
    let mut line = 0;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        bytes.clear();
        let record = match input.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {
                line += 1;
                let wanted = R::WHAT;
                serde_json::from_slice(&bytes).map_err(|source| RowsError::Other { line, wanted, source })
            }
            Err(source) => Err(RowsError::Io { line, source }),
        };
        done = record.is_err();
        Some(record)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn row(id: &str, caption: &str) -> Row {
        let mut fields = Map::new();
        fields.insert("caption".to_owned(), json!(caption));
        fields.insert("id".to_owned(), json!(id));
        fields.insert("score".to_owned(), json!(0.1));
        Row::new(fields).unwrap()
    }

    #[test]
    fn one_object_per_line() {
        let mut bytes = Vec::new();
        write_jsonl([row("1", "a\n\"b\"")], &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "{\"caption\":\"a\\n\\\"b\\\"\",\"id\":\"1\",\"score\":0.1}\n");
    }

    #[test]
    fn a_line_that_is_no_row_is_the_last() {
        let text = "{\"id\":\"1\"}\n{\"a\":1}\n{\"id\":\"2\"}\n";
        let found: Vec<_> = read_jsonl_rows(text.as_bytes()).collect();
        assert_eq!(found.len(), 2);
        let error = found[1].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("line 2 is not a row: the row has no `id`"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(texts in prop::collection::vec(("\\PC{1,5}", ".{0,9}"), 0..5)) {
            let rows: Vec<Row> = texts.iter().map(|(id, caption)| row(id, caption)).collect();
            let mut bytes = Vec::new();
            write_jsonl(&rows, &mut bytes).unwrap();
            let back: Result<Vec<Row>, _> = read_jsonl_rows(bytes.as_slice()).collect();
            prop_assert_eq!(back.unwrap(), rows.clone());
            prop_assert!(rows.iter().all(|row| row.get("score") == Some(&Value::from(0.1))));
        }
    }
}
