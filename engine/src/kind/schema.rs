//! Uses the kinds' JSON Schemas: which fields are choices, and the schema of experiment files for editors.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kind::stage::Kind;

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
    let branches: Vec<&Value> = ["oneOf", "anyOf"]
        .iter()
        .filter_map(|word| node.get(word)?.as_array())
        .flatten()
        .map(|branch| resolve(root, branch))
        .filter(|branch| branch.get("type") != Some(&json!("null")))
        .collect();
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

/// Returns a JSON Schema of experiment files, for editors.
pub fn schema(kinds: &[Kind]) -> Value {
    let mut definitions = BTreeMap::new();
    let mut stages = Vec::new();
    for kind in kinds {
        let mut own = kind.schema();
        // Definitions are shared by name among all kinds, so each kind gets its own room.
        let prefix = format!("{}.", kind.name());
        rename_references(&mut own, &prefix);
        let object = own.as_object_mut().expect("parameters are a struct");
        if let Some(Value::Object(inner)) = object.remove("$defs") {
            definitions.extend(inner.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        object.remove("$schema");
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        let properties = properties.as_object_mut().expect("properties are an object");
        properties.insert("kind".to_owned(), json!({ "const": kind.name() }));
        properties.extend(common_fields());
        let required = object.entry("required").or_insert_with(|| json!([]));
        // Which parameters are required is known only after profiles and axes are applied.
        *required = json!(["kind"]);
        stages.push(own);
    }
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
                    "include": { "type": "array", "items": { "type": "string" } },
                    "seed": { "type": "integer", "minimum": 0 }
                },
                "additionalProperties": false
            },
            "stages": {
                "type": "object",
                "additionalProperties": {
                    "anyOf": stages.into_iter().chain([json!({ "not": { "required": ["kind"] } })]).collect::<Vec<_>>()
                }
            },
            "profile": { "type": "object", "additionalProperties": { "type": "object" } },
            "table": {
                "type": "object",
                "properties": {
                    "title": { "type": "string" },
                    "from": { "type": "string" },
                    "rows": { "type": "array", "items": { "type": "string" } },
                    "columns": { "type": "array", "items": { "type": ["string", "object"] } },
                    "average": { "type": "array", "items": { "type": "string" } },
                    "published": { "type": "string" },
                    "row": { "type": "array", "items": { "type": "object" } },
                    "delta": { "type": "array", "items": { "type": "object" } }
                },
                "additionalProperties": false
            }
        },
        "$defs": definitions
    })
}

fn common_fields() -> Map<String, Value> {
    let fields = json!({
        "about": { "type": "string", "description": "What this stage is for; not part of the key." },
        "inputs": { "type": "object", "additionalProperties": { "type": ["string", "array"] } },
        "axes": { "type": "object", "additionalProperties": { "type": "object" } },
        "only": { "type": "array", "items": { "type": "object" } },
        "except": { "type": "array", "items": { "type": "object" } },
        "seed": { "type": "integer", "minimum": 0 },
        "resources": {
            "type": "object",
            "properties": { "cores": { "type": "integer", "minimum": 1 }, "memory": { "type": "string" } },
            "additionalProperties": false
        },
        "timeout_seconds": { "type": "number", "exclusiveMinimum": 0 },
        "retries": { "type": "integer", "minimum": 0 },
        "retry_on": { "type": "array", "items": { "enum": ["failed", "exited", "killed", "timed-out"] } }
    });
    match fields {
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
