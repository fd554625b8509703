//! `[table]` as written in the experiment file.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};

/// Describes one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Is the metric's name, for machines.
    pub name: String,
    /// Is the heading, for people.
    pub label: String,
    /// Is the number of decimals shown; without it the numbers of the column decide.
    pub digits: Option<u8>,
    /// Says which way is better, where that is known.
    pub better: Option<Better>,
}

/// Says which way a metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Marks a score.
    Higher,
    /// Marks a loss or a distance.
    Lower,
}

/// `[table]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableSpec {
    pub(crate) title: Option<String>,
    pub(crate) from: Option<String>,
    #[serde(default)]
    pub(crate) rows: Vec<String>,
    pub(crate) columns: Vec<ColumnSpec>,
    pub(crate) average: Option<Vec<String>>,
    pub published: Option<String>,
    #[serde(default)]
    pub(crate) row: Vec<RowSpec>,
    #[serde(default)]
    pub(crate) delta: Vec<DeltaSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowSpec {
    pub(crate) label: String,
    pub(crate) from: References,
    pub(crate) published: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeltaSpec {
    pub(crate) row: String,
    pub(crate) minus: String,
    pub(crate) label: Option<String>,
    pub(crate) printed: Option<String>,
}

/// A column: a metric's name, or a table that says more about it.
#[derive(Debug, Clone)]
pub(crate) struct ColumnSpec {
    pub(crate) metric: String,
    pub(crate) label: Option<String>,
    pub(crate) digits: Option<u8>,
    pub(crate) better: Option<Better>,
}

impl<'de> Deserialize<'de> for ColumnSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            metric: String,
            label: Option<String>,
            digits: Option<u8>,
            better: Option<Better>,
        }

        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ColumnSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a metric's name or a table with `metric`")
            }
            fn visit_str<E>(self, metric: &str) -> Result<ColumnSpec, E> {
                Ok(ColumnSpec { metric: metric.to_owned(), label: None, digits: None, better: None })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnSpec, A::Error> {
                let Full { metric, label, digits, better } =
                    Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ColumnSpec { metric, label, digits, better })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One reference or several: a column comes from the first whose stage makes it.
#[derive(Debug, Clone)]
pub(crate) struct References(pub Vec<String>);

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> serde::de::Visitor<'de> for OneOrMore {
            type Value = References;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a reference or a list of references")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<References, E> {
                Ok(References(vec![text.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<References, A::Error> {
                let mut references = Vec::new();
                while let Some(reference) = list.next_element()? {
                    references.push(reference);
                }
                if references.is_empty() {
                    return Err(serde::de::Error::invalid_length(0, &"at least one reference"));
                }
                Ok(References(references))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}
