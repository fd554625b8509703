//! A checksum in every row that is believed.
//!
//! SQLite notices a page that makes no sense, and not one that says something else. So each row
//! carries a hash of its columns, and a row whose hash is another is damaged: it is never used.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row, params_from_iter};

use crate::digest::Digest;
use crate::key::Key;

/// What is said of a row with another checksum.
pub(super) const CHECKSUM: &str = "its checksum does not match";

/// Enough of a hash to notice chance, and short enough not to be felt in the size of the file.
const CHECKSUM_BYTES: usize = 16;

/// A table whose rows are checked. The checksum is the column after those that it covers.
pub(super) struct Table {
    /// What the rows are of; part of every checksum.
    pub name: &'static str,
    /// How many columns there are before the checksum.
    pub columns: usize,
    /// The names of those, from the first, that say which row it is; none if rows have a number.
    pub keys: &'static [&'static str],
    /// Adds or replaces a row.
    pub insert: &'static str,
}

pub(super) const ARTIFACTS: Table = Table {
    name: "artifacts",
    columns: 3,
    keys: &["digest"],
    insert: "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?)",
};
pub(super) const TRACES: Table = Table {
    name: "traces",
    columns: 4,
    keys: &["key"],
    insert: "INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?, ?)",
};
pub(super) const OUTPUTS: Table = Table {
    name: "outputs",
    columns: 4,
    keys: &["trace", "name"],
    insert: "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?)",
};
pub(super) const RECIPES: Table = Table {
    name: "recipes",
    columns: 2,
    keys: &["key"],
    insert: "INSERT OR REPLACE INTO recipes VALUES (?, ?, ?)",
};
/// Apart from the recipes, so that to look results up reads no documents.
pub(super) const RESULTS: Table = Table {
    name: "results",
    columns: 2,
    keys: &["recipe"],
    insert: "INSERT OR REPLACE INTO results VALUES (?, ?, ?)",
};
pub(super) const HISTORY: Table = Table {
    name: "history",
    columns: 4,
    keys: &["experiment", "stage", "run"],
    insert: "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?)",
};
pub(super) const SOURCES: Table = Table {
    name: "sources",
    columns: 7,
    keys: &["path"],
    insert: "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
};
pub(super) const EXECUTIONS: Table = Table {
    name: "executions",
    columns: 9,
    keys: &[],
    insert: "INSERT INTO executions (run, stage, recipe, trace, at_ms, seconds, outcome, message, log, checksum) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
};

/// All of them, for whoever looks at everything.
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
    pub(super) fn is_sound(&self, row: &Row<'_>, first: usize) -> rusqlite::Result<bool> {
        let mut values = [ValueRef::Null; 9];
        for (column, value) in values.iter_mut().enumerate().take(self.columns) {
            *value = row.get_ref(first + column)?;
        }
        let stored = row.get_ref(first + self.columns)?;
        Ok(stored == ValueRef::Blob(&self.checksum(&values[..self.columns])))
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

    /// Returns the keys of all rows that are damaged, as they are written there.
    pub(super) fn damaged(&self, connection: &Connection) -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut statement = connection.prepare(&format!("SELECT * FROM {}", self.name))?;
        // Rows without a key of their own begin with their number.
        let first = usize::from(self.keys.is_empty());
        let mut rows = statement.query([])?;
        let mut damaged = Vec::new();
        while let Some(row) = rows.next()? {
            if !self.is_sound(row, first)? {
                damaged.push(
                    (0..self.key_names().len()).map(|column| row.get(column)).collect::<Result<_, _>>()?,
                );
            }
        }
        Ok(damaged)
    }

    /// Returns the columns by which a row is named.
    fn key_names(&self) -> &'static [&'static str] {
        if self.keys.is_empty() { &["id"] } else { self.keys }
    }

    /// Removes the row with these keys, whatever is in it.
    pub(super) fn remove(&self, connection: &Connection, keys: &[Value]) -> rusqlite::Result<()> {
        let conditions: Vec<String> = self.key_names().iter().map(|name| format!("{name} IS ?")).collect();
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
