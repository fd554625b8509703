//! Key to manifest, in SQLite: the only SQL in the house.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use crate::artifact::{Artifact, Entry};
use crate::cache::{Access, FORMAT};
use crate::digest::{Digest, Key};
use crate::error::CacheError;
use crate::files::Fingerprint;
use crate::manifest::{Manifest, Recipe};
use crate::place::{is_network, percent_encoded};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifacts (
    digest BLOB PRIMARY KEY, bytes INTEGER NOT NULL, entries TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traces (
    key BLOB PRIMARY KEY, skeleton BLOB NOT NULL, manifest TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_by_skeleton ON traces (skeleton);
CREATE TABLE IF NOT EXISTS outputs (
    trace BLOB NOT NULL, name TEXT NOT NULL, artifact BLOB NOT NULL, PRIMARY KEY (trace, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outputs_by_artifact ON outputs (artifact);
CREATE TABLE IF NOT EXISTS recipes (
    key BLOB PRIMARY KEY, document TEXT NOT NULL, trace BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, experiment TEXT NOT NULL, profile TEXT NOT NULL, plan BLOB NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER, outcome TEXT);
CREATE INDEX IF NOT EXISTS runs_by_experiment ON runs (experiment, profile);
CREATE TABLE IF NOT EXISTS history (
    experiment TEXT NOT NULL, stage TEXT NOT NULL, run INTEGER NOT NULL, recipe BLOB NOT NULL,
    PRIMARY KEY (experiment, stage, run)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, stage TEXT NOT NULL, recipe BLOB NOT NULL,
    trace BLOB NOT NULL, at_ms INTEGER NOT NULL, seconds REAL NOT NULL, outcome TEXT NOT NULL,
    message TEXT NOT NULL, log TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS executions_by_recipe ON executions (recipe);
CREATE TABLE IF NOT EXISTS sources (
    path TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, bytes INTEGER NOT NULL,
    mtime_ns BLOB NOT NULL, ctime_ns BLOB NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID;
";

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The index of a cache.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    connection: Mutex<Connection>,
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
        let connection = patiently(|| match access {
            Access::ReadWrite => open_for_writing(path),
            Access::ReadOnly => open_for_reading(path),
        });
        let connection = connection.map_err(wrap)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Returns whether the index was begun and never made, as when a run is killed right away.
    pub(crate) fn is_unmade(&self) -> Result<bool, CacheError> {
        self.read(is_unmade)
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

    /// Looks up finished work by recipe keys, in order.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn recipes(&self, keys: &[Key]) -> Result<Vec<Option<Trace>>, CacheError> {
        self.read(|connection| {
            // One transaction, or every look-up would lock and unlock the file.
            let transaction = connection.unchecked_transaction()?;
            let found = keys
                .iter()
                .map(|key| {
                    let mut statement = transaction.prepare_cached(
                        "SELECT r.trace, o.name, o.artifact FROM recipes r JOIN outputs o ON o.trace = r.trace \
                         WHERE r.key = ?",
                    )?;
                    trace_of(statement.query([key])?)
                })
                .collect();
            drop(transaction);
            found
        })
    }

    /// Looks up finished work by its trace key.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn trace(&self, key: Key) -> Result<Option<Trace>, CacheError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT trace, name, artifact FROM outputs WHERE trace = ? ORDER BY name")?;
            trace_of(statement.query([key])?)
        })
    }

    /// Returns how a piece of finished work was made.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the entry is unreadable.
    pub fn manifest(&self, trace: Key) -> Result<Option<Manifest>, CacheError> {
        let text: Option<String> = self.read(|connection| {
            connection
                .prepare_cached("SELECT manifest FROM traces WHERE key = ?")?
                .query_row([trace], |row| row.get(0))
                .optional()
        })?;
        text.map(|text| parse(trace, &text)).transpose()
    }

    /// Returns whether any finished work has the same kind, parameters and ports as `skeleton`.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn has_skeleton(&self, skeleton: Key) -> Result<bool, CacheError> {
        self.read(|connection| {
            connection.prepare_cached("SELECT 1 FROM traces WHERE skeleton = ? LIMIT 1")?.exists([skeleton])
        })
    }

    /// Returns the files of an artifact.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the entry is unreadable.
    pub fn artifact(&self, digest: Digest) -> Result<Option<Artifact>, CacheError> {
        let text: Option<String> = self.read(|connection| {
            connection
                .prepare_cached("SELECT entries FROM artifacts WHERE digest = ?")?
                .query_row([digest], |row| row.get(0))
                .optional()
        })?;
        let key = Key::from_bytes(*digest.as_bytes());
        let artifact = text.map(|text| parse::<Vec<Entry>>(key, &text).map(Artifact::new)).transpose()?;
        match artifact {
            Some(artifact) if artifact.digest() != digest => Err(CacheError::Row {
                key,
                detail: "the listing of this artifact is not the one its digest names".to_owned(),
            }),
            Some(artifact) => match artifact.check_paths() {
                Ok(()) => Ok(Some(artifact)),
                Err(error) => Err(CacheError::Row { key, detail: error.to_string() }),
            },
            None => Ok(None),
        }
    }

    /// Records finished work: artifacts, trace and recipe in one transaction.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn commit(
        &self,
        trace: Key,
        skeleton: Key,
        manifest: &Manifest,
        artifacts: &[Artifact],
        recipe: (Key, &Recipe),
    ) -> Result<(), CacheError> {
        let text = serde_json::to_string(manifest).expect("a manifest is plain data");
        self.write(|connection| {
            for artifact in artifacts {
                let entries = serde_json::to_string(artifact.entries()).expect("entries are plain data");
                connection
                    .prepare_cached("INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?)")?
                    .execute(params![artifact.digest(), artifact.bytes(), entries])?;
            }
            connection
                .prepare_cached("INSERT OR REPLACE INTO traces VALUES (?, ?, ?)")?
                .execute(params![trace, skeleton, text])?;
            connection.prepare_cached("DELETE FROM outputs WHERE trace = ?")?.execute([trace])?;
            for output in &manifest.outputs {
                connection.prepare_cached("INSERT INTO outputs VALUES (?, ?, ?)")?.execute(params![
                    trace,
                    output.name,
                    output.artifact
                ])?;
            }
            put_recipe(connection, recipe, Some(trace))
        })
    }

    /// Records that a recipe gives work that is there already.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn alias(&self, recipe: (Key, &Recipe), trace: Key) -> Result<(), CacheError> {
        self.write(|connection| put_recipe(connection, recipe, Some(trace)))
    }

    /// Forgets finished work whose bytes are lost, under every recipe that leads to it.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn forget(&self, trace: Key) -> Result<(), CacheError> {
        self.write(|connection| {
            connection.execute("DELETE FROM outputs WHERE trace = ?", [trace])?;
            connection.execute("DELETE FROM traces WHERE key = ?", [trace])?;
            connection.execute("UPDATE recipes SET trace = NULL WHERE trace = ?", [trace])?;
            Ok(())
        })
    }

    /// Returns the traces that have an artifact among their outputs.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn makers(&self, artifact: Digest) -> Result<Vec<Key>, CacheError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT trace FROM outputs WHERE artifact = ? ORDER BY trace")?;
            statement.query_map([artifact], |row| row.get(0))?.collect()
        })
    }

    /// Lists all finished work, oldest first.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if an entry is unreadable.
    pub fn list(&self) -> Result<Vec<Listed>, CacheError> {
        let rows: Vec<(Key, String)> = self.read(|connection| {
            let mut statement = connection.prepare("SELECT key, manifest FROM traces")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let mut listed = rows
            .into_iter()
            .map(|(trace, text)| Ok(Listed { trace, manifest: parse(trace, &text)? }))
            .collect::<Result<Vec<_>, CacheError>>()?;
        listed.sort_by_key(|entry| (entry.manifest.started_ms, entry.trace));
        Ok(listed)
    }

    /// Lists the digests of all artifacts.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn artifacts(&self) -> Result<Vec<Digest>, CacheError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT digest FROM artifacts ORDER BY digest")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Sums the cache up.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn totals(&self) -> Result<Totals, CacheError> {
        self.read(|connection| {
            let traces = connection.query_row("SELECT count(*) FROM traces", [], |row| row.get(0))?;
            connection.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM artifacts \
                 WHERE digest IN (SELECT artifact FROM outputs)",
                [],
                |row| Ok(Totals { traces, artifacts: row.get(0)?, bytes: row.get(1)? }),
            )
        })
    }

    /// Returns the mean seconds that finished executions of a kind of work took, by skeleton.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if an entry is unreadable.
    pub fn seconds_of(&self, skeleton: Key) -> Result<Option<f64>, CacheError> {
        let texts: Vec<(Key, String)> = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key, manifest FROM traces WHERE skeleton = ? LIMIT 16")?;
            statement.query_map([skeleton], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let seconds = texts
            .iter()
            .map(|(key, text)| parse::<Manifest>(*key, text).map(|manifest| manifest.seconds))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / seconds.len() as f64))
    }

    /// Begins a run: remembers which recipe each stage of the experiment has now, where that
    /// differs from the run before; `stages` is asked only if the plan is another one. Returns
    /// the run's number.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn begin_run(
        &self,
        experiment: &str,
        profile: &str,
        plan: Key,
        stages: &dyn Fn() -> Vec<(String, Key, Recipe)>,
    ) -> Result<i64, CacheError> {
        self.write(|connection| {
            let same: bool = connection
                .prepare_cached(
                    "SELECT plan = ?1 FROM runs WHERE experiment = ?2 ORDER BY id DESC LIMIT 1",
                )?
                .query_row(params![plan, experiment], |row| row.get(0))
                .optional()?
                .unwrap_or(false);
            connection
                .prepare_cached(
                    "INSERT INTO runs (experiment, profile, plan, started_ms) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![experiment, profile, plan, now_ms()])?;
            let run = connection.last_insert_rowid();
            if !same {
                for (stage, key, recipe) in stages() {
                    put_recipe(connection, (key, &recipe), None)?;
                    let last: Option<Key> = connection
                        .prepare_cached(
                            "SELECT recipe FROM history WHERE experiment = ? AND stage = ? ORDER BY run DESC LIMIT 1",
                        )?
                        .query_row(params![experiment, stage], |row| row.get(0))
                        .optional()?;
                    if last != Some(key) {
                        connection
                            .prepare_cached("INSERT INTO history VALUES (?, ?, ?, ?)")?
                            .execute(params![experiment, stage, run, key])?;
                    }
                }
            }
            Ok(run)
        })
    }

    /// Ends a run with one word for how it went.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn end_run(&self, run: i64, outcome: &str) -> Result<(), CacheError> {
        self.write(|connection| {
            connection
                .prepare_cached("UPDATE runs SET ended_ms = ?, outcome = ? WHERE id = ?")?
                .execute(params![now_ms(), outcome, run])?;
            Ok(())
        })
    }

    /// Records an attempt at a stage.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn record(&self, execution: &Execution) -> Result<(), CacheError> {
        self.write(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO executions (run, stage, recipe, trace, at_ms, seconds, outcome, message, log) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    execution.run,
                    execution.stage,
                    execution.recipe,
                    execution.trace,
                    execution.at_ms,
                    execution.seconds,
                    execution.outcome,
                    execution.message,
                    execution.log
                ])?;
            Ok(())
        })
    }

    /// Returns the last attempt at a recipe.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn last_execution(&self, recipe: Key) -> Result<Option<Execution>, CacheError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT run, stage, recipe, trace, at_ms, seconds, outcome, message, log FROM executions \
                     WHERE recipe = ? ORDER BY id DESC LIMIT 1",
                )?
                .query_row([recipe], |row| {
                    Ok(Execution {
                        run: row.get(0)?,
                        stage: row.get(1)?,
                        recipe: row.get(2)?,
                        trace: row.get(3)?,
                        at_ms: row.get(4)?,
                        seconds: row.get(5)?,
                        outcome: row.get(6)?,
                        message: row.get(7)?,
                        log: row.get(8)?,
                    })
                })
                .optional()
        })
    }

    /// Returns the recipes that a stage had in earlier runs of an experiment, newest first.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if an entry is unreadable.
    pub fn history(&self, experiment: &str, stage: &str) -> Result<Vec<Seen>, CacheError> {
        let rows: Vec<(i64, Key, String)> = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT h.run, h.recipe, r.document FROM history h JOIN recipes r ON r.key = h.recipe \
                 WHERE h.experiment = ? AND h.stage = ? ORDER BY h.run DESC LIMIT 50",
            )?;
            statement
                .query_map([experiment, stage], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        rows.into_iter().map(|(run, key, text)| Ok(Seen { run, key, recipe: parse(key, &text)? })).collect()
    }

    /// Returns the recipe of a key, if any run has asked for it.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the entry is unreadable.
    pub fn recipe(&self, key: Key) -> Result<Option<Recipe>, CacheError> {
        let text: Option<String> = self.read(|connection| {
            connection
                .prepare_cached("SELECT document FROM recipes WHERE key = ?")?
                .query_row([key], |row| row.get(0))
                .optional()
        })?;
        text.map(|text| parse(key, &text)).transpose()
    }

    /// Returns the digest remembered for a file, if the file still looks the same.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn remembered(&self, path: &Path, print: &Fingerprint) -> Result<Option<Digest>, CacheError> {
        let Some(name) = path.to_str() else {
            return Ok(None);
        };
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT digest FROM sources WHERE path = ? AND device = ? AND inode = ? AND bytes = ? \
                     AND mtime_ns = ? AND ctime_ns = ?",
                )?
                .query_row(
                    params![
                        name,
                        print.place.0 as i64,
                        print.place.1 as i64,
                        print.bytes as i64,
                        print.mtime_ns.to_be_bytes(),
                        print.ctime_ns.to_be_bytes()
                    ],
                    |row| row.get(0),
                )
                .optional()
        })
    }

    /// Remembers the digest of a file. A cache that is only read remembers nothing.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn remember(&self, path: &Path, print: &Fingerprint, digest: Digest) -> Result<(), CacheError> {
        let Some(name) = path.to_str() else {
            return Ok(());
        };
        let mut connection = self.lock();
        if connection.is_readonly("main").map_err(|source| self.wrap(source))? {
            return Ok(());
        }
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    name,
                    print.place.0 as i64,
                    print.place.1 as i64,
                    print.bytes as i64,
                    print.mtime_ns.to_be_bytes(),
                    print.ctime_ns.to_be_bytes(),
                    digest
                ])?;
            transaction.commit()
        };
        write().map_err(|source| self.wrap(source))
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

fn is_unmade(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Reads `(trace, output, artifact)` rows of one trace; none means that there is no such work.
fn trace_of(mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<Option<Trace>> {
    let mut trace: Option<Trace> = None;
    while let Some(row) = rows.next()? {
        let key = row.get(0)?;
        let found = trace.get_or_insert_with(|| Trace { key, outputs: Vec::new() });
        found.outputs.push((row.get(1)?, row.get(2)?));
    }
    if let Some(trace) = &mut trace {
        trace.outputs.sort();
    }
    Ok(trace)
}

/// Records a recipe; a trace that is known already stays unless a new one is given.
fn put_recipe(connection: &Connection, recipe: (Key, &Recipe), trace: Option<Key>) -> rusqlite::Result<()> {
    let document = serde_json::to_string(recipe.1).expect("a recipe is plain data");
    connection
        .prepare_cached(
            "INSERT INTO recipes VALUES (?1, ?2, ?3) \
             ON CONFLICT (key) DO UPDATE SET trace = coalesce(excluded.trace, trace)",
        )?
        .execute(params![recipe.0, document, trace])?;
    Ok(())
}

fn parse<T: serde::de::DeserializeOwned>(key: Key, text: &str) -> Result<T, CacheError> {
    serde_json::from_str(text).map_err(|error| CacheError::Row { key, detail: error.to_string() })
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Opens for writing, and makes the tables if there are none.
fn open_for_writing(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    // Shared memory does not work between machines.
    let journal = if is_network(path) { "delete" } else { "wal" };
    let found: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    // To set it takes the whole file, even where nothing changes.
    if found != journal {
        connection.pragma_update(None, "journal_mode", journal)?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    if is_unmade(&connection)? {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another run may have made them meanwhile.
        if is_unmade(&transaction)? {
            transaction.execute_batch(SCHEMA)?;
            transaction.execute("INSERT INTO meta VALUES ('format', ?)", [FORMAT])?;
        }
        transaction.commit()?;
    }
    Ok(connection)
}

/// Tries again while others make the file, mend it after a kill, or tidy it up as the last to
/// close it: then SQLite does not wait by itself.
fn patiently<T>(open: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let began = Instant::now();
    loop {
        match open() {
            Err(error) if is_busy(&error) && began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// Opens for reading. A WAL that cannot be joined, as on a read-only file system, is bypassed:
/// then nobody writes there either.
fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let plain = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    plain.busy_timeout(PATIENCE)?;
    match is_unmade(&plain) {
        Ok(_) => return Ok(plain),
        // Somebody does write there.
        Err(error) if is_busy(&error) => return Err(error),
        Err(_) => {}
    }
    let address = format!("file:{}?immutable=1", percent_encoded(path));
    Connection::open_with_flags(
        address,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cache, Input, Output, Value};

    fn manifest(artifact: &Artifact) -> Manifest {
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

    fn recipe() -> Recipe {
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

    fn key(text: &str) -> Key {
        Key::of("test", &Value::Text(text.to_owned())).unwrap()
    }

    #[test]
    fn work_is_found_by_trace_and_by_every_recipe_until_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let index = cache.index();
        let artifact = Artifact::new(vec![]);
        index
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
