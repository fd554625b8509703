use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Key};

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
            Self::Index { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }

    /// Returns whether stored bytes are not what they should be, so that work must be redone.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::NotABlob { .. })
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
