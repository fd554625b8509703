//! Content-addressed files: written once, read-only, named by their digest.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::artifact::{Artifact, Entry};
use crate::digest::Digest;
use crate::error::CacheError;
use crate::sources::{Fingerprint, Links, digest_file, files_below};

/// A store of blobs in one folder.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    temporary: PathBuf,
    /// Blobs whose bytes this process has checked, and what they looked like then.
    checked: Mutex<HashMap<Digest, Fingerprint>>,
    serial: AtomicU64,
}

impl Blobs {
    /// Uses `folder` for blobs and `temporary`, on the same file system, for half-written ones.
    pub(crate) fn new(folder: PathBuf, temporary: PathBuf) -> Self {
        Self { folder, temporary, checked: Mutex::default(), serial: AtomicU64::new(0) }
    }

    /// Returns where a blob is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(&name[2..])
    }

    /// Copies a file in, hashing while writing.
    ///
    /// # Errors
    /// [`CacheError::Io`], or [`CacheError::Unstable`] if the file changes meanwhile.
    pub fn copy_in(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let copy = self.temporary.join(format!(
            "{}-{}",
            std::process::id(),
            self.serial.fetch_add(1, Ordering::Relaxed)
        ));
        reflink_copy::reflink_or_copy(file, &copy).map_err(CacheError::io("copy", file))?;
        let kept = self.move_in(&copy);
        if kept.is_err() {
            // The copy is ours alone; if it cannot go either, the sweep of `tmp` gets it.
            let _ = fs::remove_file(&copy);
        }
        kept
    }

    /// Moves a file in. The file must be on the cache's file system and not written to any more.
    ///
    /// # Errors
    /// [`CacheError::Io`], or [`CacheError::Unstable`] if somebody still writes to it.
    pub fn move_in(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let (digest, print) = digest_file(file)?;
        let target = self.path(digest);
        // What is there already stays, unless it is damaged: then this is how it is mended.
        if self.checked(digest).is_ok() {
            fs::remove_file(file).map_err(CacheError::io("remove", file))?;
            return Ok((digest, print.bytes));
        }
        let opened = File::open(file).map_err(CacheError::io("open", file))?;
        opened.sync_all().map_err(CacheError::io("sync", file))?;
        opened.set_permissions(Permissions::from_mode(0o444)).map_err(CacheError::io("protect", file))?;
        let shard = target.parent().expect("a blob lies in a shard folder");
        if !shard.exists() {
            fs::create_dir_all(shard).map_err(CacheError::io("create", shard))?;
            sync_folder(&self.folder)?;
        }
        fs::rename(file, &target).map_err(CacheError::io("keep", file))?;
        sync_folder(shard)?;
        let now = opened.metadata().map_err(CacheError::io("look at", &target))?;
        if now.len() != print.bytes {
            fs::remove_file(&target).map_err(CacheError::io("remove", &target))?;
            return Err(CacheError::Unstable { path: file.to_owned() });
        }
        self.checked.lock().expect("no panic while held").insert(digest, Fingerprint::of(&now));
        Ok((digest, print.bytes))
    }

    /// Keeps every file below a scratch folder, which is left empty of files.
    ///
    /// # Errors
    /// As [`Blobs::move_in`], and [`CacheError::Unkeepable`] for links, sockets and the like.
    pub fn keep_folder(&self, folder: &Path) -> Result<Artifact, CacheError> {
        let mut entries = Vec::new();
        for (path, file) in files_below(folder, Links::Refuse)? {
            let metadata = fs::metadata(&file).map_err(CacheError::io("look at", &file))?;
            // A second name means somebody else may write to the same bytes.
            let (digest, bytes) =
                if metadata.nlink() > 1 { self.copy_in(&file)? } else { self.move_in(&file)? };
            entries.push(Entry { path, digest, bytes, executable: metadata.mode() & 0o100 != 0 });
        }
        Ok(Artifact::new(entries))
    }

    /// Returns the path of a blob whose bytes are what its name promises.
    ///
    /// The bytes are read once per process and file state.
    ///
    /// # Errors
    /// [`CacheError::Missing`] or [`CacheError::Damaged`].
    pub fn checked(&self, digest: Digest) -> Result<PathBuf, CacheError> {
        let path = self.path(digest);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CacheError::Missing { path, digest });
            }
            Err(error) => return Err(CacheError::io("look at", &path)(error)),
        };
        let print = Fingerprint::of(&metadata);
        if self.checked.lock().expect("no panic while held").get(&digest) == Some(&print) {
            return Ok(path);
        }
        // Somebody else may have found it damaged, and taken it away, since it was looked at.
        let gone =
            |error| if path.exists() { error } else { CacheError::Missing { path: path.clone(), digest } };
        let (found, print) = digest_file(&path).map_err(gone)?;
        if found != digest {
            return Err(CacheError::Damaged { path, expected: digest, found });
        }
        self.checked.lock().expect("no panic while held").insert(digest, print);
        Ok(path)
    }

    /// Lays an artifact's files out below `folder`, checked: as read-only links, or as copies
    /// that may be written to without harm.
    ///
    /// # Errors
    /// As [`Blobs::checked`], and [`CacheError::Io`].
    pub fn lay_out(&self, artifact: &Artifact, folder: &Path, copies: bool) -> Result<(), CacheError> {
        fs::create_dir_all(folder).map_err(CacheError::io("create", folder))?;
        for entry in artifact.entries() {
            let blob = self.checked(entry.digest)?;
            let target = folder.join(&entry.path);
            let parent = target.parent().expect("an entry lies in a folder");
            if parent != folder {
                fs::create_dir_all(parent).map_err(CacheError::io("create", parent))?;
            }
            if copies || entry.executable {
                reflink_copy::reflink_or_copy(&blob, &target).map_err(CacheError::io("copy", &target))?;
                let mode = if entry.executable { 0o755 } else { 0o644 };
                fs::set_permissions(&target, Permissions::from_mode(mode))
                    .map_err(CacheError::io("protect", &target))?;
            } else {
                std::os::unix::fs::symlink(&blob, &target).map_err(CacheError::io("link", &target))?;
            }
        }
        Ok(())
    }

    /// Takes a damaged blob out of the way, so that the work that made it can be done again.
    ///
    /// # Errors
    /// [`CacheError::Io`] if it cannot be removed.
    pub fn discard(&self, digest: Digest) -> Result<(), CacheError> {
        let path = self.path(digest);
        self.checked.lock().expect("no panic while held").remove(&digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CacheError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Lists the digests of all blobs that are there.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the folder cannot be listed.
    pub fn all(&self) -> Result<Vec<Digest>, CacheError> {
        let found = files_below(&self.folder, Links::Refuse)?;
        Ok(found.iter().filter_map(|(inside, _)| inside.replace('/', "").parse().ok()).collect())
    }
}

fn sync_folder(folder: &Path) -> Result<(), CacheError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(CacheError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> Blobs {
        let (blobs, temporary) = (folder.join("blobs"), folder.join("tmp"));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&temporary).unwrap();
        Blobs::new(blobs, temporary)
    }

    #[test]
    fn a_flipped_bit_is_noticed_and_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let file = folder.path().join("f");
        fs::write(&file, "content").unwrap();
        let (digest, _) = blobs.move_in(&file).unwrap();
        assert!(!file.exists());
        let path = blobs.checked(digest).unwrap();

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "cOntent").unwrap();
        assert!(matches!(blobs.checked(digest), Err(CacheError::Damaged { .. })));
        blobs.discard(digest).unwrap();
        assert!(matches!(blobs.checked(digest), Err(CacheError::Missing { .. })));
    }

    #[test]
    fn the_same_content_mends_a_damaged_blob() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let keep = || {
            fs::write(folder.path().join("f"), "content").unwrap();
            blobs.move_in(&folder.path().join("f")).unwrap().0
        };
        let path = blobs.path(keep());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "cOntent").unwrap();
        assert_eq!(fs::read(blobs.checked(keep()).unwrap()).unwrap(), b"content");
    }

    #[test]
    fn a_folder_goes_in_and_comes_out_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let made = folder.path().join("made");
        fs::create_dir_all(made.join("deep/er")).unwrap();
        fs::write(made.join("deep/er/a"), "1").unwrap();
        fs::write(made.join("b"), "2").unwrap();
        let artifact = blobs.keep_folder(&made).unwrap();
        assert_eq!(artifact.bytes(), 2);

        for copies in [false, true] {
            let out = folder.path().join(format!("out-{copies}"));
            blobs.lay_out(&artifact, &out, copies).unwrap();
            assert_eq!(fs::read(out.join("deep/er/a")).unwrap(), b"1");
            assert_eq!(fs::read(out.join("b")).unwrap(), b"2");
        }
    }

    #[test]
    fn a_link_in_an_output_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let made = folder.path().join("made");
        fs::create_dir(&made).unwrap();
        fs::write(folder.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), made.join("link")).unwrap();
        assert!(matches!(blobs.keep_folder(&made), Err(CacheError::Unkeepable { .. })));
    }

    #[test]
    fn a_file_with_a_second_name_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let made = folder.path().join("made");
        fs::create_dir(&made).unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "shared").unwrap();
        fs::hard_link(&outside, made.join("inside")).unwrap();
        let artifact = blobs.keep_folder(&made).unwrap();
        fs::write(&outside, "damage").unwrap();
        assert!(blobs.checked(artifact.entries()[0].digest).is_ok());
    }
}
