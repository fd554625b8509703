//! Bytes reach the disk together, before the record that names them.
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

use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::sync_folder;

/// How many files are open at once while they are synced.
const FILES_TOGETHER: usize = 256;

/// What of a store may not be on the disk yet.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    state: Mutex<State>,
    /// Held while somebody syncs.
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

/// Waits until everything that was named in a store so far is on the disk.
pub(crate) fn sync(blobs: &Blobs) -> Result<(), CacheError> {
    let unsynced = blobs.unsynced();
    let _turn = unsynced.turn.lock().expect("no panic while held");
    let (digests, has_new_shard) = {
        let mut state = unsynced.state();
        (std::mem::take(&mut state.waiting), std::mem::take(&mut state.has_new_shard))
    };
    let result = sync_all(blobs, &digests, has_new_shard);
    let mut state = unsynced.state();
    match &result {
        Ok(()) => state.synced.extend(digests),
        Err(_) => {
            state.waiting.extend(digests);
            state.has_new_shard |= has_new_shard;
        }
    }
    result
}

fn sync_all(blobs: &Blobs, digests: &BTreeSet<Digest>, has_new_shard: bool) -> Result<(), CacheError> {
    let paths: Vec<PathBuf> = digests.iter().map(|digest| blobs.path(*digest)).collect();
    for together in paths.chunks(FILES_TOGETHER) {
        let mut files = Vec::with_capacity(together.len());
        for path in together {
            match File::open(path) {
                Ok(file) => {
                    begin_to_write(&file);
                    files.push((path, file));
                }
                // Somebody found it damaged and took it away; whoever needs it finds that out.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CacheError::io("open", path)(error)),
            }
        }
        for (path, file) in files {
            file.sync_all().map_err(CacheError::io("sync", path))?;
        }
    }
    let shards: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    let all = has_new_shard.then(|| blobs.folder());
    for folder in shards.into_iter().chain(all) {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Has the system begin to write a file's bytes, without waiting for it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn begin_to_write(file: &File) {
    use std::os::fd::AsRawFd as _;

    // SAFETY: takes an open file and numbers. What it cannot begin, the sync does.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(not(target_os = "linux"))]
fn begin_to_write(_: &File) {}
