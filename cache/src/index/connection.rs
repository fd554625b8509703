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
    /// What was found damaged and left out since somebody last asked.
    pub(super) damaged: Mutex<Vec<String>>,
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
