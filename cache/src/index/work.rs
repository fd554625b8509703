//! Finished work: found by recipe and by trace, recorded, and forgotten.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Index, Listed, Totals, Trace, parse, row};
use crate::artifact::{Artifact, Entry};
use crate::cache::Access;
use crate::digest::{Digest, Key};
use crate::error::CacheError;
use crate::manifest::{Manifest, Recipe};

/// A record that cannot be believed.
pub(super) enum Damaged {
    /// Which work a recipe leads to.
    Result(Key),
    /// What a piece of work made.
    Trace(Key),
    /// Which files an artifact has.
    Artifact(Digest),
}

/// Finished work that is to be recorded.
pub(crate) struct Finished<'a> {
    pub trace: Key,
    pub skeleton: Key,
    pub manifest: &'a Manifest,
    pub artifacts: &'a [Artifact],
    pub recipe: (Key, &'a Recipe),
}

impl Index {
    /// Looks up finished work by recipe keys, in order. What is damaged counts as absent; see
    /// [`Index::take_damaged`].
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn recipes(&self, keys: &[Key]) -> Result<Vec<Option<Trace>>, CacheError> {
        let (traces, damaged) = self.read(|connection| {
            let mut damaged = Vec::new();
            // One transaction, or every look-up would lock and unlock the file.
            let transaction = connection.unchecked_transaction()?;
            let mut statement = transaction.prepare_cached(
                "SELECT r.recipe, r.trace, r.checksum, o.trace, o.name, o.artifact, o.count, o.checksum \
                 FROM results r LEFT JOIN outputs o ON o.trace = r.trace WHERE r.recipe = ?",
            )?;
            let mut traces = Vec::with_capacity(keys.len());
            for key in keys {
                let mut rows = statement.query([key])?;
                let Some(first) = rows.next()? else {
                    traces.push(None);
                    continue;
                };
                if !row::RESULTS.is_sound(first, 0)? {
                    damaged.push(Damaged::Result(*key));
                    traces.push(None);
                    continue;
                }
                let trace = first.get(1)?;
                let outputs = Outputs::new(first, 3)?.rest(&mut rows, 3)?;
                let outputs = outputs.complete();
                if outputs.is_none() {
                    damaged.push(Damaged::Trace(trace));
                }
                traces.push(outputs.map(|outputs| Trace { key: trace, outputs }));
            }
            drop(statement);
            Ok((traces, damaged))
        })?;
        self.lose(damaged)?;
        Ok(traces)
    }

    /// Looks up finished work by its trace key. What is damaged counts as absent; see
    /// [`Index::take_damaged`].
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn trace(&self, key: Key) -> Result<Option<Trace>, CacheError> {
        let outputs = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT trace, name, artifact, count, checksum FROM outputs WHERE trace = ?",
            )?;
            let mut rows = statement.query([key])?;
            match rows.next()? {
                None => Ok(None),
                Some(first) => Ok(Some(Outputs::new(first, 0)?.rest(&mut rows, 0)?.complete())),
            }
        })?;
        match outputs {
            None => Ok(None),
            Some(Some(outputs)) => Ok(Some(Trace { key, outputs })),
            Some(None) => {
                self.lose(vec![Damaged::Trace(key)])?;
                Ok(None)
            }
        }
    }

    /// Returns how a piece of finished work was made.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the record is damaged.
    pub fn manifest(&self, trace: Key) -> Result<Option<Manifest>, CacheError> {
        let text = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, skeleton, record, manifest, checksum FROM traces WHERE key = ?",
            )?;
            let mut rows = statement.query([trace])?;
            match rows.next()? {
                None => Ok(None),
                Some(row) if row::TRACES.is_sound(row, 0)? => Ok(Some(Some(row.get::<_, String>(3)?))),
                Some(_) => Ok(Some(None)),
            }
        })?;
        match text {
            None => Ok(None),
            Some(Some(text)) => parse(trace, &text).map(Some),
            Some(None) => Err(CacheError::Row { key: trace, detail: CHECKSUM.to_owned() }),
        }
    }

    /// Returns whether any finished work has the same kind, parameters and ports as `skeleton`.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn has_skeleton(&self, skeleton: Key) -> Result<bool, CacheError> {
        Ok(!self.of_skeleton(skeleton, 1)?.is_empty())
    }

    /// Returns the mean seconds that finished executions of a kind of work took, by skeleton.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if an entry is unreadable.
    pub fn seconds_of(&self, skeleton: Key) -> Result<Option<f64>, CacheError> {
        let seconds = self
            .of_skeleton(skeleton, 16)?
            .iter()
            .map(|(key, text)| parse::<Manifest>(*key, text).map(|manifest| manifest.seconds))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / seconds.len() as f64))
    }

    /// Returns manifests of work with the same kind, parameters and ports, at most `most`.
    fn of_skeleton(&self, skeleton: Key, most: usize) -> Result<Vec<(Key, String)>, CacheError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, skeleton, record, manifest, checksum FROM traces WHERE skeleton = ?",
            )?;
            let mut rows = statement.query([skeleton])?;
            let mut manifests = Vec::new();
            while manifests.len() < most
                && let Some(row) = rows.next()?
            {
                if row::TRACES.is_sound(row, 0)? {
                    manifests.push((row.get(0)?, row.get(3)?));
                }
            }
            Ok(manifests)
        })
    }

    /// Returns the files of an artifact. A damaged listing counts as absent, and what made the
    /// artifact as not done; see [`Index::take_damaged`].
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn artifact(&self, digest: Digest) -> Result<Option<Artifact>, CacheError> {
        match self.read(|connection| artifact_in(connection, digest))? {
            Listing::Absent => Ok(None),
            Listing::Sound(artifact) => Ok(Some(artifact)),
            Listing::Damaged(_) => {
                self.lose(vec![Damaged::Artifact(digest)])?;
                Ok(None)
            }
        }
    }

    /// Records finished work: artifacts, trace and recipe in one transaction. Returns the record
    /// that the new one replaces.
    pub(crate) fn commit(&self, work: &Finished<'_>, record: Digest) -> Result<Option<Digest>, CacheError> {
        self.write(|connection| commit_in(connection, work, record))
    }

    /// Records which files a source folder has whose copies were taken in: keys name it by the digest
    /// of this listing.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn keep_listing(&self, folder: &Artifact) -> Result<(), CacheError> {
        if self.artifact(folder.digest())?.is_some() {
            return Ok(());
        }
        self.write(|connection| put_listing(connection, folder))
    }

    /// Records that a recipe gives work that is there already.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn alias(&self, recipe: (Key, &Recipe), trace: Key) -> Result<(), CacheError> {
        self.write(|connection| {
            put_recipe(connection, recipe)?;
            row::RESULTS.put(connection, &[row::key(&recipe.0), row::key(&trace)])
        })
    }

    /// Forgets finished work whose bytes are lost, under every recipe that leads to it.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn forget(&self, trace: Key) -> Result<(), CacheError> {
        self.write(|connection| forget_in(connection, trace))
    }

    /// Returns the skeleton of a piece of finished work, and a recipe that leads to it.
    pub(crate) fn making_of(&self, trace: Key) -> Result<Option<(Key, Key)>, CacheError> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT t.skeleton, r.recipe FROM traces t JOIN results r ON r.trace = t.key \
                     WHERE t.key = ? ORDER BY r.recipe LIMIT 1",
                    [trace],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()
        })
    }

    /// Returns the record of a piece of finished work.
    pub(crate) fn record_of(&self, trace: Key) -> Result<Option<Digest>, CacheError> {
        self.read(|connection| record_in(connection, trace))
    }

    /// Returns the traces that have an artifact among their outputs.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn makers(&self, artifact: Digest) -> Result<Vec<Key>, CacheError> {
        self.read(|connection| makers_in(connection, artifact))
    }

    /// Lists all finished work, oldest first, and what cannot be read of it.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn list(&self) -> Result<(Vec<Listed>, Vec<String>), CacheError> {
        let mut listed = Vec::new();
        let mut unreadable = Vec::new();
        self.read(|connection| {
            let mut statement =
                connection.prepare("SELECT key, skeleton, record, manifest, checksum FROM traces")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let key = row.get::<_, Key>(0).ok();
                let name = key.map_or_else(|| "?".to_owned(), |key| key.short());
                let manifest = match (row::TRACES.is_sound(row, 0)?, key) {
                    (true, Some(key)) => parse::<Manifest>(key, &row.get::<_, String>(3)?)
                        .map(|manifest| listed.push(Listed { trace: key, manifest }))
                        .map_err(|error| error.to_string()),
                    _ => Err(CHECKSUM.to_owned()),
                };
                if let Err(problem) = manifest {
                    unreadable.push(format!("{name}  {problem}"));
                }
            }
            Ok(())
        })?;
        listed.sort_by_key(|entry: &Listed| (entry.manifest.started_ms, entry.trace));
        Ok((listed, unreadable))
    }

    /// Lists the digests of all artifacts.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn artifacts(&self) -> Result<Vec<Digest>, CacheError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT digest FROM artifacts ORDER BY digest")?;
            // What is no digest is no artifact that anything could name.
            let digests = statement.query_map([], |row| Ok(row.get(0).ok()))?;
            Ok(digests.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
    }

    /// Sums the cache up.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn totals(&self) -> Result<Totals, CacheError> {
        self.read(|connection| {
            let traces = connection.query_row("SELECT count(*) FROM traces", [], |row| row.get(0))?;
            let mut totals = Totals { traces, ..Totals::default() };
            let mut statement = connection.prepare(
                "SELECT digest, bytes, entries, checksum FROM artifacts \
                 WHERE digest IN (SELECT artifact FROM outputs)",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                totals.artifacts += 1;
                if row::ARTIFACTS.is_sound(row, 0)? {
                    totals.bytes = totals.bytes.saturating_add(row.get(1)?);
                }
            }
            Ok(totals)
        })
    }

    /// Returns the recipe of a key, if any run has asked for it.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the entry is unreadable.
    pub fn recipe(&self, key: Key) -> Result<Option<Recipe>, CacheError> {
        let text: Option<String> = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key, document, checksum FROM recipes WHERE key = ?")?;
            let mut rows = statement.query([key])?;
            match rows.next()? {
                Some(row) if row::RECIPES.is_sound(row, 0)? => row.get(1).map(Some),
                _ => Ok(None),
            }
        })?;
        text.map(|text| parse(key, &text)).transpose()
    }

    /// Remembers what was found damaged, and takes it out where that is allowed, so that its work
    /// is done again.
    fn lose(&self, damaged: Vec<Damaged>) -> Result<(), CacheError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let what = |damaged: &Damaged| match damaged {
            Damaged::Result(key) => format!("what the recipe {} leads to", key.short()),
            Damaged::Trace(key) => format!("what the work {} made", key.short()),
            Damaged::Artifact(digest) => format!("which files the artifact {} has", digest.short()),
        };
        let complaint = |damaged| format!("the cache index is damaged where it says {}", what(damaged));
        self.damaged.lock().expect("no panic while held").extend(damaged.iter().map(complaint));
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        self.write(|connection| {
            for damaged in &damaged {
                match damaged {
                    Damaged::Result(key) => {
                        connection.execute("DELETE FROM results WHERE recipe = ?", [key])?;
                    }
                    Damaged::Trace(key) => forget_in(connection, *key)?,
                    Damaged::Artifact(digest) => {
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

/// What is said of a row with another checksum.
const CHECKSUM: &str = "its checksum does not match";

/// The rows of one trace among the outputs.
struct Outputs {
    outputs: Vec<(String, Digest)>,
    /// How many there should be; none if a row is damaged or there is none.
    count: Option<i64>,
}

impl Outputs {
    /// Begins with a row, whose columns of the outputs begin at `first`.
    fn new(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let mut outputs = Self { outputs: Vec::with_capacity(1), count: None };
        if row::OUTPUTS.is_sound(row, first)? {
            outputs.count = Some(row.get(first + 3)?);
            outputs.outputs.push((row.get(first + 1)?, row.get(first + 2)?));
        }
        Ok(outputs)
    }

    fn rest(mut self, rows: &mut rusqlite::Rows<'_>, first: usize) -> rusqlite::Result<Self> {
        while let Some(row) = rows.next()? {
            let next = Self::new(row, first)?;
            if next.count != self.count {
                self.count = None;
            }
            self.outputs.extend(next.outputs);
        }
        Ok(self)
    }

    /// Returns all outputs, sorted by name, or nothing if not all of them are there.
    fn complete(mut self) -> Option<Vec<(String, Digest)>> {
        self.outputs.sort();
        (self.count == Some(self.outputs.len() as i64)).then_some(self.outputs)
    }
}

/// What there is of an artifact's listing.
pub(super) enum Listing {
    Absent,
    Sound(Artifact),
    Damaged(String),
}

pub(super) fn artifact_in(connection: &Connection, digest: Digest) -> rusqlite::Result<Listing> {
    let mut statement = connection
        .prepare_cached("SELECT digest, bytes, entries, checksum FROM artifacts WHERE digest = ?")?;
    let mut rows = statement.query([digest])?;
    let Some(row) = rows.next()? else {
        return Ok(Listing::Absent);
    };
    if !row::ARTIFACTS.is_sound(row, 0)? {
        return Ok(Listing::Damaged(CHECKSUM.to_owned()));
    }
    let text: String = row.get(2)?;
    let entries = match serde_json::from_str::<Vec<Entry>>(&text) {
        Ok(entries) => entries,
        Err(error) => return Ok(Listing::Damaged(error.to_string())),
    };
    let artifact = Artifact::new(entries);
    if artifact.digest() != digest {
        return Ok(Listing::Damaged("its files are not those that its digest names".to_owned()));
    }
    Ok(match artifact.check_paths() {
        Ok(()) => Listing::Sound(artifact),
        Err(error) => Listing::Damaged(error.to_string()),
    })
}

pub(super) fn makers_in(connection: &Connection, artifact: Digest) -> rusqlite::Result<Vec<Key>> {
    let mut statement = connection.prepare_cached(
        "SELECT trace, name, artifact, count, checksum FROM outputs WHERE artifact = ? ORDER BY trace",
    )?;
    let mut rows = statement.query([artifact])?;
    let mut makers = Vec::new();
    while let Some(row) = rows.next()? {
        if row::OUTPUTS.is_sound(row, 0)? {
            makers.push(row.get(0)?);
        }
    }
    makers.dedup();
    Ok(makers)
}

fn record_in(connection: &Connection, trace: Key) -> rusqlite::Result<Option<Digest>> {
    let mut statement = connection
        .prepare_cached("SELECT key, skeleton, record, manifest, checksum FROM traces WHERE key = ?")?;
    let mut rows = statement.query([trace])?;
    match rows.next()? {
        Some(row) if row::TRACES.is_sound(row, 0)? => row.get(2).map(Some),
        _ => Ok(None),
    }
}

pub(super) fn commit_in(
    connection: &Connection,
    work: &Finished<'_>,
    record: Digest,
) -> rusqlite::Result<Option<Digest>> {
    let Finished { trace, skeleton, manifest, artifacts, recipe } = work;
    let before = record_in(connection, *trace)?.filter(|before| *before != record);
    for artifact in *artifacts {
        put_listing(connection, artifact)?;
    }
    let text = serde_json::to_string(manifest).expect("a manifest is plain data");
    let values = [row::key(trace), row::key(skeleton), row::digest(&record), row::text(&text)];
    row::TRACES.put(connection, &values)?;
    connection.prepare_cached("DELETE FROM outputs WHERE trace = ?")?.execute([trace])?;
    let count = ValueRef::Integer(manifest.outputs.len() as i64);
    for output in &manifest.outputs {
        let values = [row::key(trace), row::text(&output.name), row::digest(&output.artifact), count];
        row::OUTPUTS.put(connection, &values)?;
    }
    put_recipe(connection, *recipe)?;
    row::RESULTS.put(connection, &[row::key(&recipe.0), row::key(trace)])?;
    Ok(before)
}

fn put_listing(connection: &Connection, artifact: &Artifact) -> rusqlite::Result<()> {
    let entries = serde_json::to_string(artifact.entries()).expect("entries are plain data");
    let (digest, bytes) = (artifact.digest(), row::number(artifact.bytes()));
    row::ARTIFACTS.put(connection, &[row::digest(&digest), bytes, row::text(&entries)])
}

pub(super) fn forget_in(connection: &Connection, trace: Key) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM outputs WHERE trace = ?",
        "DELETE FROM traces WHERE key = ?",
        "DELETE FROM results WHERE trace = ?",
    ] {
        connection.prepare_cached(sql)?.execute([trace])?;
    }
    Ok(())
}

/// Records a recipe, if it is not there and sound.
pub(super) fn put_recipe(connection: &Connection, recipe: (Key, &Recipe)) -> rusqlite::Result<()> {
    let document = serde_json::to_string(recipe.1).expect("a recipe is plain data");
    let stored: Option<bool> = connection
        .prepare_cached("SELECT key, document, checksum FROM recipes WHERE key = ?")?
        .query_row(params![recipe.0], |row| row::RECIPES.is_sound(row, 0))
        .optional()?;
    if stored == Some(true) {
        return Ok(());
    }
    row::RECIPES.put(connection, &[row::key(&recipe.0), row::text(&document)])
}
