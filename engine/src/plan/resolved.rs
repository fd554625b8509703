//! What came out of all layers: every value, and where it came from.

use std::collections::BTreeSet;

use cache::Value;

use crate::experiment::spec::StageSpec;
use crate::plan::combine::table_of;
use crate::plan::graph::Plan;
use crate::plan::node::Node;
use crate::toml::source_map::Span;
use crate::toml::value::{Content, TomlTable, Value as TomlValue};

/// One leaf of a stage's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedValue {
    /// Field names from the stage's table, joined by dots.
    pub path: String,
    /// The value, as TOML writes it.
    pub value: String,
    /// `file:line`, or why no file says it.
    pub origin: String,
    /// What it hides of the layers below, nearest first, each as `value, file:line`.
    pub hides: Vec<String>,
}

/// Returns every value of a node and its origin: parameters, seed, inputs.
pub fn resolved(plan: &Plan, node: usize) -> Vec<ResolvedValue> {
    let node = &plan.nodes()[node];
    let spec = plan.spec(node.stage);
    let table = table_of(spec, node.stage, &node.assignment);
    let root = TomlValue { span: spec.span.clone(), content: Content::Table(table) };
    let mut values = Vec::new();
    let mut hidden = Hidden { plan, spec, seen: BTreeSet::new() };
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
        let hides = hidden.at(place, root.at(place));
        values.push(ResolvedValue { path: place.join("."), value, origin, hides });
    });
    if let Some(seed) = node.seed {
        let place = ["seed".to_owned()];
        let own = root.at(&place);
        let experiment = &plan.experiment;
        let of_experiment = || match experiment.seeds_of(&spec.name) {
            Some(axis) => experiment.seed_axes[axis].field.as_ref().map(|(_, span)| span),
            None => experiment.seed_of(&spec.name).1,
        };
        let origin = match own.map(|written| &written.span).or_else(of_experiment) {
            Some(span) => plan.experiment.sources.line(span),
            None => "assumed by the experiment".to_owned(),
        };
        let hides = hidden.at(&place, own);
        values.push(ResolvedValue { path: "seed".to_owned(), value: seed.to_string(), origin, hides });
    }
    for edge in &node.inputs {
        let from = &plan.nodes()[edge.from];
        let place = ["inputs".to_owned(), edge.port.to_string()];
        let written = root.at(&place);
        let origin = written.map_or_else(String::new, |node| plan.experiment.sources.line(&node.span));
        let label = edge.label.as_ref().map_or_else(String::new, |label| format!(".{label}"));
        values.push(ResolvedValue {
            path: format!("inputs.{}{label}", edge.port),
            value: quoted(&format!("{}.{}", from.label(), edge.output)),
            origin,
            hides: hidden.at(&place, written),
        });
    }
    values
}

/// What the layers of a stage say and others override.
struct Hidden<'a> {
    plan: &'a Plan,
    spec: &'a StageSpec,
    /// The places that were reported, each once.
    seen: BTreeSet<Vec<String>>,
}

impl Hidden<'_> {
    /// Returns what the value at a place hides.
    fn at(&mut self, place: &[String], written: Option<&TomlValue>) -> Vec<String> {
        let mut hides = Vec::new();
        if !self.seen.insert(place.to_vec()) {
            return hides;
        }
        // Nearest first; the stage's own table is hidden by the variants of its axes.
        let layers = std::iter::once(&self.spec.table)
            .chain(self.spec.below.iter().rev())
            .chain(self.spec.defaults.as_deref());
        let mut spans: Vec<&Span> = written.map(|written| &written.span).into_iter().collect();
        let choices: Vec<&[String]> = (1..place.len())
            .map(|length| &place[..length])
            .filter(|prefix| self.spec.choices.iter().any(|choice| choice == prefix))
            .filter(|prefix| !self.seen.contains(*prefix))
            .collect();
        for layer in layers {
            if let Some(value) = at(layer, place)
                && !spans.contains(&&value.span)
            {
                spans.push(&value.span);
                hides.push(self.describe("", value));
            }
            for choice in &choices {
                for (path, value) in
                    at(layer, choice).map(|value| others(value, choice, place)).into_iter().flatten()
                {
                    if !spans.contains(&&value.span) {
                        spans.push(&value.span);
                        hides.push(self.describe(&format!("{path} = "), value));
                    }
                }
            }
        }
        let choices: Vec<Vec<String>> = choices.into_iter().map(<[String]>::to_vec).collect();
        self.seen.extend(choices);
        hides
    }

    fn describe(&self, path: &str, value: &TomlValue) -> String {
        let (text, line) =
            (self.plan.experiment.sources.text(&value.span), self.plan.experiment.sources.line(&value.span));
        format!("{path}{text}, {line}")
    }
}

/// Finds a value in a table of a stage.
fn at<'a>(table: &'a TomlTable, place: &[String]) -> Option<&'a TomlValue> {
    let (first, rest) = place.split_first()?;
    table.get(first)?.value.at(rest)
}

/// Returns what a choice says of other methods than the one at a place, with their paths.
fn others<'a>(value: &'a TomlValue, choice: &[String], place: &[String]) -> Vec<(String, &'a TomlValue)> {
    let path = choice.join(".");
    match &value.content {
        Content::Table(table) => table
            .iter()
            .filter(|(name, _)| **name != place[choice.len()])
            .map(|(name, entry)| (format!("{path}.{name}"), &entry.value))
            .collect(),
        Content::Text(text) if *text != place[choice.len()] => vec![(path, value)],
        _ => Vec::new(),
    }
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
