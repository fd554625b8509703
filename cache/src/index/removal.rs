//! Removing finished work whose bytes or rows are corrupt.

use rusqlite::Connection;

use super::connection::Index;
use super::row;
use crate::access::Access;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::key::Key;

/// An entry of the index whose checksum does not match.
pub(super) enum CorruptEntry {
    /// The result of a recipe.
    Result(Key),
    /// The outputs of a piece of work.
    Trace(Key),
    /// The list of files of an artifact.
    Artifact(Digest),
}

impl Index {
    /// Forgets finished work whose bytes are lost, under every recipe that leads to it.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub(crate) fn forget(&self, trace: Key) -> Result<(), CacheError> {
        self.write(|connection| forget_in(connection, trace))
    }

    /// Returns the traces that have an artifact among their outputs.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn producers(&self, artifact: Digest) -> Result<Vec<Key>, CacheError> {
        self.read(|connection| producers_in(connection, artifact))
    }

    /// Reports corrupt entries, and removes them with the work they belong to, so that it is done
    /// again. A read-only cache stays as it is.
    pub(super) fn invalidate(&self, corrupt: Vec<CorruptEntry>) -> Result<(), CacheError> {
        if corrupt.is_empty() {
            return Ok(());
        }
        let what = |entry: &CorruptEntry| match entry {
            CorruptEntry::Result(key) => format!("the result of the recipe {}", key.short()),
            CorruptEntry::Trace(key) => format!("the outputs of the work {}", key.short()),
            CorruptEntry::Artifact(digest) => format!("the list of files of the artifact {}", digest.short()),
        };
        let message = |entry| format!("a corrupt entry in the cache index: {}", what(entry));
        self.corruption_messages.lock().expect("no panic while held").extend(corrupt.iter().map(message));
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        self.write(|connection| {
            for entry in &corrupt {
                match entry {
                    CorruptEntry::Result(key) => {
                        connection.execute("DELETE FROM results WHERE recipe = ?", [key])?;
                    }
                    CorruptEntry::Trace(key) => forget_in(connection, *key)?,
                    CorruptEntry::Artifact(digest) => forget_artifact_in(connection, *digest)?,
                }
            }
            Ok(())
        })
    }
}

/// Removes the listing of an artifact, and the work that made it.
pub(super) fn forget_artifact_in(connection: &Connection, artifact: Digest) -> rusqlite::Result<()> {
    for producer in producers_in(connection, artifact)? {
        forget_in(connection, producer)?;
    }
    connection.execute("DELETE FROM artifacts WHERE digest = ?", [artifact])?;
    Ok(())
}

fn producers_in(connection: &Connection, artifact: Digest) -> rusqlite::Result<Vec<Key>> {
    let mut statement = connection.prepare_cached(
        "SELECT trace, name, artifact, count, checksum FROM outputs WHERE artifact = ? ORDER BY trace",
    )?;
    let mut rows = statement.query([artifact])?;
    let mut producers = Vec::new();
    while let Some(row) = rows.next()? {
        if row::OUTPUTS.is_intact(row, 0)? {
            producers.push(row.get(0)?);
        }
    }
    producers.dedup();
    Ok(producers)
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
