//! Checks every row, and the references between rows.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::types::Value;

use super::connection::Index;
use super::listings::{Listing, artifact_in};
use super::removal::{forget_artifact_in, forget_in};
use super::row;
use crate::artifact::Artifact;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::key::Key;
use crate::manifest::Manifest;

/// Something in the index that is corrupt.
#[derive(Debug, Clone, PartialEq)]
pub struct Flaw {
    /// A description for people.
    pub text: String,
    repair: Repair,
}

/// What to remove. The work it belongs to is done again by a later run.
#[derive(Debug, Clone, PartialEq)]
enum Repair {
    Row(&'static str, Vec<Value>),
    Trace(Key),
    Artifact(Digest),
}

/// Everything in the index that is intact, and what is not.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub flaws: Vec<Flaw>,
    /// Every piece of work, its record, and how it was made.
    pub works: Vec<(Key, Digest, Manifest)>,
    /// Every artifact that work made.
    pub artifacts: Vec<Artifact>,
    /// All recipes, as JSON.
    pub recipes: Vec<String>,
    /// Remembered digests of source files.
    pub sources: Vec<Digest>,
}

impl Index {
    /// Reads every row.
    pub(crate) fn inspect(&self) -> Result<Inspection, CacheError> {
        self.read(|connection| {
            let transaction = connection.unchecked_transaction()?;
            inspect_in(&transaction)
        })
    }

    /// Removes flawed entries and the work they belong to.
    pub(crate) fn repair(&self, flaws: &[Flaw]) -> Result<(), CacheError> {
        self.write(|connection| {
            for flaw in flaws {
                match &flaw.repair {
                    Repair::Row(name, keys) => {
                        for table in row::ALL.iter().filter(|table| table.name == *name) {
                            table.remove(connection, keys)?;
                        }
                    }
                    Repair::Trace(key) => forget_in(connection, *key)?,
                    Repair::Artifact(digest) => forget_artifact_in(connection, *digest)?,
                }
            }
            Ok(())
        })
    }
}

fn inspect_in(connection: &Connection) -> rusqlite::Result<Inspection> {
    let mut inspection = Inspection::default();
    for table in row::ALL {
        for keys in table.corrupt_rows(connection)? {
            inspection.flaws.push(Flaw {
                text: format!("a row of `{}` is corrupt: {}", table.name, names(&keys)),
                repair: Repair::Row(table.name, keys),
            });
        }
    }
    let outputs = outputs(connection)?;
    let mut traces: BTreeSet<Key> = BTreeSet::new();
    let mut statement = connection.prepare(row::TRACES.select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !row::TRACES.is_intact(row, 0)? {
            continue;
        }
        let (key, record, text): (Key, Digest, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
        traces.insert(key);
        let flaw = |what: &str| Flaw {
            text: format!("the work {} {what}", key.short()),
            repair: Repair::Trace(key),
        };
        let manifest: Manifest = match serde_json::from_str(&text) {
            Ok(manifest) => manifest,
            Err(error) => {
                inspection.flaws.push(flaw(&format!("has an unreadable manifest: {error}")));
                continue;
            }
        };
        let mut named: Vec<(String, Digest)> =
            manifest.outputs.iter().map(|output| (output.name.clone(), output.artifact)).collect();
        named.sort();
        if outputs.get(&key) != Some(&named) {
            inspection.flaws.push(flaw(&format!("of `{}` lacks outputs", manifest.stage)));
            continue;
        }
        inspection.works.push((key, record, manifest));
    }
    for trace in outputs.keys().filter(|trace| !traces.contains(trace)) {
        let text = format!("outputs belong to the work {}, which is not in the index", trace.short());
        inspection.flaws.push(Flaw { text, repair: Repair::Trace(*trace) });
    }
    results(connection, &traces, &mut inspection)?;
    let made: BTreeSet<Digest> = outputs.values().flatten().map(|(_, artifact)| *artifact).collect();
    for digest in made {
        let problem = match artifact_in(connection, digest)? {
            Listing::Intact(artifact) => {
                inspection.artifacts.push(artifact);
                continue;
            }
            Listing::Absent => "is missing".to_owned(),
            Listing::Corrupt(problem) => format!("is corrupt: {problem}"),
        };
        let text = format!("the listing of the artifact {} {problem}", digest.short());
        inspection.flaws.push(Flaw { text, repair: Repair::Artifact(digest) });
    }
    let mut statement = connection.prepare(row::RECIPES.select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row::RECIPES.is_intact(row, 0)? {
            inspection.recipes.push(row.get(1)?);
        }
    }
    let mut statement = connection.prepare(row::SOURCES.select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row::SOURCES.is_intact(row, 0)? {
            inspection.sources.push(row.get(6)?);
        }
    }
    Ok(inspection)
}

/// Returns the intact outputs of each trace, sorted by name.
fn outputs(connection: &Connection) -> rusqlite::Result<BTreeMap<Key, Vec<(String, Digest)>>> {
    let mut outputs: BTreeMap<Key, Vec<(String, Digest)>> = BTreeMap::new();
    let mut statement = connection.prepare(row::OUTPUTS.select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row::OUTPUTS.is_intact(row, 0)? {
            outputs.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
        }
    }
    outputs.values_mut().for_each(|outputs| outputs.sort());
    Ok(outputs)
}

/// Finds recipes that refer to work which is missing.
fn results(
    connection: &Connection,
    traces: &BTreeSet<Key>,
    inspection: &mut Inspection,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(row::RESULTS.select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !row::RESULTS.is_intact(row, 0)? {
            continue;
        }
        let (recipe, trace): (Key, Key) = (row.get(0)?, row.get(1)?);
        if !traces.contains(&trace) {
            let text = format!("the recipe {} refers to work that is missing", recipe.short());
            inspection.flaws.push(Flaw { text, repair: Repair::Row("results", vec![row.get(0)?]) });
        }
    }
    Ok(())
}

/// Writes the keys of a row for people.
fn names(keys: &[Value]) -> String {
    let name = |key: &Value| match key {
        Value::Blob(bytes) => {
            bytes.iter().take(5).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
        }
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Null => "null".to_owned(),
    };
    keys.iter().map(name).collect::<Vec<_>>().join(" ")
}
