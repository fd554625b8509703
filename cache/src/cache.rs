//! The folder that holds blobs, index, locks, logs and work in progress.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::access::Access;
use crate::artifact::Artifact;
use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::format::FOLDER_FORMAT;
use crate::index::{Finished, Index};
use crate::key::Key;
use crate::lock::{KeyLock, UseLock};
use crate::manifest::{Manifest, Recipe};
use crate::record::Record;
use crate::share::{make_folder, share};
use crate::temporary::{self, Temporary};

/// An open cache.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    access: Access,
    blobs: Blobs,
    records: Blobs,
    index: Index,
    _use: Option<UseLock>,
}

impl Cache {
    /// Returns whether there is a cache in a folder, also one that has lost its index.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the folder may not be looked into.
    pub fn exists(folder: &Path) -> Result<bool, CacheError> {
        match fs::metadata(index_path(folder)) {
            // A making that was cut short leaves an empty file.
            Ok(metadata) if metadata.len() > 0 => Ok(true),
            Ok(_) => has_records(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => has_records(folder),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
            Err(error) => Err(CacheError::io("look into", folder)(error)),
        }
    }

    /// Opens the cache in a folder, making it if it is not there, and falls back to reading
    /// where it cannot be written to, or there is no room to.
    ///
    /// # Errors
    /// [`CacheError`] if it can be neither made nor read, or has another format.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let index = index_path(folder);
        if index.exists() && !Index::may_write(&index) {
            return Self::open_for_reading(folder);
        }
        match Self::open_for_writing(folder) {
            Err(error) if (is_refusal(&error) || error.is_full_disk()) && index.exists() => {
                // What kept it from being written to says more than what kept it from being read.
                Self::open_for_reading(folder).map_err(|_| error)
            }
            other => other,
        }
    }

    /// Opens a cache that must be there, for looking only; nothing is made or changed.
    ///
    /// # Errors
    /// [`CacheError::Absent`] if there is none, [`CacheError::IndexLost`] if there is no index
    /// any more, else as [`Cache::open`].
    pub fn open_for_reading(folder: &Path) -> Result<Self, CacheError> {
        let folder = std::path::absolute(folder).map_err(CacheError::io("find", folder))?;
        let none = |folder: PathBuf| match has_records(&folder) {
            Ok(true) => CacheError::IndexLost { path: folder },
            Ok(false) => CacheError::Absent { path: folder },
            Err(error) => error,
        };
        if !index_path(&folder).exists() {
            return Err(none(folder));
        }
        let index = Index::open(&index_path(&folder), Access::ReadOnly)?;
        if index.is_uninitialized()? {
            return Err(none(folder));
        }
        Self::with(folder, Access::ReadOnly, index, None)
    }

    fn open_for_writing(folder: &Path) -> Result<Self, CacheError> {
        let folder = std::path::absolute(folder).map_err(CacheError::io("find", folder))?;
        fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        for name in ["blobs", "records", "tmp", "locks", "logs", "work"] {
            make_folder(&folder, &folder.join(name))?;
        }
        // A new index beside old results would have them all made again.
        let index = index_path(&folder);
        if fs::metadata(&index).map_or(0, |metadata| metadata.len()) == 0 && has_records(&folder)? {
            return Err(CacheError::IndexLost { path: folder });
        }
        drop(Temporary::create(&folder.join("tmp"))?);
        let in_use = UseLock::shared(&folder)?;
        // Made here and not by SQLite, whose other files have the mode of this one.
        if let Err(error) = File::options().create_new(true).write(true).open(&index)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(CacheError::io("create", &index)(error));
        }
        for suffix in ["", "-wal", "-shm"] {
            share(&folder, &folder.join(format!("index.sqlite{suffix}")));
        }
        share(&folder, &folder.join("locks/index"));
        let index = Index::open(&index, Access::ReadWrite)?;
        Self::with(folder, Access::ReadWrite, index, Some(in_use))
    }

    fn with(
        folder: PathBuf,
        access: Access,
        index: Index,
        in_use: Option<UseLock>,
    ) -> Result<Self, CacheError> {
        let format = index.format()?;
        if format != FOLDER_FORMAT {
            return Err(CacheError::Format { path: folder, format, expected: FOLDER_FORMAT });
        }
        let (blobs, records) = (blobs_in(&folder), records_in(&folder));
        Ok(Self { folder, access, blobs, records, index, _use: in_use })
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

    /// Returns the records of results, from which the index can be made again.
    pub(crate) fn records(&self) -> &Blobs {
        &self.records
    }

    /// Makes a folder inside the cache's, and those above it, open to the same users as that.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub fn make_folder(&self, folder: &Path) -> Result<(), CacheError> {
        make_folder(&self.folder, folder)
    }

    /// Records finished work, whose files are kept already: beside the blobs, so that the index
    /// can be made again, and then, when all files are on the disk, in the index, in one
    /// transaction. The record, like the last entries of the index, reaches the disk when the
    /// system writes it out.
    ///
    /// # Errors
    /// [`CacheError::Io`] or [`CacheError::Index`].
    pub fn commit(
        &self,
        trace: Key,
        shape: Key,
        manifest: &Manifest,
        artifacts: &[Artifact],
        recipe: (Key, &Recipe),
    ) -> Result<(), CacheError> {
        let work = Finished { trace, shape, manifest, artifacts, recipe };
        let record = Record::new(&work).keep(&self.records)?;
        self.blobs.sync()?;
        if let Some(replaced) = self.index.commit(&work, record)? {
            // It says how the same was made before. Where it stays, the newer one is believed.
            let _ = self.records.discard(replaced);
        }
        Ok(())
    }

    /// Removes a corrupt blob, and the work that made it from the index and the records, so that it
    /// is done again. A read-only cache stays as it is.
    ///
    /// # Errors
    /// [`CacheError::Io`] or [`CacheError::Index`].
    pub fn invalidate(&self, blob: Option<Digest>, producers: &[Key]) -> Result<(), CacheError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        if let Some(blob) = blob {
            self.blobs.discard(blob)?;
        }
        for producer in producers {
            let record = self.index.record_of(*producer)?;
            self.index.forget(*producer)?;
            if let Some(record) = record {
                self.records.discard(record)?;
            }
        }
        Ok(())
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
                // Another user's may be closed to us; then it is theirs to sweep.
                let _ = fs::remove_dir_all(&path);
            }
        }
        temporary::sweep(&self.folder.join("tmp"))
    }

    /// Returns the content of one file of an artifact, checked.
    ///
    /// # Errors
    /// [`CacheError::Missing`], [`CacheError::Corrupt`], or [`CacheError::Io`].
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

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

pub(crate) fn index_path(folder: &Path) -> PathBuf {
    folder.join("index.sqlite")
}

pub(crate) fn blobs_in(folder: &Path) -> Blobs {
    Blobs::new(folder.join("blobs"), folder.join("tmp"))
}

pub(crate) fn records_in(folder: &Path) -> Blobs {
    Blobs::new(folder.join("records"), folder.join("tmp"))
}

/// Returns whether a folder holds records of results.
fn has_records(folder: &Path) -> Result<bool, CacheError> {
    Ok(!records_in(folder).all()?.is_empty())
}

/// Returns whether an error says that this user may not write there.
fn is_refusal(error: &CacheError) -> bool {
    matches!(error, CacheError::Io { source, .. } if matches!(
        source.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    ))
}
