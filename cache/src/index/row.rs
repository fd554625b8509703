//! A checksum in every row that is believed.
//!
//! SQLite notices a page that makes no sense, and not one that says something else. So each row
//! carries a hash of its columns, and a row whose hash is another is corrupt: it is never used.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use crate::digest::Digest;
use crate::key::Key;

/// The most columns that a checked table has.
const MAX_COLUMNS: usize = 9;

/// The message for a row whose checksum does not match.
pub(super) const CHECKSUM: &str = "its checksum does not match";

/// Long enough to detect accidents, and short enough to keep the file small.
const CHECKSUM_BYTES: usize = 16;

/// A table whose rows are checked. The column after those that are named here is `checksum`.
pub(super) struct Table {
    /// Its name; part of every checksum.
    pub name: &'static str,
    /// The columns that the checksum covers, in their order.
    pub columns: &'static [&'static str],
    /// How many of the first columns identify a row; none if a separate `id` does.
    keys: usize,
    /// Reads the columns and the checksum of all rows.
    pub select: &'static str,
    /// Adds or replaces a row.
    insert: &'static str,
}

macro_rules! table {
    ($name:literal, keys: $keys:literal, $first:literal $(, $column:literal)+) => {
        Table {
            name: $name,
            columns: &[$first $(, $column)+],
            keys: $keys,
            select: concat!("SELECT ", $first, $(", ", $column,)+ ", checksum FROM ", $name),
            insert: concat!(
                "INSERT OR REPLACE INTO ", $name, " (", $first, $(", ", $column,)+ ", checksum) VALUES (?",
                $(placeholder!($column),)+ ", ?)"
            ),
        }
    };
}

macro_rules! placeholder {
    ($column:literal) => {
        ", ?"
    };
}

pub(super) const ARTIFACTS: Table = table!("artifacts", keys: 1, "digest", "bytes", "entries");
pub(super) const TRACES: Table = table!("traces", keys: 1, "key", "shape", "record", "manifest");
pub(super) const OUTPUTS: Table = table!("outputs", keys: 2, "trace", "name", "artifact", "count");
pub(super) const RECIPES: Table = table!("recipes", keys: 1, "key", "recipe");
/// Apart from the recipes, so that looking up a result reads no recipe.
pub(super) const RESULTS: Table = table!("results", keys: 1, "recipe", "trace");
pub(super) const HISTORY: Table = table!("history", keys: 3, "experiment", "stage", "run", "recipe");
pub(super) const SOURCES: Table =
    table!("sources", keys: 1, "path", "device", "inode", "bytes", "mtime_ns", "ctime_ns", "digest");
pub(super) const EXECUTIONS: Table = table!(
    "executions", keys: 0, "run", "stage", "recipe", "trace", "at_ms", "seconds", "outcome", "message", "log"
);

/// All checked tables.
pub(super) const ALL: [&Table; 8] =
    [&ARTIFACTS, &TRACES, &OUTPUTS, &RECIPES, &RESULTS, &HISTORY, &SOURCES, &EXECUTIONS];

impl Table {
    /// Adds or replaces a row.
    pub(super) fn put(&self, connection: &Connection, values: &[ValueRef<'_>]) -> rusqlite::Result<()> {
        let checksum = self.checksum(values);
        let checksum = [ValueRef::Blob(&checksum)];
        let values = values.iter().chain(&checksum).map(|value| ToSqlOutput::Borrowed(*value));
        connection.prepare_cached(self.insert)?.execute(params_from_iter(values))?;
        Ok(())
    }

    /// Returns whether a row, whose columns of this table begin at `first`, is as it was written.
    pub(super) fn is_intact(&self, row: &Row<'_>, first: usize) -> rusqlite::Result<bool> {
        let count = self.columns.len();
        let mut values = [ValueRef::Null; MAX_COLUMNS];
        for (column, value) in values.iter_mut().enumerate().take(count) {
            *value = row.get_ref(first + column)?;
        }
        let stored = row.get_ref(first + count)?;
        Ok(stored == ValueRef::Blob(&self.checksum(&values[..count])))
    }

    fn checksum(&self, values: &[ValueRef<'_>]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new();
        // As a prefix and not as a derived key, which would cost two more hashes per row.
        hasher.update(b"pipeline row 2 ");
        hasher.update(self.name.as_bytes());
        for value in values {
            let integer;
            let (tag, bytes): (u8, &[u8]) = match value {
                ValueRef::Null => (0, &[]),
                ValueRef::Integer(value) => {
                    integer = value.to_be_bytes();
                    (1, &integer)
                }
                ValueRef::Real(value) => {
                    integer = (value.to_bits() as i64).to_be_bytes();
                    (2, &integer)
                }
                ValueRef::Text(text) => (3, text),
                ValueRef::Blob(blob) => (4, blob),
            };
            let mut head = [tag; 9];
            head[1..].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
            hasher.update(&head);
            hasher.update(bytes);
        }
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
        checksum
    }

    /// Returns the keys of all corrupt rows, as they are stored.
    pub(super) fn corrupt_rows(&self, connection: &Connection) -> rusqlite::Result<Vec<Vec<Value>>> {
        let keys = self.key_columns();
        let sql =
            format!("SELECT {}, {}, checksum FROM {}", keys.join(", "), self.columns.join(", "), self.name);
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut corrupt = Vec::new();
        while let Some(row) = rows.next()? {
            if !self.is_intact(row, keys.len())? {
                corrupt.push((0..keys.len()).map(|column| row.get(column)).collect::<Result<_, _>>()?);
            }
        }
        Ok(corrupt)
    }

    /// Returns the columns that identify a row.
    fn key_columns(&self) -> &'static [&'static str] {
        if self.keys == 0 { &["id"] } else { &self.columns[..self.keys] }
    }

    /// Removes the row with these keys, whatever is in it.
    pub(super) fn remove(&self, connection: &Connection, keys: &[Value]) -> rusqlite::Result<()> {
        let conditions: Vec<String> = self.key_columns().iter().map(|name| format!("{name} IS ?")).collect();
        let sql = format!("DELETE FROM {} WHERE {}", self.name, conditions.join(" AND "));
        connection.execute(&sql, params_from_iter(keys))?;
        Ok(())
    }
}

/// Writes a key for a row.
pub(super) fn key(key: &Key) -> ValueRef<'_> {
    ValueRef::Blob(key.as_bytes())
}

/// Writes a digest for a row.
pub(super) fn digest(digest: &Digest) -> ValueRef<'_> {
    ValueRef::Blob(digest.as_bytes())
}

/// Writes text for a row.
pub(super) fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

/// Writes an unsigned number for a row, by its bits.
pub(super) fn number(number: u64) -> ValueRef<'static> {
    ValueRef::Integer(number as i64)
}
