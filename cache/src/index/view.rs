//! A copy of the index in memory, for processes that cannot or must not write beside it.
//!
//! SQLite reads a database with a write-ahead log by way of a file that all readers write to.
//! Where that file cannot be made (a read-only or a full disk), or must not be made (it would be
//! ours, and lock out the index's owner), the file and its log are read here, and the log is
//! applied as <https://www.sqlite.org/fileformat2.html#walformat> has it. Nothing is written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files::Fingerprint;

const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// How long a writer is given to leave the file alone for as long as it takes to read it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads an index with its write-ahead log applied; `None` for one without such a log, which
/// SQLite can read without help.
///
/// Pages move from the log to the file at any time, and stay in the log until a new one is begun
/// with another header. So the file is read before the log, and both again if either was started again
/// meanwhile: then every page is in the log, or has been in the file all the while.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let log_path = log_path(path);
    let began = Instant::now();
    loop {
        let before = (log_header(&log_path)?, Fingerprint::of(&fs::metadata(path)?));
        let mut pages = fs::read(path)?;
        let log = match fs::read(&log_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            log => log?,
        };
        let after = (log_header(&log_path)?, Fingerprint::of(&fs::metadata(path)?));
        // Without a log nothing tells whether one was begun and moved to the file meanwhile, but
        // the file.
        let is_of_one_moment = before.0 == after.0 && (!before.0.is_empty() || before.1 == after.1);
        if !is_of_one_moment {
            if began.elapsed() > BUSY_TIMEOUT {
                return Err(io::Error::other("another process writes to it all the time"));
            }
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        // An empty file is one that SQLite has yet to begin; it may all be in the log.
        let has_log = pages.get(18..20) == Some(&[2, 2]);
        if !has_log && !pages.is_empty() {
            return Ok(None);
        }
        apply(&mut pages, &log);
        if let Some(versions) = pages.get_mut(18..20) {
            // What is in memory has no log any more.
            versions.copy_from_slice(&[1, 1]);
        }
        return Ok(Some(pages));
    }
}

fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Reads the header of the log, which another log does not have; none if there is no log.
fn log_header(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut header = Vec::new();
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        file => {
            file?.take(WAL_HEADER_BYTES as u64).read_to_end(&mut header)?;
        }
    }
    Ok(header)
}

/// Writes the pages of all committed transactions of a log over the pages of a file.
fn apply(pages: &mut Vec<u8>, log: &[u8]) {
    let number = |bytes: &[u8], at: usize| {
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
    };
    let Some((header, frames)) = log.split_at_checked(WAL_HEADER_BYTES) else {
        return;
    };
    let is_big_endian = match number(header, 0) {
        0x377f_0682 => false,
        0x377f_0683 => true,
        _ => return,
    };
    let page_bytes = number(header, 8) as usize;
    let mut sums = checksum((0, 0), &header[..24], is_big_endian);
    if !page_bytes.is_power_of_two()
        || !(512..=65536).contains(&page_bytes)
        || sums != (number(header, 24), number(header, 28))
    {
        return;
    }
    let mut transaction: BTreeMap<usize, &[u8]> = BTreeMap::new();
    for frame in frames.chunks_exact(FRAME_HEADER_BYTES + page_bytes) {
        let (frame_header, page) = frame.split_at(FRAME_HEADER_BYTES);
        sums = checksum(sums, &frame_header[..8], is_big_endian);
        sums = checksum(sums, page, is_big_endian);
        let is_of_this_log = frame_header[8..16] == header[16..24];
        // What follows was left by an earlier log, or is being written just now.
        if !is_of_this_log || sums != (number(frame_header, 16), number(frame_header, 20)) {
            break;
        }
        let place = number(frame_header, 0) as usize;
        if place == 0 {
            break;
        }
        transaction.insert(place - 1, page);
        let pages_after = number(frame_header, 4) as usize;
        if pages_after == 0 {
            continue;
        }
        pages.resize(pages_after * page_bytes, 0);
        for (place, page) in std::mem::take(&mut transaction) {
            let at = place * page_bytes;
            if let Some(target) = pages.get_mut(at..at + page_bytes) {
                target.copy_from_slice(page);
            }
        }
    }
}

/// SQLite's checksum of a log, continued.
fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], is_big_endian: bool) -> (u32, u32) {
    let read = |bytes: &[u8]| {
        let bytes = bytes.try_into().expect("chunks of eight, halved");
        if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    for pair in bytes.chunks_exact(8) {
        first = first.wrapping_add(read(&pair[..4])).wrapping_add(second);
        second = second.wrapping_add(read(&pair[4..])).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn open(pages: &[u8]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.deserialize_read_exact("main", pages, pages.len(), true).unwrap();
        connection
    }

    fn sum(connection: &Connection) -> (i64, i64) {
        connection
            .query_row("SELECT count(*), coalesce(sum(length(b)), 0) FROM t", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap()
    }

    #[test]
    fn a_log_that_was_not_yet_moved_to_the_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "wal_autocheckpoint", 20).unwrap();
        writer.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)").unwrap();
        for number in 0..200 {
            writer.execute("INSERT INTO t (b) VALUES (zeroblob(?))", [(number * 37) % 3000]).unwrap();
            if number % 7 == 0 {
                writer.execute("DELETE FROM t WHERE a % 5 = ?", [number % 5]).unwrap();
            }
            let view = open(&read(&path).unwrap().unwrap());
            assert_eq!(sum(&view), sum(&writer));
            let message: String = view.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(message, "ok");
        }
        // What is not committed is not seen.
        let before = sum(&writer);
        writer.execute_batch("BEGIN; INSERT INTO t (b) VALUES (zeroblob(100000))").unwrap();
        assert_eq!(sum(&open(&read(&path).unwrap().unwrap())), before);
    }

    #[test]
    fn beside_a_writer_every_view_is_of_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        writer.pragma_update(None, "synchronous", "OFF").unwrap();
        writer.pragma_update(None, "wal_autocheckpoint", 300).unwrap();
        writer.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)").unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for _ in 0..60 {
                    let view = open(&read(&path).unwrap().unwrap());
                    // Each transaction adds ten rows and takes ten away.
                    assert_eq!(sum(&view).0 % 10, 0);
                    let message: String =
                        view.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                    assert_eq!(message, "ok");
                }
            });
            while !reader.is_finished() {
                writer.execute_batch("BEGIN").unwrap();
                for _ in 0..10 {
                    writer.execute("INSERT INTO t (b) VALUES (zeroblob(700))", []).unwrap();
                }
                writer.execute("DELETE FROM t WHERE a <= (SELECT max(a) FROM t) - 500", []).unwrap();
                writer.execute_batch("COMMIT").unwrap();
            }
        });
    }
}
