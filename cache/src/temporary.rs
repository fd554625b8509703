//! Temporary files: named at random, and locked for as long as they are in use.
//!
//! A process id would not do for a name: processes in two containers, or on two machines, can
//! have the same one, and each would take the other's files for its own or for a dead one's.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::CacheError;
use crate::files::{Links, open_regular};

/// A new file, which is removed when dropped unless it was moved away.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Makes a file in a folder, and locks it.
    pub(crate) fn create(folder: &Path) -> Result<Self, CacheError> {
        loop {
            let path = folder.join(random_name());
            let mut options = File::options();
            let file = match options.create_new(true).read(true).write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(CacheError::io("create", &path))?,
            };
            match file.try_lock() {
                // Another process's sweep has locked it and removes it.
                Err(TryLockError::WouldBlock) => continue,
                Ok(()) if !is_still_there(&file, &path) => continue,
                // Where there are no locks nothing is swept.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Self { path, file }),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // The name is ours alone and never used again. What cannot be removed is swept.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes temporary files that no process uses any more.
pub(crate) fn sweep(folder: &Path) -> Result<(), CacheError> {
    for entry in fs::read_dir(folder).map_err(CacheError::io("list", folder))?.flatten() {
        let path = entry.path();
        // Another sweep may be quicker, and another user's file may be closed to us.
        let Ok(file) = open_regular(&path, Links::Refuse) else {
            continue;
        };
        // While we hold the lock, no other process can use it or its name.
        if file.try_lock().is_ok() && is_still_there(&file, &path) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Returns whether a path still leads to an open file.
fn is_still_there(file: &File, path: &Path) -> bool {
    let place = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(|metadata| place(&metadata));
    let named = fs::symlink_metadata(path).map(|metadata| place(&metadata));
    matches!((opened, named), (Ok(opened), Ok(named)) if opened == named)
}

/// Returns a name that no other process has: the standard library takes its keys from the
/// system's random numbers.
fn random_name() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worked_on_is_not_swept_and_the_rest_is() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Temporary::create(folder.path()).unwrap();
        // As a dead process of ours, of another machine or of an older version leaves them.
        for name in ["1-0", "0123456789abcdef", "4194304-7"] {
            fs::write(folder.path().join(name), "left").unwrap();
        }
        sweep(folder.path()).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [kept.path()]);
        drop(kept);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_may_work_and_sweep_at_once() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let temporary = Temporary::create(folder.path()).unwrap();
                        temporary.file().write_all(b"content").unwrap();
                        sweep(folder.path()).unwrap();
                        assert_eq!(fs::read(temporary.path()).unwrap(), b"content");
                    }
                });
            }
        });
    }
}
