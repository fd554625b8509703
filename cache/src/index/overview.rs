//! Listing the contents of the cache.

use super::connection::Index;
use super::lookups::parse;
use super::row::{self, CHECKSUM};
use crate::error::CacheError;
use crate::key::Key;
use crate::manifest::Manifest;

/// One artifact in a listing of the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedWork {
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
    /// Lists all finished work, oldest first, and what cannot be read of it.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn list(&self) -> Result<(Vec<ListedWork>, Vec<String>), CacheError> {
        let mut listed = Vec::new();
        let mut unreadable = Vec::new();
        self.read(|connection| {
            let mut statement = connection.prepare(row::TRACES.select)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let key = row.get::<_, Key>(0).ok();
                let name = key.map_or_else(|| "?".to_owned(), |key| key.short());
                let manifest = match (row::TRACES.is_intact(row, 0)?, key) {
                    (true, Some(key)) => parse::<Manifest>(key, &row.get::<_, String>(3)?)
                        .map(|manifest| listed.push(ListedWork { trace: key, manifest }))
                        .map_err(|error| error.to_string()),
                    _ => Err(CHECKSUM.to_owned()),
                };
                if let Err(problem) = manifest {
                    unreadable.push(format!("{name}  {problem}"));
                }
            }
            Ok(())
        })?;
        listed.sort_by_key(|entry: &ListedWork| (entry.manifest.started_ms, entry.trace));
        Ok((listed, unreadable))
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
                if row::ARTIFACTS.is_intact(row, 0)? {
                    totals.bytes = totals.bytes.saturating_add(row.get(1)?);
                }
            }
            Ok(totals)
        })
    }
}
