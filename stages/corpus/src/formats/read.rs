//! A file to rows, one at a time.

use super::csv;
use super::error::{ReadError, nearest};
use super::format::Format;
use super::jsonl::Jsonl;
use super::lines::Lines;
use super::options::{OnBadRow, ReadOptions};
use super::parsed_row::ParsedRow;
use super::report::{Bad, Reason, Report};
use super::table::Table;
use super::tsv;
use crate::row::{ID, Row};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::Read;

/// Reads rows from the bytes of a file, plain or compressed with gzip.
///
/// A table's header is read and checked at once, the rows as they are asked for.
pub fn read<'r>(
    source: impl Read + 'r,
    format: Format,
    options: &ReadOptions,
) -> Result<Rows<'r>, ReadError> {
    if options.split.contains_key(ID) {
        return Err(ReadError::SplitId);
    }
    if let Some((field, _)) = options.split.iter().find(|(_, separator)| separator.is_empty()) {
        return Err(ReadError::EmptySeparator { field: field.clone() });
    }
    let lines = Lines::open(source)?;
    let source = match format {
        Format::Csv => Source::Table(Table::open(lines, csv::next, options)?),
        Format::Tsv => Source::Table(Table::open(lines, tsv::next, options)?),
        Format::Jsonl => Source::Jsonl(Jsonl::open(lines, options)),
    };
    let split = options.split.keys().map(|field| ("split", field.clone()));
    let collapse = options.collapse_backslashes.iter();
    let collapse = collapse.map(|field| ("collapse_backslashes", field.clone()));
    let mut rows = Rows {
        source,
        options: options.clone(),
        report: Report::default(),
        row: 0,
        unseen: split.chain(collapse).filter(|(_, field)| field != ID).collect(),
        lines_by_id: HashMap::new(),
        done: false,
    };
    rows.look();
    Ok(rows)
}

/// Hands out the rows of one file and counts what it does.
///
/// After the first error there are no more rows. Memory does not grow with the file, but for
/// 24 bytes per identifier, by which duplicates are known.
pub struct Rows<'r> {
    source: Source<'r>,
    options: ReadOptions,
    report: Report,
    row: u64,
    /// Fields that an option names and no row has had yet.
    unseen: Vec<(&'static str, String)>,
    lines_by_id: HashMap<[u8; 16], u64>,
    done: bool,
}

enum Source<'r> {
    Table(Table<'r>),
    Jsonl(Jsonl<'r>),
}

impl Rows<'_> {
    /// Returns what was done so far; at the end of the rows, with the whole file.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Returns what was done so far.
    pub fn into_report(self) -> Report {
        self.report
    }

    fn advance(&mut self) -> Result<Option<Row>, ReadError> {
        loop {
            let parsed = match &mut self.source {
                Source::Table(table) => table.next(),
                Source::Jsonl(jsonl) => jsonl.next(),
            };
            self.look();
            let bad = match parsed? {
                None => return self.finish().map(|()| None),
                Some(row) => {
                    self.row += 1;
                    match row {
                        ParsedRow::Bad(bad) => bad,
                        ParsedRow::Row { line, lines, id, fields } => {
                            self.report.multi_line_rows += u64::from(lines > 1);
                            match self.shape(line, id, fields)? {
                                Ok(row) => {
                                    self.report.rows += 1;
                                    return Ok(Some(row));
                                }
                                Err(bad) => bad,
                            }
                        }
                    }
                }
            };
            if self.options.on_bad_row == OnBadRow::Fail {
                return Err(bad.into());
            }
            self.report.skip(bad);
        }
    }

    /// Copies into the report what the source knows.
    fn look(&mut self) {
        let (lines, columns) = match &self.source {
            Source::Table(table) => (&table.lines, &table.columns),
            Source::Jsonl(jsonl) => (&jsonl.lines, &jsonl.columns),
        };
        self.report.gzip = lines.gzip;
        self.report.byte_order_mark = lines.byte_order_mark;
        self.report.blank_lines = lines.blank;
        if self.report.columns.is_empty() {
            self.report.columns.clone_from(columns);
        }
    }

    fn shape(
        &mut self,
        line: u64,
        id: Option<String>,
        fields: Map<String, Value>,
    ) -> Result<Result<Row, Bad>, ReadError> {
        let id = match id {
            None => self.row.to_string(),
            Some(id) => {
                let id = self.collapse(ID, id);
                if let Some(bad) = self.check(line, &id) {
                    return Ok(Err(bad));
                }
                id
            }
        };
        self.unseen.retain(|(_, field)| !fields.contains_key(field));
        if matches!(self.source, Source::Table(_)) {
            self.known_fields(|| fields.keys().cloned().collect())?;
        }
        let mut row = Map::new();
        row.insert(ID.to_owned(), Value::String(id));
        for (field, value) in fields {
            let value = match value {
                Value::String(text) => {
                    let text = self.collapse(&field, text);
                    match self.options.split.get(&field) {
                        None => Value::String(text),
                        Some(separator) => {
                            let pieces = text.split(separator.as_str());
                            pieces.filter(|piece| !piece.is_empty()).collect()
                        }
                    }
                }
                other => other,
            };
            row.insert(field, value);
        }
        match Row::new(row) {
            Ok(row) => Ok(Ok(row)),
            Err(error) => unreachable!("the id was checked: {error}"),
        }
    }

    fn collapse(&mut self, field: &str, text: String) -> String {
        if !self.options.collapse_backslashes.contains(field) || !text.contains("\\\\") {
            return text;
        }
        *self.report.collapsed_cells.entry(field.to_owned()).or_default() += 1;
        text.replace("\\\\", "\\")
    }

    /// Says what is wrong with an identifier that came from the file.
    fn check(&mut self, line: u64, id: &str) -> Option<Bad> {
        if id.is_empty() {
            return Some(Bad::new(line, Reason::EmptyId, "the id is empty".to_owned(), id));
        }
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        let first = *self.lines_by_id.entry(short).or_insert(line);
        let detail = || format!("line {first} has the same id");
        (first != line).then(|| Bad::new(line, Reason::DuplicateId, detail(), id))
    }

    fn known_fields(&self, available: impl FnOnce() -> Vec<String>) -> Result<(), ReadError> {
        let Some((option, field)) = self.unseen.first() else { return Ok(()) };
        let available = available();
        Err(ReadError::UnknownField {
            option,
            field: field.clone(),
            nearest: nearest(field, &available),
            available,
        })
    }

    fn finish(&mut self) -> Result<(), ReadError> {
        if self.report.rows > 0 {
            let mut fields = self.report.columns.clone();
            if !self.options.columns.is_empty() {
                fields = self.options.columns.keys().cloned().collect();
            }
            fields.retain(|field| field != ID);
            return self.known_fields(|| fields);
        }
        if self.row == 0 {
            return Err(match self.source {
                Source::Table(_) => ReadError::HeaderOnly,
                Source::Jsonl(_) => ReadError::Empty,
            });
        }
        let columns = &self.report.columns;
        let absent = |column: &String| !columns.is_empty() && !columns.contains(column);
        match self.options.columns.iter().find(|(_, column)| absent(column)) {
            Some((field, column)) => Err(ReadError::MissingColumn {
                field: field.clone(),
                column: column.clone(),
                available: columns.clone(),
                nearest: nearest(column, columns),
            }),
            None => Err(ReadError::NoUsableRows { rows: self.row, reasons: self.report.reasons() }),
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.advance().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn all(text: &str, format: Format, options: &ReadOptions) -> Result<(Vec<Value>, Report), ReadError> {
        let mut rows = read(text.as_bytes(), format, options)?;
        let found: Result<Vec<Row>, _> = rows.by_ref().collect();
        let found = found?.into_iter().map(|row| Value::Object(row.into_fields())).collect();
        Ok((found, rows.into_report()))
    }

    fn columns(pairs: &[(&str, &str)]) -> ReadOptions {
        let pairs = pairs.iter().map(|(field, column)| (field.to_string(), column.to_string()));
        ReadOptions { columns: pairs.collect(), ..ReadOptions::default() }
    }

    #[test]
    fn without_options_every_column_is_a_field() {
        let (rows, report) = all("a,id,b\n1,x,2\n", Format::Csv, &ReadOptions::default()).unwrap();
        assert_eq!(serde_json::to_string(&rows).unwrap(), r#"[{"id":"x","a":"1","b":"2"}]"#);
        assert_eq!((report.rows, report.columns.len()), (1, 3));
    }

    #[test]
    fn without_an_id_rows_are_numbered_and_keep_their_number_when_others_are_skipped() {
        let text = "a\tb\n1\t2\n\n3\n5\t6\n";
        let (rows, report) = all(text, Format::Tsv, &ReadOptions::default()).unwrap();
        assert_eq!(rows, [json!({"id":"1","a":"1","b":"2"}), json!({"id":"3","a":"5","b":"6"})]);
        assert_eq!((report.rows, report.blank_lines, report.rows_skipped()), (2, 1, 1));
        let ragged = &report.skipped[&Reason::Ragged].examples[0];
        assert_eq!((ragged.line, ragged.detail.as_str()), (4, "1 cell instead of 2"));
    }

    #[test]
    fn columns_are_mapped_split_and_collapsed() {
        let mut options = columns(&[("molecule", "SMILES"), ("properties", "P")]);
        options.split.insert("properties".to_owned(), "|".to_owned());
        options.collapse_backslashes.insert("molecule".to_owned());
        let text = "P\tSMILES\nx|y||z\tC/C=C\\\\C\n\tC\\C\n";
        let (rows, report) = all(text, Format::Tsv, &options).unwrap();
        assert_eq!(rows[0], json!({"id":"1","molecule":"C/C=C\\C","properties":["x","y","z"]}));
        assert_eq!(rows[1], json!({"id":"2","molecule":"C\\C","properties":[]}));
        assert_eq!(report.collapsed_cells, [("molecule".to_owned(), 1)].into());
    }

    #[test]
    fn duplicate_and_empty_ids_are_skipped_and_counted() {
        let text = "CID,x\n7,a\n7,b\n,c\n8,d\n";
        let (rows, report) = all(text, Format::Csv, &columns(&[("id", "CID"), ("x", "x")])).unwrap();
        assert_eq!(rows, [json!({"id":"7","x":"a"}), json!({"id":"8","x":"d"})]);
        let duplicate = &report.skipped[&Reason::DuplicateId].examples[0];
        assert_eq!((duplicate.line, duplicate.detail.as_str()), (3, "line 2 has the same id"));
        assert_eq!(report.skipped[&Reason::EmptyId].count, 1);
    }

    #[test]
    fn a_bad_row_stops_the_reading_when_asked() {
        let options = ReadOptions { on_bad_row: OnBadRow::Fail, ..ReadOptions::default() };
        let mut rows = read("a,b\n1\n2,3\n".as_bytes(), Format::Csv, &options).unwrap();
        let error = rows.next().unwrap().unwrap_err().to_string();
        assert_eq!(error, "line 2: wrong number of cells: 1 cell instead of 2: `1`");
        assert!(rows.next().is_none());
    }

    #[test]
    fn json_rows_may_differ_and_be_wrong() {
        let text = "{\"id\":7,\"x\":\"a\"}\n\n{\"x\":null}\n[1]\n{\"x\"\n{\"id\":1.5}\n{\"id\":null}\n";
        let (rows, report) = all(text, Format::Jsonl, &ReadOptions::default()).unwrap();
        assert_eq!(rows, [json!({"id":"7","x":"a"}), json!({"id":"2","x":null})]);
        let counts: Vec<_> = report.skipped.iter().map(|(reason, s)| (*reason, s.count)).collect();
        let expected = [Reason::InvalidJson, Reason::NotAnObject, Reason::IdNotText, Reason::EmptyId];
        assert_eq!(counts, expected.map(|reason| (reason, 1)));
        assert_eq!(report.skipped[&Reason::InvalidJson].examples[0].line, 5);
    }

    #[test]
    fn a_missing_column_is_named_with_the_nearest() {
        let options = columns(&[("molecule", "smiles")]);
        let expected = "there is no column `smiles` for `molecule` (nearest: `SMILES`); \
                        the columns are `CID`, `SMILES`";
        let error = all("CID,SMILES\n1,C\n", Format::Csv, &options).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let error = all("{\"CID\":1,\"SMILES\":\"C\"}\n", Format::Jsonl, &options).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn options_for_fields_that_are_not_there_are_refused() {
        let mut options = ReadOptions::default();
        options.split.insert("propertys".to_owned(), "|".to_owned());
        let expected = "`split` names the field `propertys`, which the rows do not have \
                        (nearest: `properties`); the fields are `properties`";
        for (text, format) in [("properties\na\n", Format::Csv), ("{\"properties\":\"a\"}", Format::Jsonl)] {
            assert_eq!(all(text, format, &options).unwrap_err().to_string(), expected);
        }
        options.split = [("id".to_owned(), "|".to_owned())].into();
        assert!(matches!(all("", Format::Csv, &options), Err(ReadError::SplitId)));
        options.split = [("a".to_owned(), String::new())].into();
        assert!(matches!(all("", Format::Csv, &options), Err(ReadError::EmptySeparator { .. })));
    }

    #[test]
    fn ambiguous_columns_are_refused_only_when_taken() {
        let options = ReadOptions::default();
        let repeated = all("a,b,a\n1,2,3\n", Format::Csv, &options);
        assert!(matches!(repeated, Err(ReadError::RepeatedColumn { first: 1, second: 3, .. })));
        let unnamed = all("a,\n1,2\n", Format::Csv, &options);
        assert!(matches!(unnamed, Err(ReadError::UnnamedColumn { position: 2 })));
        assert!(all("a,b,a,\n1,2,3,4\n", Format::Csv, &columns(&[("b", "b")])).is_ok());
    }

    #[test]
    fn a_file_without_rows_is_an_error() {
        let options = ReadOptions::default();
        assert!(matches!(all("\n\n", Format::Csv, &options), Err(ReadError::Empty)));
        assert!(matches!(all("", Format::Jsonl, &options), Err(ReadError::Empty)));
        assert!(matches!(all("a\tb\n\n", Format::Tsv, &options), Err(ReadError::HeaderOnly)));
        let error = all("a\tb\n1\n2\n", Format::Tsv, &options).unwrap_err();
        let expected = "none of the 2 rows can be used: \
                        wrong number of cells (2, first on line 2)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn options_read_from_toml_refuse_what_they_do_not_know() {
        let options: ReadOptions = toml::from_str("columns.id = 'CID'\non_bad_row = 'fail'").unwrap();
        assert_eq!(options.on_bad_row, OnBadRow::Fail);
        assert!(toml::from_str::<ReadOptions>("colums.id = 'CID'").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_give_rows_or_an_error(
            bytes in prop::collection::vec(prop::sample::select(b"a\t,\"\n{}:1\\\xff\x1f\x8b".to_vec()), 0..60)
        ) {
            for format in Format::ALL {
                if let Ok(rows) = read(bytes.as_slice(), *format, &ReadOptions::default()) {
                    rows.for_each(drop);
                }
            }
        }
    }
}
