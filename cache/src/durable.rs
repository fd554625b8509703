//! Syncing blobs to the disk in batches, before the index refers to them.
//!
//! To sync a file makes the file system write its journal, and that is most of what a small stage
//! costs. So blobs get their names at once, which others may use meanwhile, and what was named
//! since the last time is synced in one go when work is recorded: all writes begin together, and
//! one journal serves them all. Whoever records while that goes on waits for it, since some of the
//! files may be his. A blob that another process has put in its place may not be synced either;
//! it is synced here once before it is recorded here.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::sync_folder;

/// How many files are open at once while they are synced.
const FILES_TOGETHER: usize = 256;

/// The blobs of a store that may not be on the disk yet.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    state: Mutex<State>,
    /// Held during a sync.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeSet<Digest>,
    synced: HashSet<Digest>,
    has_new_shard: bool,
}

impl Unsynced {
    /// Takes note of a blob that is in its place and is going to be recorded.
    pub(crate) fn add(&self, digest: Digest) {
        let mut state = self.state();
        if !state.synced.contains(&digest) {
            state.waiting.insert(digest);
        }
    }

    /// Takes note that the folder of folders has a new one.
    pub(crate) fn add_shard(&self) {
        self.state().has_new_shard = true;
    }

    /// Takes note that a blob is gone: what comes in its place is another file.
    pub(crate) fn remove(&self, digest: Digest) {
        let mut state = self.state();
        state.synced.remove(&digest);
        state.waiting.remove(&digest);
    }

    /// Waits until every blob that was named in a store so far is on the disk. The store is
    /// `folder`, and `path_of` says where in it a blob is.
    pub(crate) fn sync(&self, folder: &Path, path_of: impl Fn(Digest) -> PathBuf) -> Result<(), CacheError> {
        let _turn = self.turn.lock().expect("no panic while held");
        let (digests, has_new_shard) = {
            let mut state = self.state();
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.has_new_shard))
        };
        let paths: Vec<PathBuf> = digests.iter().map(|digest| path_of(*digest)).collect();
        let result = sync_files(folder, &paths, has_new_shard);
        let mut state = self.state();
        match &result {
            Ok(()) => state.synced.extend(digests),
            Err(_) => {
                state.waiting.extend(digests);
                state.has_new_shard |= has_new_shard;
            }
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

fn sync_files(folder: &Path, paths: &[PathBuf], has_new_shard: bool) -> Result<(), CacheError> {
    for together in paths.chunks(FILES_TOGETHER) {
        let mut files = Vec::with_capacity(together.len());
        for path in together {
            match File::open(path) {
                Ok(file) => {
                    begin_to_write(&file);
                    files.push((path, file));
                }
                // It was found corrupt and removed meanwhile; whoever needs it will find it missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CacheError::io("open", path)(error)),
            }
        }
        for (path, file) in files {
            file.sync_all().map_err(CacheError::io("sync", path))?;
        }
    }
    let shards: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    let all = has_new_shard.then_some(folder);
    for changed in shards.into_iter().chain(all) {
        sync_folder(changed)?;
    }
    Ok(())
}

/// Asks the system to start writing a file's bytes, without waiting for it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "`sync_file_range` has no safe wrapper")]
fn begin_to_write(file: &File) {
    use std::os::fd::AsRawFd as _;

    // SAFETY: takes an open file and numbers. What it cannot begin, the sync does.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(not(target_os = "linux"))]
fn begin_to_write(_: &File) {}
