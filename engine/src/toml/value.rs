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

/// A text and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned {
    pub text: String,
    pub span: Span,
}

impl Spanned {
    pub(crate) fn new(text: &str, span: &Span) -> Self {
        Self { text: text.to_owned(), span: span.clone() }
    }
}

impl Content {
    /// Returns what kind of value it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
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
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_table(&self) -> Option<&TomlTable> {
        match &self.content {
            Content::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> Option<&[Value]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the items of a list, or else the value itself as the only one.
    pub(crate) fn items(&self) -> &[Value] {
        self.as_list().unwrap_or(std::slice::from_ref(self))
    }

    /// Returns what kind of value it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        self.content.describe()
    }

    /// Returns a short text for labels: variants of a scalar axis are named by it.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.content {
            Content::Text(text) | Content::Time(text) => Some(text.clone()),
            Content::Integer(integer) => Some(integer.to_string()),
            Content::Float(float) => Some(float.to_string()),
            Content::Bool(truth) => Some(truth.to_string()),
            Content::List(_) | Content::Table(_) => None,
        }
    }

    /// Returns it as JSON, without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Text(text) | Content::Time(text) => text.as_str().into(),
            Content::Integer(integer) => (*integer).into(),
            Content::Float(float) => (*float).into(),
            Content::Bool(truth) => (*truth).into(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Table(table) => {
                let fields = table.iter().map(|(name, entry)| (name.clone(), entry.value.to_json()));
                serde_json::Value::Object(fields.collect())
            }
        }
    }

    /// Makes a value of JSON that stands for what is written at some characters. What TOML does not
    /// have is left out.
    pub(crate) fn from_json(json: &serde_json::Value, span: &Span) -> Option<Self> {
        let content = match json {
            serde_json::Value::Null => return None,
            serde_json::Value::Bool(truth) => Content::Bool(*truth),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => Content::Integer(integer),
                None => Content::Float(number.as_f64()?),
            },
            serde_json::Value::String(text) => Content::Text(text.clone()),
            serde_json::Value::Array(items) => {
                Content::List(items.iter().filter_map(|item| Self::from_json(item, span)).collect())
            }
            serde_json::Value::Object(fields) => {
                let entries = fields.iter().filter_map(|(name, json)| {
                    let entry = Entry { key: span.clone(), value: Self::from_json(json, span)? };
                    Some((name.clone(), entry))
                });
                Content::Table(entries.collect())
            }
        };
        Some(Self { span: span.clone(), content })
    }

    /// Returns where the value at a dotted path is written, such as `objective.dpo.beta` or
    /// `metrics[2]`; of what is not written, where the table is that it would be in.
    pub(crate) fn locate(&self, path: &str) -> &Span {
        let below = match &self.content {
            // The longest name, since a name may have a dot in it.
            Content::Table(table) => table
                .iter()
                .filter_map(|(name, entry)| {
                    let rest = path.strip_prefix(name.as_str())?;
                    let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
                    is_whole.then(|| (&entry.value, rest.strip_prefix('.').unwrap_or(rest)))
                })
                .min_by_key(|(_, rest)| rest.len()),
            Content::List(items) => path.strip_prefix('[').and_then(|rest| {
                let (position, rest) = rest.split_once(']')?;
                let item = items.get(position.parse::<usize>().ok()?)?;
                Some((item, rest.strip_prefix('.').unwrap_or(rest)))
            }),
            _ => None,
        };
        below.map_or(&self.span, |(value, rest)| value.locate(rest))
    }

    /// Returns the path to what is written at some characters, a value or the name of a field: the
    /// reverse of [`Value::locate`].
    pub(crate) fn path_of(&self, span: &Span) -> Option<String> {
        if self.span == *span {
            return Some(String::new());
        }
        match &self.content {
            Content::Table(table) => table.iter().find_map(|(name, Entry { key, value })| {
                let below = if key == span { Some(String::new()) } else { value.path_of(span) };
                below.map(|below| {
                    let separator = if below.is_empty() || below.starts_with('[') { "" } else { "." };
                    format!("{name}{separator}{below}")
                })
            }),
            Content::List(items) => items.iter().enumerate().find_map(|(position, item)| {
                let below = item.path_of(span)?;
                let separator = if below.is_empty() || below.starts_with('[') { "" } else { "." };
                Some(format!("[{position}]{separator}{below}"))
            }),
            _ => None,
        }
    }

    /// Follows field names and list positions downwards.
    pub(crate) fn at(&self, place: &[String]) -> Option<&Value> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::parse::parse;

    #[test]
    fn a_path_leads_to_the_characters_of_its_value() {
        let text = "a.b = { c = 1, \"d.e\" = [2, { f = 3 }] }\ng = 'x'\n";
        let (table, diagnostics) = parse(text, 0);
        assert_eq!(diagnostics, []);
        let value = Value { span: 0..text.len(), content: Content::Table(table) };
        let at = |path: &str| &text[value.locate(path).clone()];
        assert_eq!(at("a.b.c"), "1");
        assert_eq!(at("a.b.d.e[0]"), "2");
        assert_eq!(at("a.b.d.e[1].f"), "3");
        assert_eq!((at("a.b.d.e[1].absent"), at("a.b.d.e[7]")), ("{ f = 3 }", "[2, { f = 3 }]"));
        assert_eq!((at("g"), at("g.h"), at("")), ("'x'", "'x'", text));
        assert_eq!(at("absent.c"), text);
        for path in ["a.b.c", "a.b.d.e[0]", "a.b.d.e[1].f", "g", ""] {
            assert_eq!(value.path_of(value.locate(path)).as_deref(), Some(path));
        }
    }
}
