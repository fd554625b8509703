//! What is remembered about files that others own.

use std::path::Path;

use rusqlite::types::ValueRef;

use super::connection::Index;
use super::row;
use crate::access::Access;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::Fingerprint;

impl Index {
    /// Returns the digest remembered for a file, if the file still looks the same.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn remembered(&self, path: &Path, fingerprint: &Fingerprint) -> Result<Option<Digest>, CacheError> {
        let Some(name) = path.to_str() else {
            return Ok(None);
        };
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT path, device, inode, bytes, mtime_ns, ctime_ns, digest, checksum FROM sources \
                 WHERE path = ?",
            )?;
            let mut rows = statement.query([name])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            // A corrupt one is replaced when the file has been read again.
            if !row::SOURCES.is_intact(row, 0)? {
                return Ok(None);
            }
            let (mtime, ctime) = (fingerprint.mtime_ns.to_be_bytes(), fingerprint.ctime_ns.to_be_bytes());
            for (column, value) in values(name, fingerprint, &mtime, &ctime).iter().enumerate() {
                if row.get_ref(column)? != *value {
                    return Ok(None);
                }
            }
            row.get(6).map(Some)
        })
    }

    /// Remembers the digest of a file. A cache that is only read remembers nothing.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn remember(&self, path: &Path, fingerprint: &Fingerprint, digest: Digest) -> Result<(), CacheError> {
        let Some(name) = path.to_str() else {
            return Ok(());
        };
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        let (mtime, ctime) = (fingerprint.mtime_ns.to_be_bytes(), fingerprint.ctime_ns.to_be_bytes());
        let [name, device, inode, bytes, mtime, ctime] = values(name, fingerprint, &mtime, &ctime);
        let values = [name, device, inode, bytes, mtime, ctime, row::digest(&digest)];
        self.write(|connection| row::SOURCES.put(connection, &values))
    }
}

/// Writes what must stay the same, as a row has it.
fn values<'a>(
    name: &'a str,
    fingerprint: &Fingerprint,
    mtime: &'a [u8; 16],
    ctime: &'a [u8; 16],
) -> [ValueRef<'a>; 6] {
    [
        row::text(name),
        row::number(fingerprint.device_and_inode.0),
        row::number(fingerprint.device_and_inode.1),
        row::number(fingerprint.bytes),
        ValueRef::Blob(mtime),
        ValueRef::Blob(ctime),
    ]
}
