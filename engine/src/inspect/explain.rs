//! Why a stage hits or misses: what differs from the nearest earlier run, and what that comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cache::{Cache, CacheError, HistoryEntry, Key, Recipe};
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
    /// Whether it follows from a change upstream: an input that is made otherwise than before.
    pub is_derived: bool,
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

impl Explanation {
    /// Returns the changes that follow from no others, with the label of the stage that each is in.
    pub fn causes(&self) -> impl Iterator<Item = (&str, &Change)> {
        let all = self
            .chain
            .iter()
            .flat_map(|link| link.changes.iter().map(|change| (link.stage.as_str(), change)));
        all.filter(|(_, change)| !change.is_derived)
    }
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
    if let Some(cache) = cache {
        let past = Past::new(plan, keys, cache)?;
        let (nearest, was_seen) = past.nearest(node)?;
        let label = plan.nodes()[node].label().to_owned();
        match nearest {
            None => chain.push(Link { stage: label, changes: Vec::new(), was_seen }),
            Some(nearest) => {
                let mut open = vec![(node, nearest)];
                let mut seen = BTreeSet::new();
                while let Some((node, before)) = open.pop() {
                    if seen.insert(node) {
                        let Compared { changes, upstream } = past.compare(node, &before.recipe)?;
                        let stage = plan.nodes()[node].label().to_owned();
                        chain.push(Link { stage, changes, was_seen: true });
                        open.extend(upstream.into_iter().rev());
                    }
                }
            }
        }
    }
    Ok(Explanation { state, key: keys.recipe(node), chain })
}

/// The earlier runs of an experiment, and of the files that it includes: an ablation is compared with
/// what it changes.
pub(crate) struct Past<'a> {
    plan: &'a Plan,
    keys: &'a Keys,
    cache: &'a Cache,
    /// The experiment itself, then the included files that have been run by themselves.
    experiments: Vec<String>,
}

/// What is not as it was in a node.
pub(crate) struct Compared {
    pub changes: Vec<Change>,
    /// The upstream nodes that made its inputs otherwise, with the recipes that they had then.
    pub upstream: Vec<(usize, HistoryEntry)>,
}

impl<'a> Past<'a> {
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub(crate) fn new(plan: &'a Plan, keys: &'a Keys, cache: &'a Cache) -> Result<Self, CacheError> {
        let absolute = |file: &Path| std::path::absolute(file).unwrap_or_default().display().to_string();
        let mut experiments: Vec<String> = Vec::new();
        // The nearest file first: what it includes stands before it.
        let included = plan.experiment().included_files().rev().map(absolute);
        for experiment in std::iter::once(absolute(plan.experiment().file())).chain(included) {
            if !experiments.contains(&experiment) && cache.index().has_history(&experiment)? {
                experiments.push(experiment);
            }
        }
        Ok(Self { plan, keys, cache, experiments })
    }

    /// Returns whether any run is remembered.
    pub(crate) fn has_runs(&self) -> bool {
        !self.experiments.is_empty()
    }

    /// Returns the recipes that a node had, newest first: in runs of the experiment, or else in those
    /// of the nearest included file that knows it, where a namespace is no part of its name.
    fn history(&self, node: usize) -> Result<Vec<HistoryEntry>, CacheError> {
        let label = self.label(node);
        let stage = self.plan.stage_name(self.plan.nodes()[node].stage);
        let in_namespace = stage
            .rsplit_once('/')
            .and_then(|(namespace, _)| label.strip_prefix(namespace)?.strip_prefix('/'))
            .unwrap_or(label);
        for experiment in &self.experiments {
            let mut history = self.cache.index().history(experiment, label)?;
            if history.is_empty() && in_namespace != label {
                history = self.cache.index().history(experiment, in_namespace)?;
            }
            if !history.is_empty() {
                return Ok(history);
            }
        }
        Ok(Vec::new())
    }

    pub(crate) fn label(&self, node: usize) -> &'a str {
        self.plan.nodes()[node].label()
    }

    /// Returns the nearest other recipe that a node had, and whether any is remembered: the one with
    /// the fewest differences; among equals the newest.
    pub(crate) fn nearest(&self, node: usize) -> Result<(Option<HistoryEntry>, bool), CacheError> {
        let Some(current) = self.keys.document(self.plan, node) else {
            return Ok((None, false));
        };
        let earlier = self.history(node)?;
        let was_seen = !earlier.is_empty();
        let others = earlier.into_iter().filter(|seen| Some(seen.key) != self.keys.recipe(node));
        Ok((others.min_by_key(|seen| differences(&seen.recipe, &current).len()), was_seen))
    }

    /// Compares a node with an earlier recipe of it.
    pub(crate) fn compare(&self, node: usize, before: &Recipe) -> Result<Compared, CacheError> {
        let Some(current) = self.keys.document(self.plan, node) else {
            return Ok(Compared { changes: Vec::new(), upstream: Vec::new() });
        };
        let places: BTreeMap<String, String> =
            resolved(self.plan, node).into_iter().map(|value| (value.path, value.origin)).collect();
        let mut changes = Vec::new();
        let mut upstream = Vec::new();
        for mut change in differences(before, &current) {
            change.what = change.what.trim_start_matches("params.").to_owned();
            change.place = place_of(&places, &change.what);
            changes.push(change);
        }
        for edge in self.plan.nodes()[node].inputs() {
            let name = format!("inputs.{}", port_of(&edge.port, edge.label.as_deref()));
            let Some(change) = changes.iter_mut().find(|change| change.what == name) else {
                continue;
            };
            if let Some(key) = self.keys.recipe(edge.from) {
                change.after = format!("{} ({})", self.label(edge.from), key.short());
            }
            let mut inputs = before.inputs.iter();
            let was = inputs.find(|input| edge.port == input.port && input.label == edge.label);
            let Some(was) = was else { continue };
            // If it was another stage that made it, the reference is what changed.
            let earlier = self.history(edge.from)?;
            if let Some(earlier) = earlier.into_iter().find(|seen| seen.key == was.from) {
                change.is_derived = true;
                upstream.push((edge.from, earlier));
            }
        }
        Ok(Compared { changes, upstream })
    }
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
            is_derived: false,
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
