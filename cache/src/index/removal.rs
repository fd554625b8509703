//! Taking finished work out, because its bytes or its rows are lost.

use rusqlite::Connection;

use super::connection::Index;
use super::row;
use crate::access::Access;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::key::Key;

/// A record that cannot be believed.
pub(super) enum Damaged {
    /// Which work a recipe leads to.
    Result(Key),
    /// What a piece of work made.
    Trace(Key),
    /// Which files an artifact has.
    Artifact(Digest),
}

impl Index {
    /// Forgets finished work whose bytes are lost, under every recipe that leads to it.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn forget(&self, trace: Key) -> Result<(), CacheError> {
        self.write(|connection| forget_in(connection, trace))
    }

    /// Returns the traces that have an artifact among their outputs.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn makers(&self, artifact: Digest) -> Result<Vec<Key>, CacheError> {
        self.read(|connection| makers_in(connection, artifact))
    }

    /// Remembers what was found damaged, and takes it out where that is allowed, so that its work
    /// is done again.
    pub(super) fn lose(&self, damaged: Vec<Damaged>) -> Result<(), CacheError> {
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
