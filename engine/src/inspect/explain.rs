//! Why a stage hits or misses: what differs from the nearest earlier run, then the chain.

use std::collections::{BTreeMap, BTreeSet};

use cache::{Cache, CacheError, Key, Recipe};
use serde_json::Value;

use crate::inspect::status::{State, forecast};
use crate::plan::graph::Plan;
use crate::plan::key::Keys;
use crate::plan::resolved::resolved;

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is: a parameter, a version, an input.
    pub what: String,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
    /// Where the new value is written.
    pub place: Option<String>,
}

/// A stage in the chain of causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The stage's label.
    pub stage: String,
    /// What changed in it. Empty if it was never seen before.
    pub changes: Vec<Change>,
    /// Whether an earlier run of this stage is remembered.
    pub was_seen: bool,
}

/// Why a stage would do what it would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What it would do.
    pub state: State,
    /// Its recipe key, if it is known.
    pub key: Option<Key>,
    /// The stage itself, then the upstream stages whose changes reach it.
    pub chain: Vec<Link>,
}

/// Explains a node.
///
/// # Errors
/// [`CacheError`] if the cache cannot be read.
pub fn explain(
    plan: &Plan,
    keys: &Keys,
    cache: Option<&Cache>,
    node: usize,
) -> Result<Explanation, CacheError> {
    let state = forecast(plan, keys, cache)?[node].state;
    let mut chain = Vec::new();
    let Some(cache) = cache else {
        return Ok(Explanation { state, key: keys.recipe(node), chain });
    };
    let experiment = std::path::absolute(plan.experiment().file()).unwrap_or_default().display().to_string();
    let mut open = vec![node];
    let mut seen = BTreeSet::new();
    while let Some(node) = open.pop() {
        if !seen.insert(node) {
            continue;
        }
        let label = plan.nodes()[node].label().to_owned();
        let (Some(key), Some(current)) = (keys.recipe(node), keys.document(plan, node)) else {
            continue;
        };
        let earlier = cache.index().history(&experiment, &label)?;
        let others = earlier.iter().filter(|seen| seen.key != key);
        // The nearest is the one with the fewest differences; among equals the newest.
        let nearest = others.min_by_key(|seen| differences(&seen.recipe, &current).len());
        let Some(nearest) = nearest else {
            if chain.is_empty() || earlier.is_empty() {
                chain.push(Link { stage: label, changes: Vec::new(), was_seen: !earlier.is_empty() });
            }
            continue;
        };
        let places: BTreeMap<String, String> =
            resolved(plan, node).into_iter().map(|value| (value.path, value.origin)).collect();
        let mut changes = Vec::new();
        for mut change in differences(&nearest.recipe, &current) {
            change.what = change.what.trim_start_matches("params.").to_owned();
            change.place = place_of(&places, &change.what);
            changes.push(change);
        }
        for edge in plan.nodes()[node].inputs().iter().rev() {
            let was = nearest
                .recipe
                .inputs
                .iter()
                .find(|input| edge.port == input.port && input.label == edge.label);
            if was.is_some_and(|was| Some(was.from) != keys.recipe(edge.from)) {
                open.push(edge.from);
            }
        }
        for change in &mut changes {
            if let Some(port) = change.what.strip_prefix("inputs.") {
                let edge = plan.nodes()[node]
                    .inputs()
                    .iter()
                    .find(|edge| port_of(&edge.port, edge.label.as_deref()) == port);
                if let Some((edge, key)) = edge.and_then(|edge| Some((edge, keys.recipe(edge.from)?))) {
                    change.after = format!("{} ({})", plan.nodes()[edge.from].label(), key.short());
                }
            }
        }
        chain.push(Link { stage: label, changes, was_seen: true });
    }
    Ok(Explanation { state, key: keys.recipe(node), chain })
}

/// Returns where a value was written, or else what it is a part of.
fn place_of(places: &BTreeMap<String, String>, what: &str) -> Option<String> {
    let mut what = what.strip_suffix(" in order").unwrap_or(what);
    loop {
        if let Some(place) = places.get(what) {
            return Some(place.clone());
        }
        what = what.rsplit_once('.')?.0;
    }
}

fn port_of(port: &str, label: Option<&str>) -> String {
    label.map_or_else(|| port.to_owned(), |label| format!("{port}.{label}"))
}

/// Lists what differs between two recipes.
fn differences(before: &Recipe, after: &Recipe) -> Vec<Change> {
    let (old, new) = (leaves_of(before), leaves_of(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let nothing = || "none".to_owned();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| Change {
            what: name.clone(),
            before: old.get(name).cloned().unwrap_or_else(nothing),
            after: new.get(name).cloned().unwrap_or_else(nothing),
            place: None,
        })
        .collect()
}

fn leaves_of(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    leaves.insert("kind".to_owned(), recipe.kind.clone());
    leaves.insert("version of the kind".to_owned(), recipe.version.to_string());
    for (component, version) in &recipe.components {
        leaves.insert(format!("version of {component}"), version.to_string());
    }
    if let Some(seed) = recipe.seed {
        leaves.insert("seed".to_owned(), seed.to_string());
    }
    for input in &recipe.inputs {
        let name = port_of(&input.port, input.label.as_deref());
        leaves.insert(format!("inputs.{name}"), input.from.short());
        if let Some(output) = &input.output {
            leaves.insert(format!("output taken as input {name}"), output.clone());
        }
    }
    flatten("params", &recipe.params, &mut leaves);
    leaves
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, below) in fields {
                flatten(&format!("{path}.{name}"), below, leaves);
            }
        }
        // Files that are seen with their names.
        Value::Array(items) if items.iter().any(|item| item.get("content").is_some()) => {
            let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
            let names: Vec<String> = items.iter().map(name).collect();
            leaves.insert(format!("{path} in order"), names.join(", "));
            for item in items {
                let content = item["content"].as_str().unwrap_or_default();
                let executable = if item["executable"] == true { ", executable" } else { "" };
                let short = format!("{}{executable}", &content[..content.len().min(17)]);
                leaves.insert(format!("{path}.{}", name(item)), short);
            }
        }
        Value::String(text) if text.starts_with("blake3:") => {
            leaves.insert(path.to_owned(), text[..text.len().min(17)].to_owned());
        }
        _ => {
            leaves.insert(path.to_owned(), value.to_string());
        }
    }
}
