//! [`Plan`] to keys: what each node's work is called. Pure.
//!
//! A **recipe key** hashes a map with `format`, `kind`, `version`, `parts` (a list of
//! `[name, version]`), `params` (files as digests; not the tuning),
//! `seed` (null for kinds without one) and `inputs` (a list of `[port, label or null, upstream
//! recipe key, output]`, sorted by port, gathered inputs in declared order). A **trace key** has
//! artifact digests in place of upstream keys and outputs. A **shape key** has only `[port, label]`:
//! works that differ in nothing but their inputs share it.

use cache::{Digest, EncodeError, Input, KEY_FORMAT, Key, Recipe, Value};

use crate::kind::input_file::SourceFiles;
use crate::plan::graph::Plan;
use crate::plan::node::{Edge, Node};

const RECIPE_DOMAIN: &str = "pipeline recipe 2";
const TRACE_DOMAIN: &str = "pipeline trace 2";
const SHAPE_DOMAIN: &str = "pipeline shape 2";
const PLAN_DOMAIN: &str = "pipeline plan 2";

/// The keys of a plan's nodes.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Recipe key and shape key. None if a file that it depends on is not known, as it need not be
    /// where nothing needs the node.
    keys: Vec<Option<(Key, Key)>>,
    files: SourceFiles,
}

impl Keys {
    /// Keys a plan, given the digests of the files it names.
    ///
    /// # Panics
    /// If a file that is needed has no digest: they are to be read before.
    pub fn new(plan: &Plan, files: SourceFiles) -> Self {
        let mut keys = Self { keys: Vec::with_capacity(plan.nodes().len()), files };
        for (position, node) in plan.nodes().iter().enumerate() {
            let key = keys.key(node);
            assert!(key.is_some() || !plan.is_needed(position), "every file that is needed has a digest");
            keys.keys.push(key);
        }
        keys
    }

    fn key(&self, node: &Node) -> Option<(Key, Key)> {
        let mut own = self.own(node)?;
        let shape_inputs =
            node.inputs.iter().map(|edge| vec![text(&edge.port), label(edge.label.as_deref())]);
        let inputs: Option<Vec<Vec<Value>>> = node
            .inputs
            .iter()
            .map(|edge| {
                let upstream = Value::Bytes(self.recipe(edge.from)?.as_bytes().to_vec());
                Some(vec![text(&edge.port), label(edge.label.as_deref()), upstream, text(&edge.output)])
            })
            .collect();
        let inputs = list(inputs?.into_iter());
        let shape = hash_with(SHAPE_DOMAIN, &mut own, list(shape_inputs));
        Some((hash_with(RECIPE_DOMAIN, &mut own, inputs), shape))
    }

    /// Returns what the files that the plan names were when it was keyed.
    pub(crate) fn files(&self) -> &SourceFiles {
        &self.files
    }

    /// Returns the recipe key of a node. None if it is not needed, and a file that it depends on is
    /// not known.
    pub fn recipe(&self, node: usize) -> Option<Key> {
        self.keys[node].map(|(recipe, _)| recipe)
    }

    /// Returns all recipe keys, in the order of the nodes.
    pub fn recipes(&self) -> impl Iterator<Item = Option<Key>> + '_ {
        self.keys.iter().map(|keys| keys.map(|(recipe, _)| recipe))
    }

    /// Returns the recipe keys that are known, in the order of the nodes.
    pub(crate) fn known(&self) -> Vec<Key> {
        self.recipes().flatten().collect()
    }

    /// Gives each node what was found for its recipe key, in the order of [`Keys::known`].
    pub(crate) fn spread<T>(&self, of_known: Vec<Option<T>>) -> Vec<Option<T>> {
        let mut of_known = of_known.into_iter();
        self.keys.iter().map(|keys| keys.and_then(|_| of_known.next().flatten())).collect()
    }

    /// Returns the key that a node shares with all work that differs in nothing but its inputs. None
    /// where the recipe key is not known.
    pub fn shape(&self, node: usize) -> Option<Key> {
        self.keys[node].map(|(_, shape)| shape)
    }

    /// Returns the trace key of a node, given the artifact that enters by each of its edges. None
    /// where the recipe key is not known.
    pub fn trace(&self, plan: &Plan, node: usize, artifacts: &[Digest]) -> Option<Key> {
        let node = &plan.nodes()[node];
        let mut own = self.own(node)?;
        let inputs = node.inputs.iter().zip(artifacts).map(|(edge, artifact)| {
            vec![text(&edge.port), label(edge.label.as_deref()), Value::Digest(*artifact)]
        });
        Some(hash_with(TRACE_DOMAIN, &mut own, list(inputs)))
    }

    /// Returns one key for the plan as a whole: all labels and their recipes.
    pub fn plan(&self, plan: &Plan) -> Key {
        let all = plan.nodes().iter().zip(self.recipes()).map(|(node, key)| {
            let key = key.map_or(Value::Null, |key| Value::Bytes(key.as_bytes().to_vec()));
            Value::List(vec![text(node.label()), key])
        });
        hash(PLAN_DOMAIN, &Value::List(all.collect()))
    }

    /// Returns what a node's recipe key hashes, in readable form. None where it is not known.
    pub fn document(&self, plan: &Plan, node: usize) -> Option<Recipe> {
        let node = &plan.nodes()[node];
        let input = |edge: &Edge| {
            Some(Input {
                port: edge.port.to_string(),
                label: edge.label.clone(),
                from: self.recipe(edge.from)?,
                output: Some(edge.output.clone()),
            })
        };
        Some(Recipe {
            kind: node.kind.name().to_owned(),
            version: node.kind.version(),
            components: node
                .components
                .iter()
                .map(|component| (component.name.to_owned(), component.version))
                .collect(),
            params: serde_json::to_value(self.params(node)?).expect("parameters are plain data"),
            seed: node.seed,
            inputs: node.inputs.iter().map(input).collect::<Option<_>>()?,
        })
    }

    fn params(&self, node: &Node) -> Option<Value> {
        let mut params = node.params.clone();
        let replaced = params.resolve_paths::<EncodeError>(&mut |_, path, visible| {
            self.files.value(path, visible).ok_or_else(|| EncodeError::Path(path.to_owned()))
        });
        replaced.is_ok().then_some(params)
    }

    /// All that is hashed of a node but its inputs.
    fn own(&self, node: &Node) -> Option<Value> {
        let components = node
            .components
            .iter()
            .map(|component| vec![text(component.name), Value::Integer(component.version.into())]);
        Some(Value::map([
            ("format", Value::Integer(KEY_FORMAT.into())),
            ("kind", text(node.kind.name())),
            ("version", Value::Integer(node.kind.version().into())),
            ("parts", list(components)),
            ("params", self.params(node)?),
            ("seed", node.seed.map_or(Value::Null, |seed| Value::Integer(seed.into()))),
        ]))
    }
}

/// Hashes what is a node's own with some view of its inputs, which stays in `own` until the next.
fn hash_with(domain: &str, own: &mut Value, inputs: Value) -> Key {
    if let Value::Map(entries) = own {
        entries.insert("inputs".to_owned(), inputs);
    }
    hash(domain, own)
}

fn hash(domain: &str, value: &Value) -> Key {
    Key::of(domain, value).expect("all paths are replaced by digests")
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn label(label: Option<&str>) -> Value {
    label.map_or(Value::Null, text)
}

fn list(items: impl Iterator<Item = Vec<Value>>) -> Value {
    Value::List(items.map(Value::List).collect())
}
