//! Rebuilds the index from the records of results.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::blobs::Blobs;
use crate::cache::{Cache, blobs_in, index_path, records_in};
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::sync_folder;
use crate::index::{Finished, Index};
use crate::key::Key;
use crate::lock::UseLock;
use crate::record::Record;

/// The result of rebuilding an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Results in the new index.
    pub results: u64,
    /// Results that lack a file; they will be made again.
    pub incomplete: u64,
    /// Records that cannot be used, and why.
    pub unreadable: Vec<String>,
    /// Where the old index is kept.
    pub backup: Option<PathBuf>,
}

impl Cache {
    /// Makes the index of a cache again from the records beside its blobs. What was there is
    /// kept under another name. What only the index knows is gone: earlier runs and attempts, and
    /// the remembered digests of sources.
    ///
    /// # Errors
    /// [`CacheError::Absent`] if there is nothing to make it from, [`CacheError::InUse`] while
    /// another process writes to the cache, [`CacheError::Io`] and [`CacheError::Index`].
    pub fn rebuild_index(folder: &Path) -> Result<Rebuilt, CacheError> {
        let folder = std::path::absolute(folder).map_err(CacheError::io("find", folder))?;
        let records = records_in(&folder);
        let digests = records.all()?;
        if digests.is_empty() && !index_path(&folder).exists() {
            return Err(CacheError::Absent { path: folder });
        }
        let _lock = UseLock::exclusive(&folder)?;
        let mut rebuilt = Rebuilt::default();
        let blobs = blobs_in(&folder);
        let mut newest: BTreeMap<Key, (Record, Digest)> = BTreeMap::new();
        for digest in digests {
            match Record::read(&records, digest) {
                Ok(record) if !is_complete(&record, &blobs) => rebuilt.incomplete += 1,
                Ok(record) => {
                    let age = |record: &Record, digest| (record.manifest.started_ms, digest);
                    match newest.get(&record.trace) {
                        Some((other, known)) if age(other, *known) > age(&record, digest) => {}
                        _ => {
                            newest.insert(record.trace, (record, digest));
                        }
                    }
                }
                Err(problem) => {
                    rebuilt.unreadable.push(format!("{}: {problem}", records.path(digest).display()))
                }
            }
        }
        let made = with_suffix(&index_path(&folder), ".new");
        for suffix in ["", "-journal", "-wal", "-shm"] {
            remove(&with_suffix(&made, suffix))?;
        }
        Index::make(&made, &mut |add| {
            for (record, digest) in newest.values() {
                let artifacts = record.artifacts();
                let work = Finished {
                    trace: record.trace,
                    shape: record.shape,
                    manifest: &record.manifest,
                    artifacts: &artifacts,
                    recipe: (record.recipe_key, &record.recipe),
                };
                add(&work, *digest)?;
            }
            Ok(())
        })?;
        rebuilt.results = newest.len() as u64;
        rebuilt.backup = replace(&index_path(&folder), &made)?;
        sync_folder(&folder)?;
        Ok(rebuilt)
    }
}

/// Returns whether every file of a result is there, by its size; its bytes are compared when it
/// is used.
fn is_complete(record: &Record, blobs: &Blobs) -> bool {
    record.artifacts().iter().flat_map(|artifact| artifact.entries().to_vec()).all(|entry| {
        fs::symlink_metadata(blobs.path(entry.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == entry.bytes)
    })
}

/// Puts a new index in the place of the old one, which is kept under the name that is returned.
/// At every moment there is one or the other.
fn replace(index: &Path, made: &Path) -> Result<Option<PathBuf>, CacheError> {
    let mut backup = None;
    if index.exists() {
        let free = (1..).map(|number| with_suffix(index, &format!(".corrupt-{number}")));
        let name = free.into_iter().find(|name| !name.exists()).expect("there are enough numbers");
        fs::hard_link(index, &name).map_err(CacheError::io("keep", index))?;
        backup = Some(name);
    }
    // A log of the old index would be applied to the new one.
    for suffix in ["-wal", "-journal"] {
        let log = with_suffix(index, suffix);
        match &backup {
            Some(name) if log.exists() => {
                fs::rename(&log, with_suffix(name, suffix)).map_err(CacheError::io("keep", &log))?;
            }
            _ => remove(&log)?,
        }
    }
    remove(&with_suffix(index, "-shm"))?;
    fs::rename(made, index).map_err(CacheError::io("put in place", made))?;
    Ok(backup)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), CacheError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CacheError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
