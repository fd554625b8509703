//! Key to manifest, in SQLite: the only SQL in the house.

mod inspect;
mod open;
mod row;
mod runs;
mod sources;
mod view;
mod work;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior};

pub use self::inspect::Flaw;
pub(crate) use self::work::Finished;
use crate::cache::Access;
use crate::digest::{Digest, Key};
use crate::error::CacheError;
use crate::manifest::{Manifest, Recipe};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifacts (
    digest BLOB PRIMARY KEY, bytes INTEGER NOT NULL, entries TEXT NOT NULL, checksum BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traces (
    key BLOB PRIMARY KEY, skeleton BLOB NOT NULL, record BLOB NOT NULL, manifest TEXT NOT NULL,
    checksum BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_by_skeleton ON traces (skeleton);
CREATE TABLE IF NOT EXISTS outputs (
    trace BLOB NOT NULL, name TEXT NOT NULL, artifact BLOB NOT NULL, count INTEGER NOT NULL, checksum BLOB,
    PRIMARY KEY (trace, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outputs_by_artifact ON outputs (artifact);
CREATE TABLE IF NOT EXISTS recipes (
    key BLOB PRIMARY KEY, document TEXT NOT NULL, checksum BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    recipe BLOB PRIMARY KEY, trace BLOB NOT NULL, checksum BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_by_trace ON results (trace);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, experiment TEXT NOT NULL, profile TEXT NOT NULL, plan BLOB NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER, outcome TEXT);
CREATE INDEX IF NOT EXISTS runs_by_experiment ON runs (experiment, profile);
CREATE TABLE IF NOT EXISTS history (
    experiment TEXT NOT NULL, stage TEXT NOT NULL, run INTEGER NOT NULL, recipe BLOB NOT NULL,
    checksum BLOB, PRIMARY KEY (experiment, stage, run)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, stage TEXT NOT NULL, recipe BLOB NOT NULL,
    trace BLOB NOT NULL, at_ms INTEGER NOT NULL, seconds REAL NOT NULL, outcome TEXT NOT NULL,
    message TEXT NOT NULL, log TEXT NOT NULL, checksum BLOB);
CREATE INDEX IF NOT EXISTS executions_by_recipe ON executions (recipe);
CREATE TABLE IF NOT EXISTS sources (
    path TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, bytes INTEGER NOT NULL,
    mtime_ns BLOB NOT NULL, ctime_ns BLOB NOT NULL, digest BLOB NOT NULL,
    checksum BLOB) WITHOUT ROWID;
";

/// Adds a piece of work and its record to an index that is being made.
type Add<'a> = dyn FnMut(&Finished<'_>, Digest) -> rusqlite::Result<()> + 'a;

/// The index of a cache.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    access: Access,
    connection: Mutex<Connection>,
    /// What was found damaged and left out since somebody last asked.
    damaged: Mutex<Vec<String>>,
}

/// Finished work: a trace key and what it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The key of the work with its actual inputs.
    pub key: Key,
    /// Artifact by output name, sorted by name.
    pub outputs: Vec<(String, Digest)>,
}

impl Trace {
    /// Returns the artifact of an output.
    pub fn output(&self, name: &str) -> Option<Digest> {
        self.outputs.iter().find(|(found, _)| found == name).map(|(_, digest)| *digest)
    }
}

/// One attempt at a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The run it belongs to.
    pub run: i64,
    /// The stage's label in that run.
    pub stage: String,
    /// The recipe asked for.
    pub recipe: Key,
    /// The key of the work.
    pub trace: Key,
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took.
    pub seconds: f64,
    /// `done`, `failed`, `killed` or `interrupted`.
    pub outcome: String,
    /// What went wrong, if something did.
    pub message: String,
    /// Its log, relative to the cache's folder.
    pub log: String,
}

/// A stage as an earlier run of the same experiment saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The run.
    pub run: i64,
    /// Its recipe's key.
    pub key: Key,
    /// Its recipe.
    pub recipe: Recipe,
}

/// One artifact in a listing of the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The work that made it.
    pub trace: Key,
    /// How it was made.
    pub manifest: Manifest,
}

/// Sizes of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Pieces of finished work.
    pub traces: u64,
    /// Different artifacts.
    pub artifacts: u64,
    /// Their bytes, counted per artifact.
    pub bytes: u64,
}

impl Index {
    /// Opens or makes the SQLite file.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, CacheError> {
        let wrap = |source| CacheError::Index { path: path.to_owned(), source };
        let connection = open::patiently(|| match access {
            Access::ReadWrite => open::for_writing(path),
            Access::ReadOnly => open::for_reading(path),
        });
        let connection = connection.map_err(wrap)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self {
            path: path.to_owned(),
            access,
            connection: Mutex::new(connection),
            damaged: Mutex::default(),
        })
    }

    /// Makes a new index at a path, with all work that `fill` adds to it.
    pub(crate) fn make(
        path: &Path,
        fill: &mut dyn FnMut(&mut Add<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), CacheError> {
        let mut make = || {
            let connection = open::for_making(path)?;
            let transaction = connection.unchecked_transaction()?;
            fill(&mut |work, record| work::commit_in(&transaction, work, record).map(|_| ()))?;
            transaction.commit()
        };
        make().map_err(|source| CacheError::Index { path: path.to_owned(), source })
    }

    /// Returns whether this user can write to the index at a path, or make it.
    pub(crate) fn may_write(path: &Path) -> bool {
        open::may_write(path)
    }

    /// Returns what was found damaged since this was last asked, each in words. None of it
    /// was used; where the cache can be written to it is gone, and its work will be made again.
    pub fn take_damaged(&self) -> Vec<String> {
        std::mem::take(&mut self.damaged.lock().expect("no panic while held"))
    }

    /// Returns whether the index was begun and never made, as when a run is killed right away.
    pub(crate) fn is_unmade(&self) -> Result<bool, CacheError> {
        self.read(open::is_unmade)
    }

    pub(crate) fn format(&self) -> Result<u32, CacheError> {
        self.read(|connection| {
            connection.query_row("SELECT value FROM meta WHERE name = 'format'", [], |row| row.get(0))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no panic while the connection is held")
    }

    fn wrap(&self, source: rusqlite::Error) -> CacheError {
        CacheError::Index { path: self.path.clone(), source }
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, CacheError> {
        work(&self.lock()).map_err(|source| self.wrap(source))
    }

    /// Runs `work` in one transaction that takes the write lock at once, so that it waits for
    /// other writers instead of failing half way.
    fn write<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, CacheError> {
        let mut connection = self.lock();
        let in_transaction = || -> rusqlite::Result<T> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        in_transaction().map_err(|source| self.wrap(source))
    }

    /// Asks SQLite whether the file is sound; returns what it complains of.
    ///
    /// # Errors
    /// [`CacheError::Index`] if it cannot even be asked.
    pub fn complaints(&self) -> Result<Vec<String>, CacheError> {
        let lines: Vec<String> = self.read(|connection| {
            connection.prepare("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect()
        })?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}

fn parse<T: serde::de::DeserializeOwned>(key: Key, text: &str) -> Result<T, CacheError> {
    serde_json::from_str(text).map_err(|error| CacheError::Row { key, detail: error.to_string() })
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Artifact, Cache, Input, Output, Value};

    pub(crate) fn manifest(artifact: &Artifact) -> Manifest {
        Manifest {
            kind: "k".to_owned(),
            version: 1,
            parts: vec![],
            params: serde_json::json!({}),
            seed: None,
            inputs: vec![],
            outputs: vec![Output {
                name: "out".to_owned(),
                artifact_type: "rows".to_owned(),
                artifact: artifact.digest(),
                bytes: artifact.bytes(),
                files: 1,
            }],
            notes: vec![],
            stage: "s".to_owned(),
            device: "cpu".to_owned(),
            instruction_set: "x".to_owned(),
            program: "0".to_owned(),
            started_ms: 1,
            seconds: 0.5,
            log: String::new(),
        }
    }

    pub(crate) fn recipe() -> Recipe {
        Recipe {
            kind: "k".to_owned(),
            version: 1,
            parts: vec![("p/q".to_owned(), 2)],
            params: serde_json::json!({ "a": 1 }),
            seed: Some(7),
            inputs: vec![Input {
                port: "rows".to_owned(),
                label: None,
                from: key("up"),
                output: Some("out".to_owned()),
            }],
        }
    }

    pub(crate) fn key(text: &str) -> Key {
        Key::of("test", &Value::Text(text.to_owned())).unwrap()
    }

    #[test]
    fn work_is_found_by_trace_and_by_every_recipe_until_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let index = cache.index();
        let artifact = Artifact::new(vec![]);
        cache
            .commit(
                key("t"),
                key("s"),
                &manifest(&artifact),
                std::slice::from_ref(&artifact),
                (key("r"), &recipe()),
            )
            .unwrap();
        index.alias((key("r2"), &recipe()), key("t")).unwrap();

        let found = index.recipes(&[key("r"), key("none"), key("r2")]).unwrap();
        assert_eq!(found[0], found[2]);
        assert_eq!(found[1], None);
        assert_eq!(found[0].as_ref().unwrap().output("out"), Some(artifact.digest()));
        assert_eq!(index.manifest(key("t")).unwrap().unwrap(), manifest(&artifact));
        assert!(index.has_skeleton(key("s")).unwrap());
        assert_eq!(index.makers(artifact.digest()).unwrap(), [key("t")]);

        index.forget(key("t")).unwrap();
        assert_eq!(index.recipes(&[key("r")]).unwrap(), [None]);
        assert_eq!(index.trace(key("t")).unwrap(), None);
        assert_eq!(index.recipe(key("r")).unwrap(), Some(recipe()));
    }

    #[test]
    fn history_grows_only_where_a_stage_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let index = cache.index();
        let stages =
            |b: &str| vec![("a".to_owned(), key("a1"), recipe()), ("b".to_owned(), key(b), recipe())];
        index.begin_run("e", "mini", key("plan 1"), &|| stages("b1")).unwrap();
        let run = index.begin_run("e", "mini", key("plan 2"), &|| stages("b2")).unwrap();
        index.end_run(run, "done").unwrap();
        assert_eq!(index.history("e", "a").unwrap().len(), 1);
        let b = index.history("e", "b").unwrap();
        assert_eq!(b.iter().map(|seen| seen.key).collect::<Vec<_>>(), [key("b2"), key("b1")]);
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Cache::open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join("index.sqlite")).unwrap();
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'format'", []).unwrap();
        drop(connection);
        assert!(matches!(Cache::open(folder.path()), Err(CacheError::Format { found: 99, .. })));
    }

    #[test]
    fn a_file_that_is_no_index_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("index.sqlite"),
            "not a database, but long enough to look like one",
        )
        .unwrap();
        assert!(matches!(Cache::open(folder.path()), Err(CacheError::Index { .. })));
    }
}
