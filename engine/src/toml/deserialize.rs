//! How a value becomes any `Deserialize` type, with errors that say where.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::toml::diagnostic::{Diagnostic, did_you_mean};
use crate::toml::source_map::Span;
use crate::toml::value::{Content, Entry, Value};

/// Reads a type out of a value.
pub(crate) fn read<'de, T: serde::Deserialize<'de>>(value: &'de Value) -> Result<T, Diagnostic> {
    T::deserialize(value).map_err(|error| error.diagnostic(&value.span))
}

/// Returns the names of the fields of a struct, as its `Deserialize` declares them.
pub(crate) fn field_names<T: serde::de::DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Stops at the declaration: no value is made.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// Records the fields that a struct declares, and provides none.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, de::value::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only the names of the fields are wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, de::value::Error> {
        Err(de::Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// An error of `serde`, and where it is.
#[derive(Debug)]
pub(crate) struct ValueError {
    message: String,
    label: Option<String>,
    help: Option<String>,
    span: Option<Span>,
}

impl ValueError {
    fn at(mut self, span: &Span) -> Self {
        self.span.get_or_insert_with(|| span.clone());
        self
    }

    fn diagnostic(self, fallback: &Span) -> Diagnostic {
        let label = self.label.unwrap_or_else(|| "here".to_owned());
        Diagnostic::new(self.span.unwrap_or_else(|| fallback.clone()), self.message)
            .label(label)
            .maybe_help(self.help)
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ValueError {}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Describes a value in the words of the experiment file, not of the program.
fn describe_unexpected(unexpected: &de::Unexpected<'_>) -> String {
    match unexpected {
        de::Unexpected::Bool(truth) => format!("`{truth}`"),
        de::Unexpected::Unsigned(integer) => format!("`{integer}`"),
        de::Unexpected::Signed(integer) => format!("`{integer}`"),
        de::Unexpected::Float(float) => format!("`{float:?}`"),
        de::Unexpected::Str(text) => format!("the string \"{text}\""),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// Describes an expectation in the words of the experiment file.
fn describe_expected(expected: &str) -> String {
    let plain = match expected {
        "a boolean" => "`true` or `false`",
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

impl de::Error for ValueError {
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
        let (unexpected, expected) =
            (describe_unexpected(&unexpected), describe_expected(&expected.to_string()));
        Self {
            message: format!("expected {expected}, found {unexpected}"),
            label: Some(format!("expected {expected}")),
            help: None,
            span: None,
        }
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (unexpected, expected) =
            (describe_unexpected(&unexpected), describe_expected(&expected.to_string()));
        Self {
            message: format!("{unexpected} is out of bounds: expected {expected}"),
            label: Some(format!("expected {expected}")),
            help: None,
            span: None,
        }
    }
}

impl<'de> Deserializer<'de> for &'de Value {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let result = match &self.content {
            Content::Text(text) | Content::Time(text) => visitor.visit_borrowed_str(text),
            Content::Integer(integer) => visitor.visit_i64(*integer),
            Content::Float(float) => visitor.visit_f64(*float),
            Content::Bool(truth) => visitor.visit_bool(*truth),
            Content::List(items) => visitor.visit_seq(ItemAccess { items: items.iter() }),
            Content::Table(table) => visitor.visit_map(FieldAccess { entries: table.iter(), value: None }),
        };
        result.map_err(|error| error.at(&self.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self).map_err(|error| error.at(&self.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let result = match &self.content {
            Content::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Content::Table(table) if table.len() == 1 => {
                let (name, entry) = table.first().expect("one entry");
                visitor.visit_enum(ChoiceAccess { name, entry })
            }
            _ => Err(ValueError {
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

struct ItemAccess<'de> {
    items: std::slice::Iter<'de, Value>,
}

impl<'de> SeqAccess<'de> for ItemAccess<'de> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        self.items.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct FieldAccess<'de> {
    entries: indexmap::map::Iter<'de, String, Entry>,
    value: Option<&'de Value>,
}

impl<'de> MapAccess<'de> for FieldAccess<'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        let Some((name, entry)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.value);
        let key: de::value::StrDeserializer<'_, ValueError> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(&entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ValueError> {
        let value = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(value).map_err(|error| error.at(&value.span))
    }
}

struct ChoiceAccess<'de> {
    name: &'de str,
    entry: &'de Entry,
}

impl<'de> EnumAccess<'de> for ChoiceAccess<'de> {
    type Error = ValueError;
    type Variant = &'de Value;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, &'de Value), ValueError> {
        let name: de::value::StrDeserializer<'_, ValueError> = self.name.into_deserializer();
        let value = seed.deserialize(name).map_err(|error| error.at(&self.entry.key))?;
        Ok((value, &self.entry.value))
    }
}

impl<'de> VariantAccess<'de> for &'de Value {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        match &self.content {
            Content::Table(table) if table.is_empty() => Ok(()),
            _ => Err(ValueError {
                message: "this choice takes no parameters".to_owned(),
                label: None,
                help: Some("write `{}`".to_owned()),
                span: Some(self.span.clone()),
            }),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ValueError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::toml::parse::parse;

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
        let (table, diagnostics) = parse(text, 0);
        assert_eq!(diagnostics, []);
        let value = Value { span: 0..text.len(), content: Content::Table(table) };
        read::<Params>(&value).map_err(|diagnostic| (text[diagnostic.span].to_owned(), diagnostic.message))
    }

    #[test]
    fn the_fields_of_a_struct_are_known_without_a_value() {
        assert_eq!(field_names::<Params>(), ["method", "steps", "names"]);
        assert_eq!(field_names::<Method>(), [""; 0]);
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
    fn messages_speak_of_the_file_and_not_of_the_program() {
        let message = |text: &str| read_text(text).unwrap_err().1;
        assert_eq!(
            message("method.soup = {}\nsteps = 'x'"),
            "expected an integer from 0 to 4294967295, found the string \"x\""
        );
        assert_eq!(
            message("method.soup = {}\nsteps = 1\nnames = 'a'"),
            "expected a list, found the string \"a\""
        );
    }
}
