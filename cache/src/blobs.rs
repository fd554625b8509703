//! Content-addressed files: written once, read-only, named by their digest.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::digest::Digest;
use crate::durable::Unsynced;
use crate::error::CacheError;
use crate::files::{Fingerprint, Links, digest_file, irregular_kind, is_not_found};
use crate::share::make_folder;

/// How often a blob may be replaced by an equal one while it is read.
const MAX_REPLACEMENTS: usize = 20;

/// A store of blobs in one folder.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    temporary: PathBuf,
    /// Blobs whose bytes this process has checked, and their fingerprints then.
    checked: Mutex<HashMap<Digest, Fingerprint>>,
    unsynced: Unsynced,
}

impl Blobs {
    /// Uses `folder` for blobs and `temporary`, on the same file system, for files being written.
    pub(crate) fn new(folder: PathBuf, temporary: PathBuf) -> Self {
        Self { folder, temporary, checked: Mutex::default(), unsynced: Unsynced::default() }
    }

    /// Returns the blobs that may not be on the disk yet.
    pub(crate) fn unsynced(&self) -> &Unsynced {
        &self.unsynced
    }

    /// Waits until every blob that was named so far is on the disk.
    pub(crate) fn sync(&self) -> Result<(), CacheError> {
        self.unsynced.sync(&self.folder, |digest| self.path(digest))
    }

    /// Returns the folder for half-written files.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Returns the folder in which stages work, beside the blobs.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.parent().unwrap_or(Path::new(".")).join("work")
    }

    /// Returns where a blob is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(&name[..2]).join(&name[2..])
    }

    /// Returns the path of a blob whose bytes match its digest.
    ///
    /// The bytes are read once per process and file state.
    ///
    /// # Errors
    /// [`CacheError::Missing`], [`CacheError::Corrupt`] or [`CacheError::NotABlob`];
    /// [`CacheError::Io`] if it cannot be read.
    pub fn checked(&self, digest: Digest) -> Result<PathBuf, CacheError> {
        let (path, fingerprint) = self.stat(digest)?;
        if self.checked.lock().expect("no panic while held").get(&digest) == Some(&fingerprint) {
            return Ok(path);
        }
        self.rehash(digest)
    }

    /// As [`Blobs::checked`], but always reads the bytes: no fingerprint is trusted.
    ///
    /// # Errors
    /// As [`Blobs::checked`].
    pub fn rehash(&self, digest: Digest) -> Result<PathBuf, CacheError> {
        // Other processes that store the same bytes at the same moment may replace the file.
        for _ in 0..MAX_REPLACEMENTS {
            match self.rehash_once(digest) {
                Err(CacheError::Unstable { .. }) => {}
                read => return read,
            }
        }
        self.rehash_once(digest)
    }

    fn rehash_once(&self, digest: Digest) -> Result<PathBuf, CacheError> {
        let (path, _) = self.stat(digest)?;
        // Another process may have found it corrupt and removed it since.
        let gone =
            |error| if path.exists() { error } else { CacheError::Missing { path: path.clone(), digest } };
        let (actual, fingerprint) = digest_file(&path, Links::Refuse).map_err(gone)?;
        if actual != digest {
            return Err(CacheError::Corrupt { path, expected: digest, actual });
        }
        self.mark_checked(digest, fingerprint);
        Ok(path)
    }

    fn stat(&self, digest: Digest) -> Result<(PathBuf, Fingerprint), CacheError> {
        let path = self.path(digest);
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if is_not_found(&error) => return Err(CacheError::Missing { path, digest }),
            metadata => metadata.map_err(CacheError::io("look at", &path))?,
        };
        match irregular_kind(metadata.file_type()) {
            Some(what) => Err(CacheError::NotABlob { path, digest, what }),
            None => Ok((path, Fingerprint::of(&metadata))),
        }
    }

    /// Remembers that a blob with this fingerprint is intact.
    pub(crate) fn mark_checked(&self, digest: Digest, fingerprint: Fingerprint) {
        self.checked.lock().expect("no panic while held").insert(digest, fingerprint);
    }

    /// Makes the folder that blobs with the same first digits share.
    pub(crate) fn make_shard(&self, shard: &Path) -> Result<(), CacheError> {
        if !shard.exists() {
            make_folder(self.folder.parent().unwrap_or(&self.folder), shard)?;
            self.unsynced.add_shard();
        }
        Ok(())
    }

    /// Removes a corrupt blob, so that the work that made it can be done again.
    ///
    /// # Errors
    /// [`CacheError::Io`] if it cannot be removed.
    pub(crate) fn discard(&self, digest: Digest) -> Result<(), CacheError> {
        let path = self.path(digest);
        self.checked.lock().expect("no panic while held").remove(&digest);
        self.unsynced.remove(digest);
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        match removed {
            Err(error) if !is_not_found(&error) => Err(CacheError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Lists the digests of all blobs, and of whatever else is in the place of one.
    ///
    /// # Errors
    /// [`CacheError::Io`] if the folder cannot be listed.
    pub fn all(&self) -> Result<Vec<Digest>, CacheError> {
        let mut digests = Vec::new();
        for shard in list(&self.folder)? {
            // Other names are not blobs.
            if shard.file_name().is_some_and(|name| name.len() == 2) && shard.is_dir() {
                let prefix = shard.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let name = |path: &PathBuf| Some(format!("{prefix}{}", path.file_name()?.to_str()?));
                digests.extend(
                    list(&shard)?.iter().filter_map(name).filter_map(|name| name.parse::<Digest>().ok()),
                );
            }
        }
        digests.sort();
        Ok(digests)
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_not_found(&error) => return Ok(Vec::new()),
        entries => entries.map_err(CacheError::io("list", folder))?,
    };
    entries.map(|entry| Ok(entry.map_err(CacheError::io("list", folder))?.path())).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    pub(crate) fn store(folder: &Path) -> Blobs {
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
        let (digest, _) = blobs.insert_moved(&file).unwrap();
        assert!(!file.exists());
        let path = blobs.checked(digest).unwrap();

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "cOntent").unwrap();
        assert!(matches!(blobs.checked(digest), Err(CacheError::Corrupt { .. })));
        blobs.discard(digest).unwrap();
        assert!(matches!(blobs.checked(digest), Err(CacheError::Missing { .. })));
    }

    #[test]
    fn storing_the_same_content_replaces_a_corrupt_blob() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let keep = || {
            fs::write(folder.path().join("f"), "content").unwrap();
            blobs.insert_moved(&folder.path().join("f")).unwrap().0
        };
        let path = blobs.path(keep());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "cOntent").unwrap();
        assert_eq!(fs::read(blobs.checked(keep()).unwrap()).unwrap(), b"content");
    }

    #[test]
    fn something_other_than_a_file_in_the_place_of_a_blob_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let file = folder.path().join("f");
        let keep = || {
            fs::write(&file, "content").unwrap();
            blobs.insert_moved(&file).unwrap().0
        };
        let path = blobs.path(keep());
        let in_place: [&dyn Fn(); 2] = [&|| fs::create_dir_all(path.join("deep/er")).unwrap(), &|| {
            fs::write(folder.path().join("other"), "content").unwrap();
            std::os::unix::fs::symlink(folder.path().join("other"), &path).unwrap();
        }];
        for put in in_place {
            for mend in [&|| _ = keep(), &|| blobs.discard(Digest::of(b"content")).unwrap()] as [&dyn Fn(); 2]
            {
                let _ = fs::remove_file(&path);
                put();
                let error = blobs.checked(Digest::of(b"content")).unwrap_err();
                assert!(error.is_corruption() && matches!(error, CacheError::NotABlob { .. }));
                assert_eq!(blobs.all().unwrap(), [Digest::of(b"content")]);
                mend();
                assert!(!fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()));
            }
        }
        assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"content");
    }
}
