//! One lock per key, held while the work runs, released when the process ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::CacheError;

/// Holds a key until it is dropped or its process dies.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl KeyLock {
    /// Takes the lock on a file, or returns `None` while another process or thread holds it.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the file cannot be made or locked.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, CacheError> {
        loop {
            let file = open_lock(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(CacheError::io("lock", path)(error)),
            }
            // The holder before us may have removed the name between our open and our lock;
            // then the next process would lock another file.
            let ours = file.metadata().map_err(CacheError::io("look at", path))?.ino();
            if fs::metadata(path).is_ok_and(|metadata| metadata.ino() == ours) {
                return Ok(Some(Self { path: path.to_owned(), _file: file }));
            }
        }
    }
}

/// Opens the file of a lock, making it if it is not there. Another user's need not be open to us
/// for writing: to lock it, reading is enough.
fn open_lock(path: &Path) -> Result<File, CacheError> {
    match File::options().create(true).truncate(false).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
    .map_err(CacheError::io("open lock", path))
}

/// A shared or exclusive lock on writing to a cache; released when the process ends.
#[derive(Debug)]
pub(crate) struct UseLock {
    _file: File,
}

impl UseLock {
    /// Takes the shared lock: other processes may write as well.
    pub(crate) fn shared(folder: &Path) -> Result<Self, CacheError> {
        let path = folder.join("locks").join("index");
        let file = open_lock(&path)?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Err(CacheError::InUse { path: folder.to_owned() }),
            // Where the file system has no locks, no exclusive lock can be taken either.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { _file: file }),
        }
    }

    /// Takes the exclusive lock: no other process may write.
    pub(crate) fn exclusive(folder: &Path) -> Result<Self, CacheError> {
        let path = folder.join("locks").join("index");
        fs::create_dir_all(folder.join("locks")).map_err(CacheError::io("create", folder))?;
        let file = open_lock(&path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(CacheError::InUse { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(CacheError::io("lock", &path)(error)),
            Ok(()) => Ok(Self { _file: file }),
        }
    }
}

impl KeyLock {
    /// Returns whether the lock is held on a file, without creating the file.
    pub(crate) fn is_held(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while still held, so no other process can hold the name we remove. A name left
        // behind by a killed process is harmless.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let held = KeyLock::try_take(&path).unwrap();
        assert!(held.is_some());
        assert!(KeyLock::try_take(&path).unwrap().is_none());
        assert!(KeyLock::is_held(&path));
        drop(held);
        assert!(!KeyLock::is_held(&path));
        assert!(KeyLock::try_take(&path).unwrap().is_some());
        assert!(!path.exists());
    }

    #[test]
    fn many_threads_never_hold_it_together() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while taken.load(Ordering::SeqCst) < 200 {
                        if let Some(lock) = KeyLock::try_take(&path).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            taken.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
    }
}
