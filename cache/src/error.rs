use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::Key;

/// An error of the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file operation failed.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The index could not be read or written.
    #[error("failed to use the cache index {}", path.display())]
    Index {
        /// The SQLite file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The cache was written by another version of the format.
    #[error("the cache {} has format {format}, but this program writes format {expected}", path.display())]
    Format {
        /// The cache's folder.
        path: PathBuf,
        /// The format of the folder.
        format: u32,
        /// The format this program knows.
        expected: u32,
    },
    /// There is no cache at this place.
    #[error("there is no cache at {}", path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// The cache has results, but no index.
    #[error("the index of the cache {} is gone", path.display())]
    IndexLost {
        /// The cache's folder.
        path: PathBuf,
    },
    /// Another process is writing to a cache that must not be written to just now.
    #[error("another process is using the cache {}", path.display())]
    InUse {
        /// The cache's folder.
        path: PathBuf,
    },
    /// A write to a cache that is open for reading only.
    #[error("the cache {} is read-only", path.display())]
    ReadOnly {
        /// The cache's folder.
        path: PathBuf,
    },
    /// The bytes of a blob do not match its digest.
    #[error("blob {} is corrupt: its bytes hash to {actual}", path.display())]
    Corrupt {
        /// The blob's file.
        path: PathBuf,
        /// The digest in its name.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// A blob that the index names is gone.
    #[error("blob {} is missing", path.display())]
    Missing {
        /// The blob's file.
        path: PathBuf,
        /// Its digest.
        digest: Digest,
    },
    /// Something other than a regular file is in the place of a blob.
    #[error("blob {} is corrupt: {what} is in its place", path.display())]
    NotABlob {
        /// Where the blob belongs.
        path: PathBuf,
        /// Its digest.
        digest: Digest,
        /// What is there.
        what: &'static str,
    },
    /// A file changed while it was being read.
    #[error("{} changed while it was being read", path.display())]
    Unstable {
        /// The file.
        path: PathBuf,
    },
    /// A file of a kind that cannot be read or stored.
    #[error("{} is {what}; only regular files and folders of regular files can be stored", path.display())]
    UnsupportedFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file is larger than its limit.
    #[error("{} is larger than the limit of {limit_bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// An entry of the index cannot be read.
    #[error("the cache index has an unreadable entry for {key:?}: {detail}")]
    Row {
        /// The entry's key.
        key: Key,
        /// What is wrong with it.
        detail: String,
    },
}

impl CacheError {
    /// Builds an [`CacheError::Io`] from what was tried, on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Returns whether the disk is full or a quota is used up.
    pub fn is_full_disk(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Index { source, path } => match source.sqlite_error() {
                Some(error) if error.code == rusqlite::ErrorCode::DiskFull => true,
                // SQLite has no word for a disk on which there is no room for shared memory.
                Some(error) if NO_ROOM.contains(&error.extended_code) => has_no_room(path),
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns whether the index is gone or corrupt as a whole, so that it has to be rebuilt.
    pub fn is_lost_index(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::IndexLost { .. } => true,
            Self::Index { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
                    || !matches!(source, rusqlite::Error::SqliteFailure(..))
            }
            _ => false,
        }
    }

    /// Returns whether stored bytes are corrupt or missing, so that work must be done again.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Missing { .. } | Self::NotABlob { .. } | Self::Row { .. })
    }

    /// Returns the digest of the blob that is corrupt or missing, if the error is about a blob.
    pub fn blob(&self) -> Option<Digest> {
        match self {
            Self::Corrupt { expected: digest, .. }
            | Self::Missing { digest, .. }
            | Self::NotABlob { digest, .. } => Some(*digest),
            _ => None,
        }
    }
}

/// Codes of failures to read and write that a full disk can be behind: to open, to enlarge and to
/// map shared memory, to write, to sync and to cut short.
const NO_ROOM: [i32; 6] = [
    rusqlite::ffi::SQLITE_IOERR_SHMOPEN,
    rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
    rusqlite::ffi::SQLITE_IOERR_SHMMAP,
    rusqlite::ffi::SQLITE_IOERR_WRITE,
    rusqlite::ffi::SQLITE_IOERR_FSYNC,
    rusqlite::ffi::SQLITE_IOERR_TRUNCATE,
];

/// A disk with less room than this counts as full.
const FULL_BELOW_BYTES: u64 = 1 << 16;

fn has_no_room(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statvfs(folder)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FULL_BELOW_BYTES)
}
