//! Canonical encoding: one byte string per value, whatever made the value.
//!
//! The format, version 1. Every value is one tag byte and its payload; all integers in the
//! encoding are big-endian.
//!
//! | tag  | value   | payload |
//! |------|---------|---------|
//! | 0x00 | null    | none |
//! | 0x01 | false   | none |
//! | 0x02 | true    | none |
//! | 0x03 | integer | 16 bytes, two's complement |
//! | 0x04 | float   | 8 bytes, IEEE 754 bits; every NaN is 0x7ff8000000000000 |
//! | 0x05 | text    | 8-byte length, UTF-8 bytes |
//! | 0x06 | bytes   | 8-byte length, bytes |
//! | 0x07 | list    | 8-byte count, the values |
//! | 0x08 | map     | 8-byte count, then per entry in the order of the keys' bytes: 8-byte length, key, value |
//! | 0x09 | digest  | 32 bytes: the content of a file or folder |
//!
//! Structs are maps; a field that is `None` is left out, so that a parameter added later as an
//! `Option` leaves old keys as they were. An enum variant is its name as text or, with content,
//! a map of one entry. Paths have no encoding: they must be replaced by digests before.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{self, Serialize};

use crate::digest::Digest;

/// The newtype name by which a serialised path tells this module that it is one.
pub const PATH_TOKEN: &str = "$pipeline::path";

/// The same for a path whose last name and executable bit are seen by whoever reads the file.
pub const NAMED_PATH_TOKEN: &str = "$pipeline::named-path";

/// A value that could not be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    /// A path that nobody replaced by the digest of what it names.
    #[error("path `{0}` has no digest yet")]
    Path(String),
    /// Whatever a `Serialize` implementation complained of.
    #[error("{0}")]
    Custom(String),
}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// Gives the value that stands for a path: from its place (field names and list positions from
/// the root), its text, and what of the file is seen.
pub type DigestOf<'a, E> = &'a mut dyn FnMut(&[String], &str, Visible) -> Result<Value, E>;

/// What of a file that a path names is seen by whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visible {
    /// The content alone.
    Content,
    /// The content, the last name of the path, and whether the file is executable.
    NameAndContent,
}

/// A value with exactly one encoding.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of any width up to 128 bits.
    Integer(i128),
    /// A float, compared and encoded by its bits.
    Float(f64),
    /// Text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
    /// The content of a file or folder.
    Digest(Digest),
    /// A path as written, which must become a [`Value::Digest`] before it is encoded.
    Path(String),
    /// The same for a file that is seen with its name and executable bit.
    NamedPath(String),
}

impl Value {
    /// Turns anything serialisable into a value.
    ///
    /// # Errors
    /// [`EncodeError::Custom`] if a map key is not text or the type refuses.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, EncodeError> {
        value.serialize(ToValue)
    }

    /// Builds a map from pairs.
    pub fn map<const N: usize>(pairs: [(&str, Value); N]) -> Self {
        Self::Map(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Feeds the canonical encoding to `sink`, piece by piece.
    ///
    /// # Errors
    /// [`EncodeError::Path`] if a path is left.
    pub fn encode(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), EncodeError> {
        match self {
            Self::Null => sink(&[0x00]),
            Self::Bool(false) => sink(&[0x01]),
            Self::Bool(true) => sink(&[0x02]),
            Self::Integer(integer) => {
                sink(&[0x03]);
                sink(&integer.to_be_bytes());
            }
            Self::Float(float) => {
                let bits = if float.is_nan() { 0x7ff8_0000_0000_0000 } else { float.to_bits() };
                sink(&[0x04]);
                sink(&bits.to_be_bytes());
            }
            Self::Text(text) => {
                sink(&[0x05]);
                prefixed(text.as_bytes(), sink);
            }
            Self::Bytes(bytes) => {
                sink(&[0x06]);
                prefixed(bytes, sink);
            }
            Self::List(items) => {
                sink(&[0x07]);
                sink(&(items.len() as u64).to_be_bytes());
                for item in items {
                    item.encode(sink)?;
                }
            }
            Self::Map(entries) => {
                sink(&[0x08]);
                sink(&(entries.len() as u64).to_be_bytes());
                for (name, value) in entries {
                    prefixed(name.as_bytes(), sink);
                    value.encode(sink)?;
                }
            }
            Self::Digest(digest) => {
                sink(&[0x09]);
                sink(digest.as_bytes());
            }
            Self::Path(path) | Self::NamedPath(path) => return Err(EncodeError::Path(path.clone())),
        }
        Ok(())
    }

    /// Replaces every path by what `digest_of` gives for it.
    ///
    /// # Errors
    /// The first error of `digest_of`.
    pub fn resolve_paths<E>(&mut self, digest_of: DigestOf<'_, E>) -> Result<(), E> {
        self.resolve_below(&mut Vec::new(), digest_of)
    }

    fn resolve_below<E>(&mut self, place: &mut Vec<String>, digest_of: DigestOf<'_, E>) -> Result<(), E> {
        match self {
            Self::Path(path) => *self = digest_of(place, path, Visible::Content)?,
            Self::NamedPath(path) => *self = digest_of(place, path, Visible::NameAndContent)?,
            Self::List(items) => {
                for (position, item) in items.iter_mut().enumerate() {
                    place.push(position.to_string());
                    item.resolve_below(place, digest_of)?;
                    place.pop();
                }
            }
            Self::Map(entries) => {
                for (name, value) in entries {
                    place.push(name.clone());
                    value.resolve_below(place, digest_of)?;
                    place.pop();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn prefixed(bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
    sink(&(bytes.len() as u64).to_be_bytes());
    sink(bytes);
}

/// Serialises with JSON's look, for people and for manifests; digests and paths are text.
impl Serialize for Value {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(small), _) => serializer.serialize_i64(small),
                (_, Ok(large)) => serializer.serialize_u64(large),
                _ => serializer.serialize_i128(*value),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) | Self::Path(text) | Self::NamedPath(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map(entries),
            Self::Digest(digest) => serializer.serialize_str(&format!("blake3:{digest}")),
        }
    }
}

struct ToValue;

struct ListBuilder {
    variant: Option<&'static str>,
    items: Vec<Value>,
}

struct MapBuilder {
    variant: Option<&'static str>,
    entries: BTreeMap<String, Value>,
    key: Option<String>,
}

fn under(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::map([(name, value)]),
        None => value,
    }
}

impl ser::Serializer for ToValue {
    type Ok = Value;
    type Error = EncodeError;
    type SerializeSeq = ListBuilder;
    type SerializeTuple = ListBuilder;
    type SerializeTupleStruct = ListBuilder;
    type SerializeTupleVariant = ListBuilder;
    type SerializeMap = MapBuilder;
    type SerializeStruct = MapBuilder;
    type SerializeStructVariant = MapBuilder;

    fn serialize_bool(self, v: bool) -> Result<Value, EncodeError> {
        Ok(Value::Bool(v))
    }
    fn serialize_i8(self, v: i8) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_i16(self, v: i16) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_i32(self, v: i32) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_i64(self, v: i64) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_i128(self, v: i128) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v))
    }
    fn serialize_u8(self, v: u8) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_u16(self, v: u16) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_u32(self, v: u32) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    fn serialize_u64(self, v: u64) -> Result<Value, EncodeError> {
        Ok(Value::Integer(v.into()))
    }
    // An f32 widens exactly, so its key is that of the f64 with the same value.
    fn serialize_f32(self, v: f32) -> Result<Value, EncodeError> {
        Ok(Value::Float(v.into()))
    }
    fn serialize_f64(self, v: f64) -> Result<Value, EncodeError> {
        Ok(Value::Float(v))
    }
    fn serialize_char(self, v: char) -> Result<Value, EncodeError> {
        Ok(Value::Text(v.to_string()))
    }
    fn serialize_str(self, v: &str) -> Result<Value, EncodeError> {
        Ok(Value::Text(v.to_owned()))
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<Value, EncodeError> {
        Ok(Value::Bytes(v.to_vec()))
    }
    fn serialize_none(self) -> Result<Value, EncodeError> {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, EncodeError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Value, EncodeError> {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, EncodeError> {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, EncodeError> {
        Ok(Value::Text(variant.to_owned()))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, EncodeError> {
        match (name, value.serialize(self)?) {
            (PATH_TOKEN, Value::Text(path)) => Ok(Value::Path(path)),
            (NAMED_PATH_TOKEN, Value::Text(path)) => Ok(Value::NamedPath(path)),
            (_, value) => Ok(value),
        }
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, EncodeError> {
        Ok(under(Some(variant), value.serialize(self)?))
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<ListBuilder, EncodeError> {
        Ok(ListBuilder { variant: None, items: Vec::with_capacity(len.unwrap_or(0)) })
    }
    fn serialize_tuple(self, len: usize) -> Result<ListBuilder, EncodeError> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<ListBuilder, EncodeError> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<ListBuilder, EncodeError> {
        Ok(ListBuilder { variant: Some(variant), items: Vec::with_capacity(len) })
    }
    fn serialize_map(self, _: Option<usize>) -> Result<MapBuilder, EncodeError> {
        Ok(MapBuilder { variant: None, entries: BTreeMap::new(), key: None })
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<MapBuilder, EncodeError> {
        self.serialize_map(None)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<MapBuilder, EncodeError> {
        Ok(MapBuilder { variant: Some(variant), entries: BTreeMap::new(), key: None })
    }
}

macro_rules! list_end {
    ($($Trait:ident :: $method:ident),+) => {$(
        impl ser::$Trait for ListBuilder {
            type Ok = Value;
            type Error = EncodeError;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.items.push(value.serialize(ToValue)?);
                Ok(())
            }
            fn end(self) -> Result<Value, EncodeError> {
                Ok(under(self.variant, Value::List(self.items)))
            }
        }
    )+};
}
list_end!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl ser::SerializeMap for MapBuilder {
    type Ok = Value;
    type Error = EncodeError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        match key.serialize(ToValue)? {
            Value::Text(text) => self.key = Some(text),
            Value::Integer(integer) => self.key = Some(integer.to_string()),
            _ => return Err(EncodeError::Custom("map keys must be text".to_owned())),
        }
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let key = self.key.take().expect("serde gives a key before its value");
        self.entries.insert(key, value.serialize(ToValue)?);
        Ok(())
    }
    fn end(self) -> Result<Value, EncodeError> {
        Ok(under(self.variant, Value::Map(self.entries)))
    }
}

macro_rules! struct_end {
    ($($Trait:ident),+) => {$(
        impl ser::$Trait for MapBuilder {
            type Ok = Value;
            type Error = EncodeError;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                let value = value.serialize(ToValue)?;
                if value != Value::Null {
                    self.entries.insert(name.to_owned(), value);
                }
                Ok(())
            }
            fn end(self) -> Result<Value, EncodeError> {
                Ok(under(self.variant, Value::Map(self.entries)))
            }
        }
    )+};
}
struct_end!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut |piece| out.extend_from_slice(piece)).unwrap();
        out
    }

    #[derive(Serialize)]
    struct Path(&'static str);

    #[derive(Serialize)]
    #[serde(rename = "$pipeline::path")]
    struct Marked(&'static str);

    #[derive(Serialize)]
    struct Params {
        b: f64,
        a: u32,
        later: Option<u32>,
    }

    #[test]
    fn a_struct_is_a_sorted_map_without_its_nones() {
        let value = Value::of(&Params { b: 0.5, a: 1, later: None }).unwrap();
        assert_eq!(value, Value::map([("a", Value::Integer(1)), ("b", Value::Float(0.5))]));
        let mut expected = vec![0x08, 0, 0, 0, 0, 0, 0, 0, 2];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 1, b'a', 0x03]);
        expected.extend(1i128.to_be_bytes());
        expected.extend([0, 0, 0, 0, 0, 0, 0, 1, b'b', 0x04]);
        expected.extend(0.5f64.to_bits().to_be_bytes());
        assert_eq!(bytes(&value), expected);
    }

    #[test]
    fn only_a_marked_newtype_is_a_path_and_a_path_is_not_encoded() {
        assert_eq!(Value::of(&Path("x")).unwrap(), Value::Text("x".to_owned()));
        let mut path = Value::of(&Marked("x")).unwrap();
        assert_eq!(path.encode(&mut |_| ()), Err(EncodeError::Path("x".to_owned())));
        let digest = Digest::of(b"x");
        path.resolve_paths::<()>(&mut |_, _, _| Ok(Value::Digest(digest))).unwrap();
        assert_eq!(path, Value::Digest(digest));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|i| Value::Integer(i.into())),
            any::<f64>().prop_filter("by bits", |f| !f.is_nan()).prop_map(Value::Float),
            ".{0,6}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map(".{0,4}", inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    fn same_bits(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Float(x), Value::Float(y)) => x.to_bits() == y.to_bits(),
            (Value::List(x), Value::List(y)) => {
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_bits(x, y))
            }
            (Value::Map(x), Value::Map(y)) => {
                x.len() == y.len() && x.iter().zip(y).all(|((k, x), (l, y))| k == l && same_bits(x, y))
            }
            _ => a == b,
        }
    }

    proptest! {
        #[test]
        fn different_values_have_different_encodings(a in any_value(), b in any_value()) {
            prop_assert_eq!(bytes(&a) == bytes(&b), same_bits(&a, &b));
        }

        #[test]
        fn no_encoding_is_the_beginning_of_another(a in any_value(), b in any_value()) {
            let (a_bytes, b_bytes) = (bytes(&a), bytes(&b));
            prop_assert!(a_bytes == b_bytes || !b_bytes.starts_with(&a_bytes));
        }
    }
}
