//! A TOML value that knows where it was written, and how to become any `Deserialize` type.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::toml::diagnostic::{Finding, did_you_mean};
use crate::toml::source_map::Span;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
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
    List(Vec<Node>),
    Table(Table),
}

/// Values by name, in the order of their first appearance.
pub(crate) type Table = IndexMap<String, Entry>;

/// A value, and where its name was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: Span,
    pub node: Node,
}

/// After so many lines that end a parse, the rest of a text is left alone.
const MOST_STOPS: usize = 20;

/// Parses a text; what can be read is read, whatever else is wrong. Spans are moved by `base`.
pub(crate) fn parse(text: &str, base: usize) -> (Table, Vec<Finding>) {
    let mut readable = text.to_owned();
    let mut findings = Vec::new();
    loop {
        let (root, errors) = DeTable::parse_recoverable(&readable);
        let at = |error: &toml::de::Error| error.span().unwrap_or(0..0);
        // The parser gives up at a key without a value, and the rest must be heard as well.
        let stop = errors.iter().find(|error| error.message().starts_with("key with no value"));
        if let Some(span) = stop.map(at).filter(|_| findings.len() < MOST_STOPS) {
            let end = span.start + readable[span.start..].find('\n').unwrap_or(readable.len() - span.start);
            let start = readable[..span.start].rfind('\n').map_or(0, |line| line + 1);
            findings.push(syntax_error(text, "key with no value, expected `=`", start..end, base));
            readable.replace_range(start..end, &" ".repeat(end - start));
            continue;
        }
        let mut is_repeated_table = false;
        for error in &errors {
            let span = at(error);
            if error.message() == "duplicate key" {
                // The fields of a repeated table are repeated, too, and are not to blame.
                let is_header =
                    text[..span.start].rsplit('\n').next().is_some_and(|line| line.starts_with('['));
                if is_repeated_table && !is_header {
                    continue;
                }
                is_repeated_table = is_header;
            }
            findings.push(syntax_error(text, error.message(), span, base));
        }
        return (convert_table(root.into_inner(), base, &mut findings), findings);
    }
}

/// Says in plain words what the parser complains of.
fn syntax_error(text: &str, message: &str, span: Span, base: usize) -> Finding {
    let written = text[span.clone()].trim();
    let after_key = || text[..span.start].trim_end().ends_with('=');
    let (message, label) = match message.split_once(", expected ") {
        None if message == "duplicate key" => {
            (format!("`{written}` is given twice"), "given before".to_owned())
        }
        Some(("key with no value", _)) => {
            (format!("`{written}` gives no value"), "write `name = value`".to_owned())
        }
        Some(("string values must be quoted", _)) if written.is_empty() && after_key() => {
            ("there is no value after `=`".to_owned(), "a value is missing".to_owned())
        }
        Some(("string values must be quoted", _)) => {
            (format!("`{written}` is not a value: texts are quoted"), "texts are quoted".to_owned())
        }
        Some(("invalid basic string", "`\"`")) => {
            ("the text has no end".to_owned(), "the closing `\"` is missing".to_owned())
        }
        Some((what, "nothing")) => (what.to_owned(), "not valid TOML".to_owned()),
        Some((what, expected)) => (what.to_owned(), format!("expected {expected}")),
        None => (message.to_owned(), "not valid TOML".to_owned()),
    };
    Finding::new(base + span.start..base + span.end, message).label(label)
}

/// Returns the part of a text that a mistake in its syntax makes doubtful: from the header of
/// the table before it to the next header.
pub(crate) fn doubtful(text: &str, at: usize) -> Span {
    let is_header = |line: &&str| line.starts_with('[');
    let start_of = |line: &str| line.as_ptr() as usize - text.as_ptr() as usize;
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let start = match text[line..].starts_with('[') {
        true => line,
        false => before.lines().rfind(is_header).map_or(0, start_of),
    };
    let end = text[line..].lines().skip(1).find(is_header).map_or(text.len(), start_of);
    start..end
}

/// Parses one value, as given on a command line.
pub(crate) fn parse_value(text: &str, base: usize) -> Result<Node, String> {
    let parsed = DeValue::parse(text).map_err(|error| error.message().to_owned())?;
    let mut findings = Vec::new();
    let node = convert(parsed, base, &mut findings);
    findings.pop().map_or(Ok(node), |finding| Err(finding.message))
}

fn convert_table(table: DeTable<'_>, base: usize, findings: &mut Vec<Finding>) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let span = key.span();
            let entry =
                Entry { key: base + span.start..base + span.end, node: convert(value, base, findings) };
            (key.into_inner().into_owned(), entry)
        })
        .collect()
}

fn convert(item: Spanned<DeValue<'_>>, base: usize, findings: &mut Vec<Finding>) -> Node {
    let span = item.span();
    let span = base + span.start..base + span.end;
    let content = match item.into_inner() {
        DeValue::String(text) => Content::Text(text.into_owned()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) => Content::Integer(value),
            Err(_) => {
                findings.push(Finding::new(span.clone(), format!("`{integer}` does not fit in 64 bits")));
                Content::Integer(0)
            }
        },
        DeValue::Float(float) => match float.as_str().parse::<f64>() {
            Ok(value) if value.is_finite() => Content::Float(value),
            Ok(_) => {
                findings.push(Finding::new(span.clone(), format!("`{float}` is not a finite number")).help(
                    "parameters must be finite: a result cannot be keyed by a value that equals nothing",
                ));
                Content::Float(0.0)
            }
            Err(_) => {
                if findings.is_empty() {
                    findings.push(Finding::new(span.clone(), format!("`{float}` is not a number")));
                }
                Content::Float(0.0)
            }
        },
        DeValue::Boolean(truth) => Content::Bool(truth),
        DeValue::Datetime(time) => Content::Time(time.to_string()),
        DeValue::Array(array) => {
            Content::List(array.into_iter().map(|item| convert(item, base, findings)).collect())
        }
        DeValue::Table(table) => Content::Table(convert_table(table, base, findings)),
    };
    Node { span, content }
}

impl Content {
    /// Returns what kind of value it is, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a truth value",
            Self::Time(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&Table> {
        match &self.content {
            Content::Table(table) => Some(table),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
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
    pub fn at(&self, place: &[String]) -> Option<&Node> {
        let Some((first, rest)) = place.split_first() else {
            return Some(self);
        };
        match &self.content {
            Content::Table(table) => table.get(first)?.node.at(rest),
            Content::List(items) => items.get(first.parse::<usize>().ok()?)?.at(rest),
            // An enum without content is a text in both places.
            _ => None,
        }
    }
}

/// Reads a type out of a node.
pub(crate) fn read<'de, T: serde::Deserialize<'de>>(node: &'de Node) -> Result<T, Finding> {
    T::deserialize(node).map_err(|error| error.finding(&node.span))
}

/// What `serde` has to complain of, and where.
#[derive(Debug)]
pub(crate) struct NodeError {
    message: String,
    label: Option<String>,
    help: Option<String>,
    span: Option<Span>,
}

impl NodeError {
    fn at(mut self, span: &Span) -> Self {
        self.span.get_or_insert_with(|| span.clone());
        self
    }

    fn finding(self, fallback: &Span) -> Finding {
        let label = self.label.unwrap_or_else(|| "here".to_owned());
        Finding::new(self.span.unwrap_or_else(|| fallback.clone()), self.message)
            .label(label)
            .maybe_help(self.help)
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for NodeError {}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Says what was found in the words of the experiment file, not of the program.
fn found(unexpected: &de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Bool(truth) => format!("`{truth}`"),
        de::Unexpected::Unsigned(integer) => format!("`{integer}`"),
        de::Unexpected::Signed(integer) => format!("`{integer}`"),
        de::Unexpected::Float(float) => format!("`{float:?}`"),
        de::Unexpected::Str(text) => format!("the text \"{text}\""),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// Says what was expected in the words of the experiment file.
fn wanted(expected: &str) -> String {
    let plain = match expected {
        "a boolean" => "`true` or `false`",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "i128" => "an integer",
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" => "an integer from 0 to 4294967295",
        "u64" | "u128" | "usize" => "an integer of at least 0",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "an integer of at least 1"
        }
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    plain.to_owned()
}

impl de::Error for NodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), label: None, help: None, span: None }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let all = if expected.is_empty() {
            "it takes no fields".to_owned()
        } else {
            format!("fields: {}", listed(expected))
        };
        let help =
            did_you_mean(field, expected.iter().copied()).map_or(all.clone(), |near| format!("{near} {all}"));
        Self {
            message: format!("unknown field `{field}`"),
            label: Some("not a field here".to_owned()),
            help: Some(help),
            span: None,
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let all = format!("one of {}", listed(expected));
        let help = did_you_mean(variant, expected.iter().copied())
            .map_or(all.clone(), |near| format!("{near} {all}"));
        Self {
            message: format!("unknown choice `{variant}`"),
            label: Some("not one of the choices".to_owned()),
            help: Some(help),
            span: None,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            message: format!("missing field `{field}`"),
            label: Some(format!("needs `{field}`")),
            help: None,
            span: None,
        }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (found, expected) = (found(&unexpected), wanted(&expected.to_string()));
        Self {
            message: format!("expected {expected}, found {found}"),
            label: Some(format!("expected {expected}")),
            help: None,
            span: None,
        }
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (found, expected) = (found(&unexpected), wanted(&expected.to_string()));
        Self {
            message: format!("{found} is out of bounds: expected {expected}"),
            label: Some(format!("expected {expected}")),
            help: None,
            span: None,
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = NodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        let result = match &self.content {
            Content::Text(text) | Content::Time(text) => visitor.visit_borrowed_str(text),
            Content::Integer(integer) => visitor.visit_i64(*integer),
            Content::Float(float) => visitor.visit_f64(*float),
            Content::Bool(truth) => visitor.visit_bool(*truth),
            Content::List(items) => visitor.visit_seq(Items { items: items.iter() }),
            Content::Table(table) => visitor.visit_map(Fields { entries: table.iter(), value: None }),
        };
        result.map_err(|error| error.at(&self.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        visitor.visit_newtype_struct(self).map_err(|error| error.at(&self.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        let result = match &self.content {
            Content::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Content::Table(table) if table.len() == 1 => {
                let (name, entry) = table.first().expect("one entry");
                visitor.visit_enum(Chosen { name, entry })
            }
            _ => Err(NodeError {
                message: format!("expected exactly one of {}", listed(variants)),
                label: Some("choose one".to_owned()),
                help: Some("a choice is a table with one entry, such as `name = { … }`".to_owned()),
                span: None,
            }),
        };
        result.map_err(|error| error.at(&self.span))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = NodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, NodeError> {
        self.items.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Fields<'de> {
    entries: indexmap::map::Iter<'de, String, Entry>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = NodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, NodeError> {
        let Some((name, entry)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.node);
        let key: de::value::StrDeserializer<'_, NodeError> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, NodeError> {
        let node = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(node).map_err(|error| error.at(&node.span))
    }
}

struct Chosen<'de> {
    name: &'de str,
    entry: &'de Entry,
}

impl<'de> EnumAccess<'de> for Chosen<'de> {
    type Error = NodeError;
    type Variant = &'de Node;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, &'de Node), NodeError> {
        let name: de::value::StrDeserializer<'_, NodeError> = self.name.into_deserializer();
        let value = seed.deserialize(name).map_err(|error| error.at(&self.entry.key))?;
        Ok((value, &self.entry.node))
    }
}

impl<'de> VariantAccess<'de> for &'de Node {
    type Error = NodeError;

    fn unit_variant(self) -> Result<(), NodeError> {
        match &self.content {
            Content::Table(table) if table.is_empty() => Ok(()),
            _ => Err(NodeError {
                message: "this choice takes no parameters".to_owned(),
                label: None,
                help: Some("write `{}`".to_owned()),
                span: Some(self.span.clone()),
            }),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, NodeError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, NodeError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NodeError> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Method {
        Ties(Ties),
        Soup,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ties {
        density: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        method: Method,
        steps: u32,
        #[serde(default)]
        names: Vec<String>,
    }

    fn read_text(text: &str) -> Result<Params, (String, String)> {
        let (table, findings) = parse(text, 0);
        assert_eq!(findings, []);
        let node = Node { span: 0..text.len(), content: Content::Table(table) };
        read::<Params>(&node).map_err(|finding| (text[finding.span].to_owned(), finding.message))
    }

    #[test]
    fn choices_are_read_with_and_without_parameters() {
        let ties = read_text("method.ties = { density = 1 }\nsteps = 3\nnames = ['a']\n").unwrap();
        assert_eq!(ties.method, Method::Ties(Ties { density: 1.0 }));
        assert_eq!(read_text("method.soup = {}\nsteps = 3\n").unwrap().method, Method::Soup);
        assert_eq!(read_text("method = 'soup'\nsteps = 3\n").unwrap().method, Method::Soup);
    }

    #[test]
    fn errors_point_at_the_characters() {
        let at = |text| read_text(text).unwrap_err();
        assert_eq!(
            at("method.ties = { dnsity = 1 }\nsteps = 3"),
            ("dnsity".into(), "unknown field `dnsity`".into())
        );
        assert_eq!(at("method.tise = {}\nsteps = 3"), ("tise".into(), "unknown choice `tise`".into()));
        assert_eq!(at("method.soup = {}\nsteps = 'x'").0, "'x'");
        assert_eq!(at("method.soup = {}\nsteps = -1").0, "-1");
        assert_eq!(at("method = { soup = {}, ties = {} }\nsteps = 1").0, "{ soup = {}, ties = {} }");
        assert_eq!(at("method.soup = {}\nsteps = 1\nnames = [1]").0, "1");
    }

    #[test]
    fn what_follows_a_syntax_error_is_still_read() {
        for text in
            ["a = \nb = 2\n", "a\nb = 2\n", "a 1\n[b]\n", "a = 1.2.3\nb = 2", "b = 1\n[a]\n[a]\nc = 1\n"]
        {
            let (table, findings) = parse(text, 0);
            assert_eq!(findings.len(), 1, "{text}: {findings:?}");
            assert!(table.contains_key("b"), "{text}");
        }
    }

    #[test]
    fn a_syntax_error_makes_its_own_table_doubtful() {
        let text = "x = 1\n[a]\ny = \n[b]\nz = 1";
        let of = |wanted: &str| &text[doubtful(text, text.find(wanted).unwrap())];
        assert_eq!(of("x"), "x = 1\n");
        assert_eq!(of("y"), "[a]\ny = \n");
        assert_eq!(of("[a]"), "[a]\ny = \n");
        assert_eq!(of("z"), "[b]\nz = 1");
    }

    #[test]
    fn messages_speak_of_the_file_and_not_of_the_program() {
        let message = |text: &str| read_text(text).unwrap_err().1;
        assert_eq!(
            message("method.soup = {}\nsteps = 'x'"),
            "expected an integer from 0 to 4294967295, found the text \"x\""
        );
        assert_eq!(
            message("method.soup = {}\nsteps = 1\nnames = 'a'"),
            "expected a list, found the text \"a\""
        );
    }

    #[test]
    fn numbers_that_cannot_be_keyed_are_refused() {
        assert_eq!(parse("a = nan", 0).1.len(), 1);
        assert_eq!(parse("a = 99999999999999999999", 0).1.len(), 1);
        assert_eq!(parse("a = 0xff", 0).0["a"].node.content, Content::Integer(255));
    }

    fn spans(table: &Table, found: &mut Vec<Span>) {
        for entry in table.values() {
            found.extend([entry.key.clone(), entry.node.span.clone()]);
            if let Some(below) = entry.node.as_table() {
                spans(below, found);
            }
        }
    }

    proptest! {
        #[test]
        fn every_span_lies_in_its_text(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::sample::select(vec![
                        "a", "é", "=", " ", "\n", "[", "]", "[[", "{", "}", "'", "\"", "\"\"\"", ".", ",", "1", "-",
                        "nan", "99999999999999999999", "#", "\r\n", "\\u00e9", "true", "a = 1\n", "[é.b]\n",
                    ])
                    .prop_map(str::to_owned),
                    ".{0,3}",
                ],
                0..24,
            )
        ) {
            let text = pieces.concat();
            let base = 7;
            let (table, findings) = parse(&text, base);
            let mut all: Vec<Span> = findings.into_iter().map(|finding| finding.span).collect();
            spans(&table, &mut all);
            for span in all {
                let of_text = span.start.checked_sub(base).zip(span.end.checked_sub(base));
                prop_assert!(of_text.is_some_and(|(start, end)| text.get(start..end).is_some()), "{span:?} in {text:?}");
                let range = doubtful(&text, span.start - base);
                prop_assert!(text.get(range).is_some());
            }
        }
    }
}
