use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::key::Key;

/// What can go wrong between bytes and disk.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file operation failed.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index could not be read or written.
    #[error("failed to use the cache index {}", path.display())]
    Index {
        /// The SQLite file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The cache was written by another version of the format.
    #[error("the cache {} has format {found}, this program writes format {expected}", path.display())]
    Format {
        /// The cache's folder.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format this program knows.
        expected: u32,
    },
    /// There is no cache at this place.
    #[error("there is no cache at {}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The results of a cache are there, and the index that says which they are is not.
    #[error("the index of the cache {} is gone", path.display())]
    IndexLost {
        /// The cache's folder.
        path: PathBuf,
    },
    /// Other processes write to a cache that has to be left alone for a moment.
    #[error("another process uses the cache {}", path.display())]
    InUse {
        /// The cache's folder.
        path: PathBuf,
    },
    /// Something had to be written to a cache that can only be read.
    #[error("the cache {} is read-only", path.display())]
    ReadOnly {
        /// The cache's folder.
        path: PathBuf,
    },
    /// A blob is there, but its bytes are not those that its name promises.
    #[error("blob {} is damaged: its bytes hash to {found}", path.display())]
    Damaged {
        /// The blob's file.
        path: PathBuf,
        /// What the name promises.
        expected: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// A blob that the index names is gone.
    #[error("blob {} is missing", path.display())]
    Missing {
        /// The blob's file.
        path: PathBuf,
        /// Its digest.
        digest: Digest,
    },
    /// Something other than a file stands where a blob belongs.
    #[error("blob {} is damaged: {what} stands in its place", path.display())]
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
    /// Something other than a regular file stands where one is read or kept.
    #[error("{} is {what}, and only regular files, also in folders, can be read and kept", path.display())]
    Unkeepable {
        /// The offending entry.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file is larger than anything of its sort is.
    #[error("{} is larger than {limit_bytes} bytes, the most that is read of such a file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// A row of the index cannot be understood.
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

    /// Returns whether the index is gone or damaged as a whole, so that it has to be made again.
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

    /// Returns whether stored bytes are not what they should be, so that work must be redone.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::NotABlob { .. } | Self::Row { .. })
    }

    /// Returns the digest of the blob that is damaged or missing, if that is what went wrong.
    pub fn blob(&self) -> Option<Digest> {
        match self {
            Self::Damaged { expected: digest, .. }
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
