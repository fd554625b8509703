//! One JSON object per line.
//!
//! An `id` that is a whole number is taken as its digits. Lines of white space alone are blank.

use super::error::ReadError;
use super::lines::Lines;
use super::options::ReadOptions;
use super::parsed_row::ParsedRow;
use super::report::{Bad, Reason};
use crate::row::ID;
use serde_json::{Map, Value};

pub(super) struct Jsonl<'r> {
    pub lines: Lines<'r>,
    /// The fields of the first object.
    pub columns: Vec<String>,
    options: ReadOptions,
}

impl<'r> Jsonl<'r> {
    pub(super) fn open(lines: Lines<'r>, options: &ReadOptions) -> Self {
        Self { lines, columns: Vec::new(), options: options.clone() }
    }

    pub(super) fn next(&mut self) -> Result<Option<ParsedRow>, ReadError> {
        loop {
            let Some(text) = self.lines.next(0)? else { return Ok(None) };
            if text.trim().is_empty() {
                self.lines.blank += 1;
                continue;
            }
            let fields = object(text).and_then(|object| {
                if self.columns.is_empty() {
                    self.columns = object.keys().cloned().collect();
                }
                take(object, &self.options)
            });
            let row = match fields {
                Ok((id, fields)) => ParsedRow::Row { line: 0, lines: 1, id, fields },
                Err((reason, detail)) => ParsedRow::Bad(Bad::new(0, reason, detail, text)),
            };
            return Ok(Some(row.on_line(self.lines.number)));
        }
    }
}

type Fault = (Reason, String);

fn object(text: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => {
            let kind = match other {
                Value::Null => "null",
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::String(_) => "a string",
                _ => "an array",
            };
            Err((Reason::NotAnObject, format!("{kind} instead of an object")))
        }
        Err(error) => {
            // Every line is its own document, so its own line number is always 1.
            let detail = error.to_string().replace("at line 1 column", "at column");
            Err((Reason::InvalidJson, detail))
        }
    }
}

fn take(
    mut object: Map<String, Value>,
    options: &ReadOptions,
) -> Result<(Option<String>, Map<String, Value>), Fault> {
    let id = match options.columns.get(ID) {
        Some(column) => Some(wanted(&object, ID, column)?),
        None => object.get(ID),
    };
    let id = id.map(identifier).transpose()?;
    if options.columns.is_empty() {
        object.shift_remove(ID);
        return Ok((id, object));
    }
    let mut fields = Map::new();
    for (field, column) in options.columns.iter().filter(|(field, _)| *field != ID) {
        fields.insert(field.clone(), wanted(&object, field, column)?.clone());
    }
    Ok((id, fields))
}

fn wanted<'o>(object: &'o Map<String, Value>, field: &str, column: &str) -> Result<&'o Value, Fault> {
    object.get(column).ok_or_else(|| (Reason::MissingField, format!("there is no `{column}` for `{field}`")))
}

fn identifier(value: &Value) -> Result<String, Fault> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        Value::Null => Err((Reason::EmptyId, "the id is null".to_owned())),
        other => Err((Reason::IdNotText, format!("the id is {other}"))),
    }
}
