//! What tables share: a header, columns that become fields, rows as wide as the header.

use super::error::{ReadError, nearest};
use super::lines::Lines;
use super::options::ReadOptions;
use super::parsed_row::ParsedRow;
use super::report::{Bad, Reason};
use crate::row::ID;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// One row as its format parts it.
#[derive(Default)]
pub(super) struct Record {
    /// The line it starts on, from 1.
    pub line: u64,
    /// How many lines it goes over.
    pub lines: u64,
    pub cells: Vec<String>,
}

/// Reads the next record, and says whether there was one.
pub(super) type Next = fn(&mut Lines<'_>, &mut Record) -> Result<bool, ReadError>;

pub(super) struct Table<'r> {
    pub lines: Lines<'r>,
    next: Next,
    record: Record,
    pub columns: Vec<String>,
    /// Field and position, in the order that rows have them.
    taken: Vec<(String, usize)>,
    id: Option<usize>,
}

impl<'r> Table<'r> {
    pub(super) fn open(mut lines: Lines<'r>, next: Next, options: &ReadOptions) -> Result<Self, ReadError> {
        let mut record = Record::default();
        if !next(&mut lines, &mut record)? {
            return Err(ReadError::Empty);
        }
        let columns = std::mem::take(&mut record.cells);
        let (id, taken) =
            if options.columns.is_empty() { everything(&columns)? } else { mapped(&columns, options)? };
        Ok(Self { lines, next, record, columns, taken, id })
    }

    pub(super) fn next(&mut self) -> Result<Option<ParsedRow>, ReadError> {
        if !(self.next)(&mut self.lines, &mut self.record)? {
            return Ok(None);
        }
        let Record { line, lines, cells } = &self.record;
        if cells.len() != self.columns.len() {
            let cells_word = if cells.len() == 1 { "cell" } else { "cells" };
            let detail = format!("{} {cells_word} instead of {}", cells.len(), self.columns.len());
            return Ok(Some(ParsedRow::Bad(Bad::new(*line, Reason::Ragged, detail, &cells.join("\t")))));
        }
        let mut fields = Map::new();
        for (field, position) in &self.taken {
            fields.insert(field.clone(), Value::String(cells[*position].clone()));
        }
        Ok(Some(ParsedRow::Row {
            line: *line,
            lines: *lines,
            id: self.id.map(|position| cells[position].clone()),
            fields,
        }))
    }
}

type Taken = (Option<usize>, Vec<(String, usize)>);

fn everything(columns: &[String]) -> Result<Taken, ReadError> {
    if let Some(position) = columns.iter().position(String::is_empty) {
        return Err(ReadError::UnnamedColumn { position: position + 1 });
    }
    let mut first_places = HashMap::with_capacity(columns.len());
    for (position, column) in columns.iter().enumerate() {
        if let Some(first) = first_places.insert(column.as_str(), position) {
            let (column, second) = (column.clone(), position + 1);
            return Err(ReadError::RepeatedColumn { column, first: first + 1, second });
        }
    }
    let id = columns.iter().position(|name| name == ID);
    let others = columns.iter().enumerate().filter(|(position, _)| Some(*position) != id);
    Ok((id, others.map(|(position, name)| (name.clone(), position)).collect()))
}

fn mapped(columns: &[String], options: &ReadOptions) -> Result<Taken, ReadError> {
    let mut id = only(columns, ID)?;
    let mut taken = Vec::new();
    for (field, column) in &options.columns {
        let position = only(columns, column)?.ok_or_else(|| ReadError::MissingColumn {
            field: field.clone(),
            column: column.clone(),
            available: columns.to_vec(),
            nearest: nearest(column, columns),
        })?;
        if field == ID {
            id = Some(position);
        } else {
            taken.push((field.clone(), position));
        }
    }
    Ok((id, taken))
}

/// Returns the position of a column, which no other may share its name with.
fn only(columns: &[String], name: &str) -> Result<Option<usize>, ReadError> {
    let mut positions = (0..columns.len()).filter(|position| columns[*position] == name);
    match (positions.next(), positions.next()) {
        (Some(first), Some(second)) => {
            Err(ReadError::RepeatedColumn { column: name.to_owned(), first: first + 1, second: second + 1 })
        }
        (first, _) => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use crate::formats::{Format, ReadOptions, read};

    /// A header is compared with itself in one pass: a quadratic one takes hours for so many names.
    #[test]
    fn a_million_columns_are_read() {
        let count = 1_000_000;
        let names: Vec<String> = (0..count).map(|number| format!("c{number}")).collect();
        let text = format!("{}\n{}\n", names.join(","), "1,".repeat(count - 1) + "2");
        let mut rows = read(text.as_bytes(), Format::Csv, &ReadOptions::default()).unwrap();
        let row = rows.next().unwrap().unwrap();
        assert_eq!((row.text("c0"), row.text("c999999")), (Some("1"), Some("2")));
        let twice = format!("{},c3\n1\n", names.join(","));
        let error = read(twice.as_bytes(), Format::Csv, &ReadOptions::default()).err().unwrap().to_string();
        assert!(error.contains("`c3`"), "{error}");
    }
}
