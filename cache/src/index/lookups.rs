//! Looking up finished work by recipe and by trace.

use rusqlite::{Connection, OptionalExtension, Row};

use super::connection::Index;
use super::removal::CorruptEntry;
use super::row::{self, CHECKSUM};
use crate::digest::Digest;
use crate::error::CacheError;
use crate::key::Key;
use crate::manifest::{Manifest, Recipe};

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
        self.outputs.iter().find(|(output, _)| output == name).map(|(_, digest)| *digest)
    }
}

impl Index {
    /// Looks up finished work by recipe keys, in order. What is corrupt counts as absent; see
    /// [`Index::take_corruption_messages`].
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn recipes(&self, keys: &[Key]) -> Result<Vec<Option<Trace>>, CacheError> {
        let (traces, corrupt) = self.read(|connection| {
            let mut corrupt = Vec::new();
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
                if !row::RESULTS.is_intact(first, 0)? {
                    corrupt.push(CorruptEntry::Result(*key));
                    traces.push(None);
                    continue;
                }
                let trace = first.get(1)?;
                let outputs = Outputs::new(first, 3)?.rest(&mut rows, 3)?;
                let outputs = outputs.complete();
                if outputs.is_none() {
                    corrupt.push(CorruptEntry::Trace(trace));
                }
                traces.push(outputs.map(|outputs| Trace { key: trace, outputs }));
            }
            drop(statement);
            Ok((traces, corrupt))
        })?;
        self.invalidate(corrupt)?;
        Ok(traces)
    }

    /// Looks up finished work by its trace key. What is corrupt counts as absent; see
    /// [`Index::take_corruption_messages`].
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
                self.invalidate(vec![CorruptEntry::Trace(key)])?;
                Ok(None)
            }
        }
    }

    /// Returns how a piece of finished work was made.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the record is corrupt.
    pub fn manifest(&self, trace: Key) -> Result<Option<Manifest>, CacheError> {
        let text = self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, shape, record, manifest, checksum FROM traces WHERE key = ?")?;
            let mut rows = statement.query([trace])?;
            match rows.next()? {
                None => Ok(None),
                Some(row) if row::TRACES.is_intact(row, 0)? => Ok(Some(Some(row.get::<_, String>(3)?))),
                Some(_) => Ok(Some(None)),
            }
        })?;
        match text {
            None => Ok(None),
            Some(Some(text)) => parse(trace, &text).map(Some),
            Some(None) => Err(CacheError::Row { key: trace, detail: CHECKSUM.to_owned() }),
        }
    }

    /// Returns whether any finished work has the same kind, parameters and ports as `shape`.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn has_shape(&self, shape: Key) -> Result<bool, CacheError> {
        Ok(!self.of_shape(shape, 1)?.is_empty())
    }

    /// Returns the mean seconds that finished executions of a kind of work took, by shape.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if an entry is unreadable.
    pub fn seconds_of(&self, shape: Key) -> Result<Option<f64>, CacheError> {
        let seconds = self
            .of_shape(shape, 16)?
            .iter()
            .map(|(key, text)| parse::<Manifest>(*key, text).map(|manifest| manifest.seconds))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / seconds.len() as f64))
    }

    /// Returns manifests of work with the same kind, parameters and ports, at most `most`.
    fn of_shape(&self, shape: Key, most: usize) -> Result<Vec<(Key, String)>, CacheError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, shape, record, manifest, checksum FROM traces WHERE shape = ?",
            )?;
            let mut rows = statement.query([shape])?;
            let mut manifests = Vec::new();
            while manifests.len() < most
                && let Some(row) = rows.next()?
            {
                if row::TRACES.is_intact(row, 0)? {
                    manifests.push((row.get(0)?, row.get(3)?));
                }
            }
            Ok(manifests)
        })
    }

    /// Returns the shape of a piece of finished work, and a recipe that leads to it.
    pub(crate) fn making_of(&self, trace: Key) -> Result<Option<(Key, Key)>, CacheError> {
        self.read(|connection| {
            connection
                .query_row(
                    "SELECT t.shape, r.recipe FROM traces t JOIN results r ON r.trace = t.key \
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

    /// Returns the recipe of a key, if any run has asked for it.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if the entry is unreadable.
    pub fn recipe(&self, key: Key) -> Result<Option<Recipe>, CacheError> {
        let text: Option<String> = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT key, recipe, checksum FROM recipes WHERE key = ?")?;
            let mut rows = statement.query([key])?;
            match rows.next()? {
                Some(row) if row::RECIPES.is_intact(row, 0)? => row.get(1).map(Some),
                _ => Ok(None),
            }
        })?;
        text.map(|text| parse(key, &text)).transpose()
    }
}

/// The rows of one trace among the outputs.
struct Outputs {
    outputs: Vec<(String, Digest)>,
    /// How many there should be; none if a row is corrupt or there is none.
    count: Option<i64>,
}

impl Outputs {
    /// Begins with a row, whose columns of the outputs begin at `first`.
    fn new(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let mut outputs = Self { outputs: Vec::with_capacity(1), count: None };
        if row::OUTPUTS.is_intact(row, first)? {
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

pub(super) fn record_in(connection: &Connection, trace: Key) -> rusqlite::Result<Option<Digest>> {
    let mut statement = connection
        .prepare_cached("SELECT key, shape, record, manifest, checksum FROM traces WHERE key = ?")?;
    let mut rows = statement.query([trace])?;
    match rows.next()? {
        Some(row) if row::TRACES.is_intact(row, 0)? => row.get(2).map(Some),
        _ => Ok(None),
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(key: Key, text: &str) -> Result<T, CacheError> {
    serde_json::from_str(text).map_err(|error| CacheError::Row { key, detail: error.to_string() })
}
