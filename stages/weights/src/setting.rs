//! Numbers that depend on the tensor: one for all, a list spread over the layers, or by group.

use crate::place::{Group, Place};
use choice::FieldError;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// A number for every tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// One number for all.
    Number(f64),
    /// Numbers spread evenly over the layers, and in between on the line from one to the next.
    /// What is in no layer takes the first.
    Layers(Vec<f64>),
    /// The first rule that fits.
    Rules(Vec<Rule>),
}

/// A number for some tensors.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The tensors of a kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Group>,
    /// The tensors whose names have this in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_contains: Option<String>,
    /// The tensors of these layers, from the first number to before the second, counted from 0.
    /// A list is spread over them.
    #[serde(default, deserialize_with = "layer_range", skip_serializing_if = "Option::is_none")]
    layers: Option<[u64; 2]>,
    /// The number, or the list of them.
    value: Spread,
}

/// A number, or a list spread over the layers.
#[derive(Clone, Debug, PartialEq)]
enum Spread {
    Number(f64),
    Layers(Vec<f64>),
}

impl Setting {
    /// Returns the number for a tensor; none if no rule fits.
    pub fn at(&self, place: &Place) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Layers(numbers) => Some(spread(numbers, place.depth)),
            Self::Rules(rules) => rules.iter().find(|rule| rule.fits(place)).map(|rule| match &rule.value {
                Spread::Number(number) => *number,
                Spread::Layers(numbers) => spread(numbers, rule.depth(place)),
            }),
        }
    }

    /// Returns every number that is written in it, and the path to where it is. All that it gives lie
    /// between them.
    pub fn numbers(&self) -> Vec<(String, f64)> {
        let listed = |path: &str, numbers: &[f64]| -> Vec<(String, f64)> {
            let position = |(position, number): (usize, &f64)| (format!("{path}[{position}]"), *number);
            numbers.iter().enumerate().map(position).collect()
        };
        match self {
            Self::Number(number) => vec![(String::new(), *number)],
            Self::Layers(numbers) => listed("", numbers),
            Self::Rules(rules) => {
                let each = rules.iter().enumerate().map(|(rule, Rule { value, .. })| match value {
                    Spread::Number(number) => vec![(format!("[{rule}].value"), *number)],
                    Spread::Layers(numbers) => listed(&format!("[{rule}].value"), numbers),
                });
                each.flatten().collect()
            }
        }
    }

    /// Checks that there are numbers and that each may be there.
    pub(crate) fn check(&self, what: &str, may_be: impl Fn(f64) -> bool) -> Result<(), FieldError> {
        let numbers = self.numbers();
        if numbers.is_empty() {
            return Err(FieldError::new("", "a list of numbers is empty"));
        }
        match numbers.into_iter().find(|(_, number)| !may_be(*number)) {
            Some((path, number)) => Err(FieldError::new(path, format!("{number} is not {what}"))),
            None => Ok(()),
        }
    }
}

/// Reads the layers of a rule, of which there is at least one.
fn layer_range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u64; 2]>, D::Error> {
    match <[u64; 2]>::deserialize(deserializer)? {
        [first, end] if first >= end => Err(de::Error::custom(format_args!(
            "`layers = [{first}, {end}]` is no layer: the second number is left out"
        ))),
        layers => Ok(Some(layers)),
    }
}

impl Rule {
    fn fits(&self, place: &Place) -> bool {
        self.group.is_none_or(|group| place.group == Some(group))
            && self.name_contains.as_ref().is_none_or(|part| place.name.contains(part.as_str()))
            && self
                .layers
                .is_none_or(|[first, end]| place.layer.is_some_and(|layer| (first..end).contains(&layer)))
    }

    /// Returns how deep a place is among the layers of the rule.
    fn depth(&self, place: &Place) -> f64 {
        match (self.layers, place.layer) {
            (Some([first, end]), Some(layer)) if end - first > 1 => {
                (layer - first) as f64 / (end - first - 1) as f64
            }
            (Some(_), _) => 1.0,
            (None, _) => place.depth,
        }
    }
}

/// Returns the number at a depth between 0 and 1.
fn spread(numbers: &[f64], depth: f64) -> f64 {
    let scaled = depth * (numbers.len() - 1) as f64;
    let below = (scaled as usize).min(numbers.len() - 1);
    let above = (below + 1).min(numbers.len() - 1);
    let share = scaled - below as f64;
    (1.0 - share) * numbers[below] + share * numbers[above]
}

/// A setting for each model, or one for all of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PerModel {
    /// The same for all.
    All(Setting),
    /// One for each, by name.
    Each(BTreeMap<String, Setting>),
}

impl PerModel {
    /// Returns the setting of a model.
    pub(crate) fn of(&self, model: &str) -> Option<&Setting> {
        match self {
            Self::All(setting) => Some(setting),
            Self::Each(settings) => settings.get(model),
        }
    }

    /// Returns all settings, each with its model where it is for one.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (Option<&str>, &Setting)> {
        let (all, each) = match self {
            Self::All(setting) => (Some((None, setting)), None),
            Self::Each(settings) => (None, Some(settings)),
        };
        let of_models = each.into_iter().flatten().map(|(model, setting)| (Some(model.as_str()), setting));
        all.into_iter().chain(of_models)
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(serializer),
            Self::Layers(numbers) => numbers.serialize(serializer),
            Self::Rules(rules) => rules.serialize(serializer),
        }
    }
}

impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(serializer),
            Self::Layers(numbers) => numbers.serialize(serializer),
        }
    }
}

impl Serialize for PerModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All(setting) => setting.serialize(serializer),
            Self::Each(settings) => settings.serialize(serializer),
        }
    }
}

/// What a list may hold.
enum Item {
    Number(f64),
    Rule(Rule),
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number, or a rule such as `{ group = \"mlp\", value = 0.5 }`")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Item, E> {
        Ok(Item::Number(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Item, E> {
        Ok(Item::Number(number as f64))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Item, E> {
        Ok(Item::Number(number as f64))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        Rule::deserialize(MapAccessDeserializer::new(map)).map(Item::Rule)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

fn setting_of<E: de::Error>(items: Vec<Item>) -> Result<Setting, E> {
    let (mut numbers, mut rules) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Number(number) => numbers.push(number),
            Item::Rule(rule) => rules.push(rule),
        }
    }
    match (numbers.is_empty(), rules.is_empty()) {
        (false, true) => Ok(Setting::Layers(numbers)),
        (true, false) => Ok(Setting::Rules(rules)),
        (true, true) => Err(E::custom("the list is empty")),
        (false, false) => Err(E::custom("a list holds numbers or rules, not both")),
    }
}

struct SettingVisitor;

impl<'de> Visitor<'de> for SettingVisitor {
    type Value = Setting;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number, a list of numbers over the layers, or a list of rules")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Setting, E> {
        Ok(Setting::Number(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Setting, E> {
        Ok(Setting::Number(number as f64))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Setting, E> {
        Ok(Setting::Number(number as f64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Setting, A::Error> {
        setting_of(Vec::deserialize(SeqAccessDeserializer::new(items))?)
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SettingVisitor)
    }
}

impl<'de> Deserialize<'de> for Spread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Setting::deserialize(deserializer)? {
            Setting::Number(number) => Ok(Self::Number(number)),
            Setting::Layers(numbers) => Ok(Self::Layers(numbers)),
            Setting::Rules(_) => Err(de::Error::custom("a rule holds a number or a list of numbers")),
        }
    }
}

impl<'de> Deserialize<'de> for PerModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PerModelVisitor;

        impl<'de> Visitor<'de> for PerModelVisitor {
            type Value = PerModel;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number, a list, or a table with one for each input")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<PerModel, E> {
                SettingVisitor.visit_f64(number).map(PerModel::All)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PerModel, E> {
                SettingVisitor.visit_i64(number).map(PerModel::All)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PerModel, E> {
                SettingVisitor.visit_u64(number).map(PerModel::All)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<PerModel, A::Error> {
                SettingVisitor.visit_seq(items).map(PerModel::All)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PerModel, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(PerModel::Each)
            }
        }

        deserializer.deserialize_any(PerModelVisitor)
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rule = generator.subschema_for::<Rule>();
        json_schema!({
            "description": "A number, numbers spread over the layers, or rules of which the first that fits counts.",
            "anyOf": [
                { "type": "number" },
                { "type": "array", "items": { "type": "number" }, "minItems": 1 },
                { "type": "array", "items": rule, "minItems": 1 },
            ]
        })
    }
}

impl JsonSchema for Spread {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Spread".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "array"], "items": { "type": "number" }, "minItems": 1 })
    }
}

impl JsonSchema for PerModel {
    fn schema_name() -> Cow<'static, str> {
        "PerModel".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let setting = generator.subschema_for::<Setting>();
        json_schema!({
            "anyOf": [setting, { "type": "object", "additionalProperties": setting }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(written: &str, name: &str, depth: f64) -> Option<f64> {
        let setting: Setting = serde_json::from_str(written).unwrap();
        assert_eq!(
            serde_json::from_value::<Setting>(serde_json::to_value(&setting).unwrap()).unwrap(),
            setting
        );
        setting.at(&Place { depth, ..Place::of(name, 4) })
    }

    #[test]
    fn a_list_is_spread_over_the_layers() {
        let list = "[0, 0.5, 0.3, 0.7, 1]";
        for (depth, expected) in [(0.0, 0.0), (0.25, 0.5), (1.0, 1.0), (0.375, 0.4), (1.0 / 3.0, 1.3 / 3.0)] {
            let found = at(list, "x", depth).unwrap();
            assert!((found - expected).abs() < 1e-12, "{depth}: {found}");
        }
        assert_eq!((at("7", "x", 0.3), at("[2]", "x", 0.9)), (Some(7.0), Some(2.0)));
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = r#"[{"group":"attention","value":[0,1]},{"name_contains":"down","value":3},{"value":5}]"#;
        assert_eq!(at(rules, "model.layers.1.self_attn.q_proj.weight", 0.5), Some(0.5));
        assert_eq!(at(rules, "model.layers.1.mlp.down_proj.weight", 0.5), Some(3.0));
        assert_eq!(at(rules, "model.norm.weight", 0.0), Some(5.0));
        assert_eq!(at(r#"[{"group":"norms","value":1}]"#, "lm_head.weight", 0.0), None);
    }

    #[test]
    fn a_rule_may_be_for_some_layers() {
        let rules = r#"[{"layers":[0,2],"value":[1,2]},{"layers":[2,3],"value":[5,6]},{"value":[8,9]}]"#;
        let setting: Setting = serde_json::from_str(rules).unwrap();
        let at = |name: &str| setting.at(&Place::of(name, 4));
        let found = [0, 1, 2, 3].map(|layer| at(&format!("model.layers.{layer}.mlp.up_proj.weight")));
        assert_eq!(found, [Some(1.0), Some(2.0), Some(6.0), Some(9.0)]);
        assert_eq!(at("model.norm.weight"), Some(8.0));
    }

    #[test]
    fn what_is_neither_is_refused() {
        let refused = |text: &str| serde_json::from_str::<Setting>(text).unwrap_err().to_string();
        assert!(refused("[]").starts_with("the list is empty"));
        assert!(refused("[1, {\"value\": 2}]").contains("not both"));
        assert!(refused("\"1\"").contains("expected a number, a list of numbers"));
        assert!(refused("[{\"value\": [{\"value\": 1}]}]").contains("a rule holds a number"));
        assert!(refused("[{\"layers\": [2, 2], \"value\": 1}]").contains("`layers = [2, 2]` is no layer"));
        assert!(refused("[{\"group\": \"heads\", \"value\": 1}]").contains("`attention`"));
        let per: PerModel = serde_json::from_str(r#"{"a":[0,1],"b":2}"#).unwrap();
        assert_eq!((per.of("b"), per.of("c")), (Some(&Setting::Number(2.0)), None));
        assert_eq!(per.settings().count(), 2);
    }
}
