//! `metrics` as an experiment writes it: names of metrics, and of sets of them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeSeed, EnumAccess, SeqAccess, VariantAccess as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::metric::Metric;
use super::metrics::{METRICS, bleu, exact, fingerprints, levenshtein, rouge, validity};

/// A named set of metrics.
struct MetricSet {
    name: &'static str,
    metrics: &'static [&'static Metric],
}

/// All sets, in the order in which the manual shows them.
const SETS: &[MetricSet] = &[
    MetricSet {
        name: "captions",
        metrics: &[&bleu::BLEU2, &bleu::BLEU4, &rouge::ROUGE1, &rouge::ROUGE2, &rouge::ROUGE_L],
    },
    MetricSet {
        name: "molecules",
        metrics: &[
            &bleu::BLEU,
            &exact::EXACT,
            &levenshtein::LEVENSHTEIN,
            &fingerprints::MACCS_FTS,
            &fingerprints::RDK_FTS,
            &fingerprints::MORGAN_FTS,
            &validity::VALIDITY,
        ],
    },
];

/// The metrics to compute. A set stands for its metrics, so that the key is that of their list.
#[derive(Debug)]
pub(super) struct MetricList {
    metrics: Vec<&'static Metric>,
    /// For each metric, the position of what names it.
    written: Vec<usize>,
}

impl MetricList {
    fn new(named: impl IntoIterator<Item = Named>) -> Self {
        let mut list = Self { metrics: Vec::new(), written: Vec::new() };
        for (position, Named(metrics)) in named.into_iter().enumerate() {
            list.written.extend(metrics.iter().map(|_| position));
            list.metrics.extend(metrics);
        }
        list
    }

    /// Returns where the metric at a position is named in the list as written.
    pub(super) fn written(&self, position: usize) -> usize {
        self.written[position]
    }
}

impl Deref for MetricList {
    type Target = [&'static Metric];

    fn deref(&self) -> &Self::Target {
        &self.metrics
    }
}

impl Serialize for MetricList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.metrics.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MetricList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = MetricList;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the name of a set of metrics, or a list of metrics and sets")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<MetricList, E> {
                Ok(MetricList::new([Named::find(name)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<MetricList, A::Error> {
                let mut named = Vec::new();
                while let Some(item) = items.next_element::<Named>()? {
                    named.push(item);
                }
                Ok(MetricList::new(named))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// What one name stands for.
struct Named(Vec<&'static Metric>);

impl Named {
    fn find<E: serde::de::Error>(name: &str) -> Result<Self, E> {
        let set = SETS.iter().find(|set| set.name == name).map(|set| set.metrics.to_vec());
        let found = set.or_else(|| Metric::named(name).map(|metric| vec![metric]));
        found.map(Self).ok_or_else(|| E::unknown_variant(name, NAMES))
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As an enum, so that an error is at the characters of the name.
        deserializer.deserialize_enum("Metric", NAMES, NamedVisitor)
    }
}

struct NamedVisitor;

impl<'de> Visitor<'de> for NamedVisitor {
    type Value = Named;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name of a metric or of a set of metrics")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Named, E> {
        Named::find(name)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Named, A::Error> {
        let (named, content) = access.variant_seed(self)?;
        content.unit_variant()?;
        Ok(named)
    }
}

impl<'de> DeserializeSeed<'de> for NamedVisitor {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Named, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl JsonSchema for MetricList {
    fn schema_name() -> Cow<'static, str> {
        "Metrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let metric = generator.subschema_for::<Metric>();
        let sets = SETS.iter().map(|set| {
            let names: Vec<&str> = set.metrics.iter().map(|metric| metric.name).collect();
            json!({ "description": names.join(", "), "type": "string", "const": set.name })
        });
        let names: Vec<_> = sets.chain([metric.to_value()]).collect();
        json_schema!({
            "description": "A set of metrics, or a list of metrics and sets.",
            "anyOf": [{ "anyOf": names }, { "type": "array", "items": { "anyOf": names } }],
        })
    }
}

/// The names of all sets and metrics.
const NAMES: &[&str] = &{
    let mut names = [""; SETS.len() + METRICS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = if at < SETS.len() { SETS[at].name } else { METRICS[at - SETS.len()].name };
        at += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metrics: serde_json::Value) -> Result<(Vec<&'static str>, Vec<usize>), String> {
        let list: MetricList = serde_json::from_value(metrics).map_err(|error| error.to_string())?;
        Ok((list.iter().map(|metric| metric.name).collect(), list.written))
    }

    #[test]
    fn a_set_stands_for_its_metrics() {
        let captions = ["bleu2", "bleu4", "rouge1", "rouge2", "rougeL"];
        assert_eq!(read(json!("captions")).unwrap(), (captions.to_vec(), vec![0; 5]));
        let (names, written) = read(json!(["chrf", "captions", "meteor_no_wordnet"])).unwrap();
        assert_eq!((names.len(), names[0], names[6]), (7, "chrf", "meteor_no_wordnet"));
        assert_eq!(written, [0, 1, 1, 1, 1, 1, 2]);
        assert!(read(json!(["caption"])).unwrap_err().starts_with("unknown variant `caption`"));
    }

    #[test]
    fn what_is_written_again_is_the_list_of_metrics() {
        let list: MetricList = serde_json::from_value(json!("captions")).unwrap();
        let written: MetricList =
            serde_json::from_value(json!(["bleu2", "bleu4", "rouge1", "rouge2", "rougeL"])).unwrap();
        assert_eq!(serde_json::to_value(&list).unwrap(), serde_json::to_value(&written).unwrap());
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len(), "a set has the name of a metric");
    }
}
