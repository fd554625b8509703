//! A TOML value that knows where it was written.

use indexmap::IndexMap;

use crate::toml::source_map::Span;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    pub span: Span,
    pub content: Content,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Time(String),
    List(Vec<Value>),
    Table(TomlTable),
}

/// Values by name, in the order of their first appearance.
pub(crate) type TomlTable = IndexMap<String, Entry>;

/// A value, and where its name was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: Span,
    pub value: Value,
}

impl Content {
    /// Returns what kind of value it is, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Time(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Value {
    pub fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&TomlTable> {
        match &self.content {
            Content::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Value]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the items of a list, or else the value itself as the only one.
    pub fn items(&self) -> &[Value] {
        self.as_list().unwrap_or(std::slice::from_ref(self))
    }

    /// Returns what kind of value it is, for messages.
    pub fn describe(&self) -> &'static str {
        self.content.describe()
    }

    /// Returns a short text for labels: variants of a scalar axis are named by it.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.content {
            Content::Text(text) | Content::Time(text) => Some(text.clone()),
            Content::Integer(integer) => Some(integer.to_string()),
            Content::Float(float) => Some(float.to_string()),
            Content::Bool(truth) => Some(truth.to_string()),
            Content::List(_) | Content::Table(_) => None,
        }
    }

    /// Follows field names and list positions downwards.
    pub fn at(&self, place: &[String]) -> Option<&Value> {
        let Some((first, rest)) = place.split_first() else {
            return Some(self);
        };
        match &self.content {
            Content::Table(table) => table.get(first)?.value.at(rest),
            Content::List(items) => items.get(first.parse::<usize>().ok()?)?.at(rest),
            // An enum without content is a text in both places.
            _ => None,
        }
    }
}
