//! The folder that holds blobs, index, locks, logs and work in progress.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::blobs::Blobs;
use crate::digest::{Digest, Key};
use crate::error::CacheError;
use crate::index::Index;
use crate::lock::KeyLock;
use crate::temporary::{self, Temporary};

/// The format of the folder and of every key. Another format is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// Whether a cache can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// New work can be kept.
    ReadWrite,
    /// Only what is there can be used.
    ReadOnly,
}

/// An open cache.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    access: Access,
    blobs: Blobs,
    index: Index,
}

impl Cache {
    /// Returns whether there is a cache in a folder.
    pub fn exists(folder: &Path) -> bool {
        // A making that was cut short leaves an empty file.
        fs::metadata(index_path(folder)).is_ok_and(|found| found.len() > 0)
    }

    /// Opens the cache in a folder, making it if it is not there, and falls back to reading
    /// where the folder cannot be written to.
    ///
    /// # Errors
    /// [`CacheError`] if it can be neither made nor read, or has another format.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        match Self::open_for_writing(folder) {
            Err(CacheError::Io { source, .. }) if is_refusal(&source) && index_path(folder).exists() => {
                Self::open_for_reading(folder)
            }
            other => other,
        }
    }

    /// Opens a cache that must be there, for looking only; nothing is made or changed.
    ///
    /// # Errors
    /// [`CacheError::Absent`] if there is none, else as [`Cache::open`].
    pub fn open_for_reading(folder: &Path) -> Result<Self, CacheError> {
        let folder = std::path::absolute(folder).map_err(CacheError::io("find", folder))?;
        if !index_path(&folder).exists() {
            return Err(CacheError::Absent { path: folder });
        }
        let index = Index::open(&index_path(&folder), Access::ReadOnly)?;
        if index.is_unmade()? {
            return Err(CacheError::Absent { path: folder });
        }
        Self::with(folder, Access::ReadOnly, index)
    }

    fn open_for_writing(folder: &Path) -> Result<Self, CacheError> {
        let folder = std::path::absolute(folder).map_err(CacheError::io("find", folder))?;
        for name in ["blobs", "tmp", "locks", "logs", "work"] {
            let inside = folder.join(name);
            fs::create_dir_all(&inside).map_err(CacheError::io("create", &inside))?;
        }
        drop(Temporary::create(&folder.join("tmp"))?);
        let index = Index::open(&index_path(&folder), Access::ReadWrite)?;
        Self::with(folder, Access::ReadWrite, index)
    }

    fn with(folder: PathBuf, access: Access, index: Index) -> Result<Self, CacheError> {
        let found = index.format()?;
        if found != FORMAT {
            return Err(CacheError::Format { path: folder, found, expected: FORMAT });
        }
        let blobs = Blobs::new(folder.join("blobs"), folder.join("tmp"));
        Ok(Self { folder, access, blobs, index })
    }

    /// Returns the cache's folder, absolute.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether new work can be kept.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Returns the content-addressed files.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Takes the lock on a key, or returns `None` while another run holds it.
    ///
    /// # Errors
    /// [`CacheError::ReadOnly`] or [`CacheError::Io`].
    pub fn try_lock(&self, key: Key) -> Result<Option<KeyLock>, CacheError> {
        if self.access == Access::ReadOnly {
            return Err(CacheError::ReadOnly { path: self.folder.clone() });
        }
        KeyLock::try_take(&self.folder.join("locks").join(key.to_string()))
    }

    /// Returns whether some run holds the lock on a key just now.
    pub fn is_held(&self, key: Key) -> bool {
        KeyLock::is_held(&self.folder.join("locks").join(key.to_string()))
    }

    /// Returns the folder in which the work of a key happens. What is in `keep` below it
    /// survives a kill; the rest is cleared before each attempt.
    pub fn work_folder(&self, key: Key) -> PathBuf {
        self.folder.join("work").join(key.to_string())
    }

    /// Returns where the log of an attempt at a key goes, relative to the cache's folder.
    pub fn log_path(&self, key: Key, run: i64) -> PathBuf {
        PathBuf::from("logs").join(&key.to_string()[..2]).join(format!("{}-{run}.log", key.short()))
    }

    /// Removes work folders and temporary files that dead runs left behind and nobody can
    /// resume. Folders whose key is locked, or that hold checkpoints, stay.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn sweep_leftovers(&self) -> Result<(), CacheError> {
        let work = self.folder.join("work");
        for entry in fs::read_dir(&work).map_err(CacheError::io("list", &work))?.flatten() {
            let Some(key) = entry.file_name().to_str().and_then(|name| name.parse::<Key>().ok()) else {
                continue;
            };
            let path = entry.path();
            if !is_empty(&path.join("keep")) {
                continue;
            }
            if let Some(_lock) = self.try_lock(key)? {
                remove_folder(&path)?;
            }
        }
        temporary::sweep(&self.folder.join("tmp"))
    }

    /// Returns the content of one file of an artifact, checked.
    ///
    /// # Errors
    /// [`CacheError::Missing`], [`CacheError::Damaged`], or [`CacheError::Io`].
    pub fn read(&self, artifact: Digest, path: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(listing) = self.index.artifact(artifact)? else {
            return Ok(None);
        };
        let Some(entry) = listing.entry(path) else {
            return Ok(None);
        };
        let blob = self.blobs.checked(entry.digest)?;
        fs::read(&blob).map(Some).map_err(CacheError::io("read", &blob))
    }
}

/// Removes a folder and what is in it, if it is there.
fn remove_folder(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CacheError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn index_path(folder: &Path) -> PathBuf {
    folder.join("index.sqlite")
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}
