//! Looks at every row, and at how the rows fit together.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::types::Value;

use super::connection::Index;
use super::listings::{Listing, artifact_in};
use super::removal::{forget_in, makers_in};
use super::row;
use crate::artifact::Artifact;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::key::Key;
use crate::manifest::Manifest;

/// Something in the index that is damaged.
#[derive(Debug, Clone, PartialEq)]
pub struct Flaw {
    /// What is damaged and how, for people.
    pub text: String,
    mend: Mend,
}

/// What takes a flaw away. What it belonged to is made again.
#[derive(Debug, Clone, PartialEq)]
enum Mend {
    Row(&'static str, Vec<Value>),
    Trace(Key),
    Artifact(Digest),
}

/// All finished work that is sound in itself.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub flaws: Vec<Flaw>,
    /// Every piece of work, its record, and how it was made.
    pub works: Vec<(Key, Digest, Manifest)>,
    /// Every artifact that work made.
    pub artifacts: Vec<Artifact>,
    /// Documents of all recipes.
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

    /// Takes flaws out.
    pub(crate) fn mend(&self, flaws: &[Flaw]) -> Result<(), CacheError> {
        self.write(|connection| {
            for flaw in flaws {
                match &flaw.mend {
                    Mend::Row(name, keys) => {
                        for table in row::ALL.iter().filter(|table| table.name == *name) {
                            table.remove(connection, keys)?;
                        }
                    }
                    Mend::Trace(key) => forget_in(connection, *key)?,
                    Mend::Artifact(digest) => {
                        for maker in makers_in(connection, *digest)? {
                            forget_in(connection, maker)?;
                        }
                        connection.execute("DELETE FROM artifacts WHERE digest = ?", [digest])?;
                    }
                }
            }
            Ok(())
        })
    }
}

fn inspect_in(connection: &Connection) -> rusqlite::Result<Inspection> {
    let mut inspection = Inspection::default();
    for table in row::ALL {
        for keys in table.damaged(connection)? {
            inspection.flaws.push(Flaw {
                text: format!("a row of `{}` is damaged: {}", table.name, names(&keys)),
                mend: Mend::Row(table.name, keys),
            });
        }
    }
    let outputs = outputs(connection)?;
    let mut traces: BTreeSet<Key> = BTreeSet::new();
    let mut statement = connection.prepare("SELECT key, skeleton, record, manifest, checksum FROM traces")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !row::TRACES.is_sound(row, 0)? {
            continue;
        }
        let (key, record, text): (Key, Digest, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
        traces.insert(key);
        let flaw =
            |what: &str| Flaw { text: format!("the work {} {what}", key.short()), mend: Mend::Trace(key) };
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
        let text = format!("outputs belong to the work {}, of which nothing is known", trace.short());
        inspection.flaws.push(Flaw { text, mend: Mend::Trace(*trace) });
    }
    results(connection, &traces, &mut inspection)?;
    let made: BTreeSet<Digest> = outputs.values().flatten().map(|(_, artifact)| *artifact).collect();
    for digest in made {
        let problem = match artifact_in(connection, digest)? {
            Listing::Sound(artifact) => {
                inspection.artifacts.push(artifact);
                continue;
            }
            Listing::Absent => "is not there".to_owned(),
            Listing::Damaged(problem) => format!("is damaged: {problem}"),
        };
        let text = format!("the listing of the artifact {} {problem}", digest.short());
        inspection.flaws.push(Flaw { text, mend: Mend::Artifact(digest) });
    }
    let mut statement = connection.prepare("SELECT key, document, checksum FROM recipes")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row::RECIPES.is_sound(row, 0)? {
            inspection.recipes.push(row.get(1)?);
        }
    }
    let mut statement = connection.prepare("SELECT * FROM sources")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row::SOURCES.is_sound(row, 0)? {
            inspection.sources.push(row.get(6)?);
        }
    }
    Ok(inspection)
}

/// Returns the sound outputs of each trace, sorted by name.
fn outputs(connection: &Connection) -> rusqlite::Result<BTreeMap<Key, Vec<(String, Digest)>>> {
    let mut outputs: BTreeMap<Key, Vec<(String, Digest)>> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT trace, name, artifact, count, checksum FROM outputs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row::OUTPUTS.is_sound(row, 0)? {
            outputs.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
        }
    }
    outputs.values_mut().for_each(|outputs| outputs.sort());
    Ok(outputs)
}

/// Looks for recipes that lead to work which is not there.
fn results(
    connection: &Connection,
    traces: &BTreeSet<Key>,
    inspection: &mut Inspection,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT recipe, trace, checksum FROM results")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if !row::RESULTS.is_sound(row, 0)? {
            continue;
        }
        let (recipe, trace): (Key, Key) = (row.get(0)?, row.get(1)?);
        if !traces.contains(&trace) {
            let text = format!("the recipe {} leads to work that is not there", recipe.short());
            inspection.flaws.push(Flaw { text, mend: Mend::Row("results", vec![row.get(0)?]) });
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
