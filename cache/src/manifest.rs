//! What is stored about work: its recipe, and how its outputs were made.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::Key;

/// A stage's recipe: everything that its recipe key hashes, in readable form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// The stage kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// Methods inside the kind and their versions.
    pub components: Vec<(String, u32)>,
    /// Resolved parameters; a path stands as the digest of what it named.
    pub params: serde_json::Value,
    /// The seed, for kinds that use one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Inputs by the recipe that makes them.
    pub inputs: Vec<Input<Key>>,
}

/// One input of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input<T> {
    /// The port it enters by.
    pub port: String,
    /// Its label, where a port gathers several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What it is: a recipe's key, or an artifact's digest.
    pub from: T,
    /// Which output of that recipe, if it is a recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// One output of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The output's name.
    pub name: String,
    /// The type of the artifact.
    pub artifact_type: String,
    /// The artifact.
    pub artifact: Digest,
    /// Size of all its files.
    pub bytes: u64,
    /// Number of its files.
    pub files: usize,
}

/// How the outputs of a piece of work were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The stage kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// Methods inside the kind and their versions.
    pub components: Vec<(String, u32)>,
    /// Resolved parameters; a path stands as the digest of what it named.
    pub params: serde_json::Value,
    /// The seed, for kinds that use one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Inputs by their content.
    pub inputs: Vec<Input<Digest>>,
    /// The outputs.
    pub outputs: Vec<Output>,
    /// The stage's notes on its data: skipped rows and the like.
    pub notes: Vec<String>,
    /// The stage's label in the experiment that first made it.
    pub stage: String,
    /// The device it ran on.
    pub device: String,
    /// The processor's instruction set.
    pub instruction_set: String,
    /// The program's version.
    pub program: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took.
    pub seconds: f64,
    /// Its log, relative to the cache's folder.
    pub log: String,
}
