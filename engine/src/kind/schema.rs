//! Uses the kinds' JSON Schemas: which fields are choices, and the schema of experiment files for editors.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kind::stage::Kind;
use crate::toml::source_map::Span;
use crate::toml::value::Value as TomlValue;

/// Returns the paths of all fields of a kind that are choices: tables with one entry.
pub(crate) fn choices_of(kind: &Kind) -> Vec<Vec<String>> {
    let schema = kind.schema();
    let mut choices = Vec::new();
    walk(&schema, &schema, &mut Vec::new(), &mut choices, 0);
    choices
}

fn walk(root: &Value, node: &Value, place: &mut Vec<String>, choices: &mut Vec<Vec<String>>, depth: usize) {
    // A type that contains itself would be walked for ever.
    if depth > 16 {
        return;
    }
    let node = resolve(root, node);
    let branches = branches(root, node);
    if branches.iter().any(|branch| is_variant(branch)) {
        choices.push(place.clone());
    } else if let [only] = branches.as_slice() {
        walk(root, only, place, choices, depth + 1);
    }
    for (name, below) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        place.push(name.clone());
        walk(root, below, place, choices, depth + 1);
        place.pop();
    }
}

/// Returns the alternatives of a node, but for the absence of a value.
fn branches<'a>(root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    let alternatives = ["oneOf", "anyOf"].iter().filter_map(|word| node.get(word)?.as_array()).flatten();
    let alternatives = alternatives.map(|branch| resolve(root, branch));
    alternatives.filter(|branch| branch.get("type") != Some(&json!("null"))).collect()
}

fn is_variant(branch: &Value) -> bool {
    let properties = branch.get("properties").and_then(Value::as_object);
    let required = branch.get("required").and_then(Value::as_array);
    properties.is_some_and(|properties| properties.len() == 1)
        && required.is_some_and(|names| names.len() == 1)
}

fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    node.get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| root.pointer(reference.strip_prefix('#')?))
        .unwrap_or(node)
}

/// Finds a field of a table that its kind does not have, at any depth: its path, where it is written,
/// and the names that are known there. `common` names fields of the table that are not the kind's.
pub(crate) fn unknown_field(
    kind: &Kind,
    table: &TomlValue,
    common: &[&str],
) -> Option<(Vec<String>, Span, Vec<String>)> {
    let schema = kind.schema();
    let known = schema.get("properties").and_then(Value::as_object);
    let mut names: Vec<String> = known.into_iter().flat_map(Map::keys).cloned().collect();
    names.extend(common.iter().map(|name| (*name).to_owned()));
    let is_common = |name: &str| common.contains(&name);
    table.as_table()?.iter().filter(|(name, _)| !is_common(name)).find_map(|(name, entry)| {
        match known.and_then(|known| known.get(name)) {
            None => Some((vec![name.clone()], entry.key.clone(), names.clone())),
            Some(below) => unknown_below(&schema, below, &entry.value, vec![name.clone()], 0),
        }
    })
}

fn unknown_below(
    root: &Value,
    node: &Value,
    value: &TomlValue,
    place: Vec<String>,
    depth: usize,
) -> Option<(Vec<String>, Span, Vec<String>)> {
    let table = value.as_table().filter(|_| depth <= 16)?;
    let mut names: Vec<String> = Vec::new();
    let mut is_open = true;
    let mut fields: BTreeMap<&str, &Value> = BTreeMap::new();
    let node = resolve(root, node);
    for part in std::iter::once(node).chain(branches(root, node)) {
        let properties = part.get("properties").and_then(Value::as_object);
        for (name, below) in properties.into_iter().flatten() {
            names.push(name.clone());
            fields.entry(name).or_insert(below);
        }
        // A table of any names has a schema for its values; what is not a table has no properties.
        is_open &= properties.is_none() || part.get("additionalProperties") != Some(&json!(false));
    }
    table.iter().find_map(|(name, entry)| {
        let place: Vec<String> = place.iter().chain([name]).cloned().collect();
        match fields.get(name.as_str()) {
            Some(below) => unknown_below(root, below, &entry.value, place, depth + 1),
            None if is_open => None,
            None => Some((place, entry.key.clone(), names.clone())),
        }
    })
}

/// Returns a JSON Schema of experiment files, for editors. `own_kinds` are kinds that an experiment
/// defines, each with the schema of its parameters.
pub fn schema(kinds: &[Kind], own_kinds: &[(String, Value)]) -> Value {
    let mut definitions = BTreeMap::new();
    let mut stages = Vec::new();
    let mut defaults = Map::new();
    let of_program = kinds.iter().map(|kind| (kind.name(), kind.is_seeded(), kind.schema()));
    let of_experiment = own_kinds.iter().map(|(name, schema)| (name.as_str(), false, schema.clone()));
    for (name, is_seeded, mut own) in of_program.chain(of_experiment) {
        // Definitions are shared by name among all kinds, so each kind gets its own room.
        let prefix = format!("{name}.");
        rename_references(&mut own, &prefix);
        let object = own.as_object_mut().expect("parameters are a struct");
        if let Some(Value::Object(inner)) = object.remove("$defs") {
            definitions.extend(inner.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        object.remove("$schema");
        // Which parameters are required is known only after all layers and axes are applied.
        object.remove("required");
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        let properties = properties.as_object_mut().expect("properties are an object");
        properties.extend(common_fields(is_seeded));
        defaults.insert(name.to_owned(), own.clone());
        let object = own.as_object_mut().expect("parameters are a struct");
        let properties = object["properties"].as_object_mut().expect("properties are an object");
        properties.insert("kind".to_owned(), json!({ "const": name }));
        properties.extend(stage_fields());
        object.insert("required".to_owned(), json!(["kind"]));
        stages.push(own);
    }
    let stages: Vec<Value> = stages.into_iter().chain([json!({ "not": { "required": ["kind"] } })]).collect();
    definitions.insert(
        "stages".to_owned(),
        json!({ "type": "object", "additionalProperties": { "anyOf": stages } }),
    );
    // `NAMESPACE/KIND` is known only by the files that are included.
    let of_namespaces = json!({ "/": { "type": "object" } });
    definitions.insert(
        "defaults".to_owned(),
        json!({
            "type": "object",
            "properties": defaults,
            "patternProperties": of_namespaces,
            "additionalProperties": false
        }),
    );
    definitions.insert("kind".to_owned(), own_kind());
    definitions.insert("table".to_owned(), table_schema());
    definitions.insert(
        "include".to_owned(),
        json!({
            "type": ["array", "object"],
            "items": { "type": ["string", "object"], "additionalProperties": { "type": "string" } },
            "additionalProperties": { "type": "string" }
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline experiment",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "experiment": {
                "type": "object",
                "properties": {
                    "title": { "type": "string" },
                    "include": { "$ref": "#/$defs/include" },
                    "seed": { "type": "integer", "minimum": 0 },
                    "seeds": {
                        "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1,
                        "uniqueItems": true
                    }
                },
                "additionalProperties": false
            },
            "stages": { "$ref": "#/$defs/stages" },
            "defaults": { "$ref": "#/$defs/defaults" },
            "profile": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "stages": { "$ref": "#/$defs/stages" },
                        "defaults": { "$ref": "#/$defs/defaults" },
                        "kinds": { "type": "object", "additionalProperties": { "$ref": "#/$defs/kind" } },
                        "include": { "$ref": "#/$defs/include" },
                        "table": { "$ref": "#/$defs/table" },
                        "tables": { "type": "object", "additionalProperties": { "$ref": "#/$defs/table" } },
                        "note": { "type": "string" }
                    }
                }
            },
            "kinds": { "type": "object", "additionalProperties": { "$ref": "#/$defs/kind" } },
            "table": { "$ref": "#/$defs/table" },
            "tables": { "type": "object", "additionalProperties": { "$ref": "#/$defs/table" } }
        },
        "$defs": definitions
    })
}

/// Returns the schema of a table.
fn table_schema() -> Value {
    let references = json!({ "type": ["string", "array"], "items": { "type": "string" } });
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    let column = |required: &[&str]| {
        json!({
            "type": "object",
            "properties": {
                "metric": { "type": "string", "description": "In a list: the name of the metric." },
                "label": { "type": "string", "description": "The heading." },
                "digits": { "type": "integer", "minimum": 0, "maximum": 255 },
                "better": { "enum": ["higher", "lower"] }
            },
            "required": required,
            "additionalProperties": false
        })
    };
    let listed =
        json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, column(&["metric"])] } });
    let by_name = |properties: Value, required: &[&str]| {
        let entry = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false
        });
        json!({ "type": "object", "additionalProperties": entry })
    };
    let row = json!({
        "from": references,
        "published": { "type": "string", "description": "The published row beside it." }
    });
    let delta = json!({
        "row": { "type": "string" },
        "minus": { "type": "string" },
        "printed": { "type": "string" }
    });
    let condition = json!({
        "stage": { "type": "string" },
        "is": { "type": "object", "description": "The fields that the stage must have." },
        "says": { "type": "string" }
    });
    let published = json!({
        "type": "object",
        "properties": { "file": { "type": "string" }, "except": strings },
        "additionalProperties": false
    });
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string" },
            "from": references.clone(),
            "also_from": references,
            "rows": by_name(row, &[]),
            "columns": { "anyOf": [listed, { "type": "object", "additionalProperties": column(&[]) }] },
            "average": strings,
            "published": { "anyOf": [{ "type": "string" }, published] },
            "deltas": by_name(delta, &[]),
            "comparable": by_name(condition, &[]),
            "remove": { "type": "array", "items": { "type": "string" }, "description": "What lower layers say." }
        },
        "additionalProperties": false
    })
}

/// Returns the schema of a kind that an experiment defines.
fn own_kind() -> Value {
    let parameter = json!({
        "type": "object",
        "properties": {
            "type": { "enum": ["string", "integer", "number", "boolean", "list", "file"] },
            "choices": { "type": "array", "items": { "type": "string" } },
            "default": {},
            "help": { "type": "string" }
        },
        "additionalProperties": false
    });
    let input = json!({
        "type": "object",
        "properties": {
            "type": { "type": ["string", "array"] },
            "optional": { "type": "boolean" },
            "several": { "type": "boolean" }
        },
        "required": ["type"],
        "additionalProperties": false
    });
    json!({
        "type": "object",
        "properties": {
            "about": { "type": "string" },
            "run": { "type": ["string", "array"], "items": { "type": "string" } },
            "files": { "type": "array", "items": { "type": "string" } },
            "inputs": {
                "type": "object",
                "additionalProperties": { "anyOf": [{ "type": ["string", "array"] }, input] }
            },
            "outputs": { "type": "object", "additionalProperties": { "type": "object" } },
            "parameters": {
                "type": "object",
                "additionalProperties": { "anyOf": [{ "not": { "type": "object" } }, parameter] }
            },
            "environment": {
                "type": "object",
                "properties": {
                    "lock": { "type": "string" },
                    "packages": { "type": "array", "items": { "type": "string" } },
                    "container": { "type": "string" }
                },
                "additionalProperties": false
            },
            "resources": { "type": "object" },
            "timeout_seconds": { "type": "number", "exclusiveMinimum": 0 },
            "retries": { "type": "integer", "minimum": 0 },
            "retry_on": { "type": "array" }
        },
        "additionalProperties": false
    })
}

/// Returns the fields that stages of a kind and their defaults have besides parameters.
fn common_fields(is_seeded: bool) -> Map<String, Value> {
    let mut fields = object(json!({
        "about": { "type": "string", "description": "What this stage is for; not part of the key." },
        "inputs": { "type": "object", "additionalProperties": { "type": ["string", "array"] } },
        "remove": { "type": "array", "items": { "type": "string" } },
        "resources": {
            "type": "object",
            "properties": { "cores": { "type": "integer", "minimum": 1 }, "memory": { "type": "string" } },
            "additionalProperties": false
        },
        "timeout_seconds": { "type": "number", "exclusiveMinimum": 0 },
        "retries": { "type": "integer", "minimum": 0 },
        "retry_on": { "type": "array", "items": { "enum": ["failed", "exited", "killed", "timed-out"] } }
    }));
    if is_seeded {
        fields.insert("seed".to_owned(), json!({ "type": "integer", "minimum": 0 }));
    }
    fields
}

/// Returns the fields that only stages have.
fn stage_fields() -> Map<String, Value> {
    object(json!({
        "replace": { "type": "boolean" },
        "axes": { "type": "object", "additionalProperties": { "type": "object" } },
        "only": { "type": "array", "items": { "type": "object" } },
        "except": { "type": "array", "items": { "type": "object" } }
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("written as an object"),
    }
}

fn rename_references(node: &mut Value, prefix: &str) {
    match node {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("$ref", Value::String(reference)) = (name.as_str(), &mut *value) {
                    *reference = reference.replace("#/$defs/", &format!("#/$defs/{prefix}"));
                } else {
                    rename_references(value, prefix);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, prefix)),
        _ => {}
    }
}
