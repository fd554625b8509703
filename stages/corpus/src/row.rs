//! One example: an ordered JSON object with an `id`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The name of the field that every row has.
pub const ID: &str = "id";

/// Says why an object is not a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is no field `id`.
    #[error("the row has no `id`")]
    MissingId,
    /// The field `id` is not text.
    #[error("the `id` is not text: {0}")]
    IdNotText(String),
    /// The field `id` is the empty text.
    #[error("the `id` is empty")]
    EmptyId,
}

/// Says that a row lacks a text that is needed of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row `{row}` has no text `{field}`; its fields are {available}")]
pub struct MissingField {
    /// The row's `id`.
    pub row: String,
    /// The field.
    pub field: String,
    /// The fields that it has.
    pub available: String,
}

/// Holds one example: fields in order, among them a non-empty text `id`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Row(Map<String, Value>);

impl Row {
    /// Makes a row of an object that has an `id`.
    pub fn new(fields: Map<String, Value>) -> Result<Self, RowError> {
        match fields.get(ID) {
            None => Err(RowError::MissingId),
            Some(Value::String(id)) if id.is_empty() => Err(RowError::EmptyId),
            Some(Value::String(_)) => Ok(Self(fields)),
            Some(other) => Err(RowError::IdNotText(other.to_string())),
        }
    }

    /// Returns the row's identifier.
    pub fn id(&self) -> &str {
        match self.0.get(ID) {
            Some(Value::String(id)) => id,
            _ => unreachable!("a row has a text `id`"),
        }
    }

    /// Returns a field, of whatever type.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// Returns a field that is text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// Returns a field that is text, or says which fields there are instead.
    pub fn needed(&self, field: &str) -> Result<&str, MissingField> {
        self.text(field).ok_or_else(|| MissingField {
            row: self.id().to_owned(),
            field: field.to_owned(),
            available: self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        })
    }

    /// Returns a field that is an array of texts, and nothing if one element is not.
    pub fn list(&self, field: &str) -> Option<Vec<&str>> {
        self.0.get(field)?.as_array()?.iter().map(Value::as_str).collect()
    }

    /// Returns the names of the fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the row with one field added at its end, or replaced in its place.
    pub fn with(mut self, field: &str, value: Value) -> Result<Self, RowError> {
        self.0.insert(field.to_owned(), value);
        Self::new(self.0)
    }

    /// Returns the fields.
    pub fn into_fields(self) -> Map<String, Value> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Map::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(value: Value) -> Result<Row, RowError> {
        match value {
            Value::Object(fields) => Row::new(fields),
            other => unreachable!("{other} is no object"),
        }
    }

    #[test]
    fn fields_keep_their_order() {
        let text = r#"{"z":1,"id":"7","a":["x","y"]}"#;
        let row: Row = serde_json::from_str(text).unwrap();
        assert_eq!(row.names().collect::<Vec<_>>(), ["z", "id", "a"]);
        assert_eq!(serde_json::to_string(&row).unwrap(), text);
    }

    #[test]
    fn accessors_are_typed() {
        let row = row(json!({"id": "7", "n": 1, "l": ["x", "y"], "m": ["x", 1]})).unwrap();
        assert_eq!((row.id(), row.text("id"), row.text("n")), ("7", Some("7"), None));
        assert_eq!(row.list("l"), Some(vec!["x", "y"]));
        assert_eq!((row.list("m"), row.list("id"), row.list("none")), (None, None, None));
    }

    #[test]
    fn a_row_without_a_text_id_cannot_be_made() {
        assert_eq!(row(json!({"a": "b"})), Err(RowError::MissingId));
        assert_eq!(row(json!({"id": ""})), Err(RowError::EmptyId));
        assert_eq!(row(json!({"id": 3})), Err(RowError::IdNotText("3".to_owned())));
        let whole = row(json!({"id": "7"})).unwrap();
        assert_eq!(whole.with("id", json!("")), Err(RowError::EmptyId));
    }

    #[test]
    fn with_adds_at_the_end_and_replaces_in_place() {
        let row = row(json!({"id": "7", "a": "b"})).unwrap();
        let row = row.with("c", json!("d")).unwrap().with("id", json!("8")).unwrap();
        assert_eq!(serde_json::to_string(&row).unwrap(), r#"{"id":"8","a":"b","c":"d"}"#);
    }
}
