//! Opening the SQLite file, whoever may write to it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::schema::SCHEMA;
use super::view;
use crate::format::FOLDER_FORMAT;
use crate::network::is_network;

/// How long to wait for other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn is_uninitialized(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Opens for writing, and makes the tables if there are none.
pub(super) fn for_writing(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Shared memory does not work between machines.
    let journal = if is_network(path) { "delete" } else { "wal" };
    let current: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    // To set it takes the whole file, even where nothing changes.
    if current != journal {
        connection.pragma_update(None, "journal_mode", journal)?;
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    make_tables(&mut connection)?;
    Ok(connection)
}

/// Makes a new index in one file that no other process has open.
pub(super) fn for_building(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    make_tables(&mut connection)?;
    Ok(connection)
}

fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    if !is_uninitialized(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another run may have made them meanwhile.
    if is_uninitialized(&transaction)? {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO meta (name, value) VALUES ('format', ?)", [FOLDER_FORMAT])?;
    }
    transaction.commit()
}

/// Opens for reading, and makes and changes nothing, not even the files by which SQLite's readers
/// tell each other what they read: they would be ours, and closed to the owner of the index.
pub(super) fn for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let unreadable = |error: io::Error| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
    };
    let Some(pages) = view::read(path).map_err(unreadable)? else {
        // Without a write-ahead log SQLite needs no other files to read.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        return Ok(connection);
    };
    let mut connection = Connection::open_in_memory()?;
    if !pages.is_empty() {
        connection.deserialize_read_exact("main", pages.as_slice(), pages.len(), true)?;
    }
    Ok(connection)
}

/// Returns whether the index, or the one that would be made, can be written to by this user.
pub(super) fn may_write(path: &Path) -> bool {
    // The log and its index too: where another user's are in the way, SQLite writes nothing.
    ["", "-wal", "-shm"].iter().all(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match File::options().read(true).write(true).open(name) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(_) => true,
        }
    })
}

/// Tries again while other processes create the file, recover it after a kill, or checkpoint it on
/// closing: SQLite does not wait by itself then.
pub(super) fn retry_while_busy<T>(open: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let start = Instant::now();
    loop {
        match open() {
            Err(error) if is_busy(&error) && start.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
