//! The index itself: an open SQLite file, read and written in transactions.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, TransactionBehavior};

use super::open;
use crate::access::Access;
use crate::error::CacheError;

/// The index of a cache.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    pub(super) access: Access,
    connection: Mutex<Connection>,
    /// Messages on corrupt entries that were skipped and not yet reported.
    pub(super) corruption_messages: Mutex<Vec<String>>,
}

impl Index {
    /// Opens or makes the SQLite file.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, CacheError> {
        let wrap = |source| CacheError::Index { path: path.to_owned(), source };
        let connection = open::retry_while_busy(|| match access {
            Access::ReadWrite => open::for_writing(path),
            Access::ReadOnly => open::for_reading(path),
        });
        let connection = connection.map_err(wrap)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self {
            path: path.to_owned(),
            access,
            connection: Mutex::new(connection),
            corruption_messages: Mutex::default(),
        })
    }

    /// Returns whether this user can write to the index at a path, or make it.
    pub(crate) fn may_write(path: &Path) -> bool {
        open::may_write(path)
    }

    /// Returns messages on corrupt entries that were met since the last call. No such entry was
    /// used; where the cache can be written to it was removed, and its work will be done again.
    pub fn take_corruption_messages(&self) -> Vec<String> {
        std::mem::take(&mut self.corruption_messages.lock().expect("no panic while held"))
    }

    /// Returns whether the file has no tables, as after a run that was killed at its beginning.
    pub(crate) fn is_uninitialized(&self) -> Result<bool, CacheError> {
        self.read(open::is_uninitialized)
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

    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        work(&self.lock()).map_err(|source| self.wrap(source))
    }

    /// Runs `work` in one transaction that takes the write lock at once, so that it waits for
    /// other writers instead of failing half way.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        let mut connection = self.lock();
        let in_transaction = || -> rusqlite::Result<T> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        in_transaction().map_err(|source| self.wrap(source))
    }

    /// Runs SQLite's integrity check and returns its errors.
    ///
    /// # Errors
    /// [`CacheError::Index`] if the check cannot run.
    pub fn integrity_errors(&self) -> Result<Vec<String>, CacheError> {
        let lines: Vec<String> = self.read(|connection| {
            connection.prepare("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect()
        })?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}
