//! What came out of all layers: every value, and where it came from.

use cache::Value;

use crate::plan::expand::table_of;
use crate::plan::graph::Plan;
use crate::plan::node::Node;
use crate::toml::value::{Content, Value as TomlValue};

/// One leaf of a stage's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedValue {
    /// Field names from the stage's table, joined by dots.
    pub path: String,
    /// The value, as TOML writes it.
    pub value: String,
    /// `file:line`, or why no file says it.
    pub origin: String,
}

/// Returns every value of a node and its origin: parameters, seed, inputs.
pub fn resolved(plan: &Plan, node: usize) -> Vec<ResolvedValue> {
    let node = &plan.nodes()[node];
    let spec = plan.spec(node.stage);
    let table = table_of(spec, node.stage, &node.assignment);
    let root = TomlValue { span: spec.span.clone(), content: Content::Table(table) };
    let mut values = Vec::new();
    leaves(&with_tuning(node), &mut Vec::new(), &mut |place, value| {
        let (value, origin) = match root.at(place) {
            Some(written) => {
                // As written: a path keeps its variable, which says more than where it led.
                let value = if let Value::Path(_) | Value::NamedPath(_) = value {
                    quoted(written.as_text().unwrap_or(""))
                } else {
                    toml(value)
                };
                (value, plan.experiment.sources.line(&written.span))
            }
            None => (toml(value), format!("assumed by `{}`", node.kind.name())),
        };
        values.push(ResolvedValue { path: place.join("."), value, origin });
    });
    if let Some(seed) = node.seed {
        let own = root.at(&["seed".to_owned()]).map(|written| &written.span);
        let origin = match own.or(plan.experiment.seed_span.as_ref()) {
            Some(span) => plan.experiment.sources.line(span),
            None => "assumed by the experiment".to_owned(),
        };
        values.push(ResolvedValue { path: "seed".to_owned(), value: seed.to_string(), origin });
    }
    for edge in &node.inputs {
        let from = &plan.nodes()[edge.from];
        let place = ["inputs".to_owned(), edge.port.to_string()];
        let origin =
            root.at(&place).map_or_else(String::new, |node| plan.experiment.sources.line(&node.span));
        let label = edge.label.as_ref().map_or_else(String::new, |label| format!(".{label}"));
        values.push(ResolvedValue {
            path: format!("inputs.{}{label}", edge.port),
            value: quoted(&format!("{}.{}", from.label(), edge.output)),
            origin,
        });
    }
    values
}

/// Returns all fields of a node's table that its kind reads, by name.
fn with_tuning(node: &Node) -> Value {
    match (node.params.clone(), node.tuning.clone()) {
        (Value::Map(mut fields), Value::Map(tuning)) => {
            fields.extend(tuning);
            Value::Map(fields)
        }
        (params, _) => params,
    }
}

/// Visits leaves; a list is one, and so is an empty table.
fn leaves(value: &Value, place: &mut Vec<String>, visit: &mut dyn FnMut(&[String], &Value)) {
    match value {
        Value::Map(entries) if !entries.is_empty() => {
            for (name, below) in entries {
                place.push(name.clone());
                leaves(below, place, visit);
                place.pop();
            }
        }
        _ => visit(place, value),
    }
}

fn toml(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Integer(integer) => integer.to_string(),
        Value::Float(float) => format!("{float:?}"),
        Value::Text(text) | Value::Path(text) | Value::NamedPath(text) => quoted(text),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Digest(digest) => quoted(&format!("blake3:{digest}")),
        Value::List(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let inside: Vec<String> =
                entries.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
            if inside.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", inside.join(", ")) }
        }
    }
}

fn quoted(text: &str) -> String {
    // TOML's basic strings take JSON's escapes.
    serde_json::Value::String(text.to_owned()).to_string()
}
