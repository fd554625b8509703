//! Digests of files that others own, remembered while the files stay as they were.

use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::artifact::{Artifact, Entry};
use crate::digest::Digest;
use crate::error::CacheError;
use crate::index::Index;

/// A file that changed this recently may change again within the same time stamp.
const RACY: Duration = Duration::from_secs(2);

/// Below this size one read is faster than a memory map and a thread pool.
const SMALL_BYTES: u64 = 1 << 20;

/// What must stay the same for a remembered digest to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Device and inode: a file moved over another is another file.
    pub place: (u64, u64),
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last change of content, in nanoseconds.
    pub mtime_ns: i128,
    /// Time of the last change of content or metadata, in nanoseconds; cannot be set back.
    pub ctime_ns: i128,
}

impl Fingerprint {
    /// Reads the fingerprint off a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            place: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_racy(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_nanos() as i128);
        let newest = self.mtime_ns.max(self.ctime_ns);
        // A time stamp from the future says nothing about when the file was written.
        now - newest < RACY.as_nanos() as i128
    }
}

/// Hashes a file at full speed, and fails if it changes meanwhile.
pub(crate) fn digest_file(path: &Path) -> Result<(Digest, Fingerprint), CacheError> {
    let mut file = fs::File::open(path).map_err(CacheError::io("open", path))?;
    let before = Fingerprint::of(&file.metadata().map_err(CacheError::io("look at", path))?);
    let mut hasher = blake3::Hasher::new();
    if before.bytes < SMALL_BYTES {
        let mut content = Vec::with_capacity(before.bytes as usize);
        file.read_to_end(&mut content).map_err(CacheError::io("read", path))?;
        hasher.update(&content);
    } else {
        hasher.update_mmap_rayon(path).map_err(CacheError::io("read", path))?;
    }
    let after = Fingerprint::of(&fs::metadata(path).map_err(CacheError::io("look at", path))?);
    if before != after {
        return Err(CacheError::Unstable { path: path.to_owned() });
    }
    Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), after))
}

/// The digests of source files and folders, by way of the index's memory.
pub struct Sources<'a> {
    memory: Option<&'a Index>,
}

impl<'a> Sources<'a> {
    /// Uses what the index remembers.
    pub fn remembered(index: &'a Index) -> Self {
        Self { memory: Some(index) }
    }

    /// Reads every byte again and remembers nothing.
    pub fn rehashed() -> Self {
        Self { memory: None }
    }

    /// Returns the digest of a file's bytes or of a folder's listing.
    ///
    /// # Errors
    /// [`CacheError::Io`] if something cannot be read, [`CacheError::Unstable`] if it changes
    /// meanwhile.
    pub fn digest(&self, path: &Path) -> Result<Digest, CacheError> {
        let metadata = fs::metadata(path).map_err(CacheError::io("find", path))?;
        if metadata.is_dir() {
            let mut entries = Vec::new();
            for (inside, file) in files_below(path, Links::Follow)? {
                let metadata = fs::metadata(&file).map_err(CacheError::io("find", &file))?;
                entries.push(Entry {
                    path: inside,
                    digest: self.file(&file, &metadata)?,
                    bytes: metadata.len(),
                    executable: metadata.mode() & 0o100 != 0,
                });
            }
            return Ok(Artifact::new(entries).digest());
        }
        self.file(path, &metadata)
    }

    fn file(&self, path: &Path, metadata: &Metadata) -> Result<Digest, CacheError> {
        let Some(memory) = self.memory else {
            return Ok(digest_file(path)?.0);
        };
        let absolute = std::path::absolute(path).map_err(CacheError::io("find", path))?;
        if let Some(digest) = memory.remembered(&absolute, &Fingerprint::of(metadata))? {
            return Ok(digest);
        }
        let (digest, fingerprint) = digest_file(path)?;
        if !fingerprint.is_racy() {
            memory.remember(&absolute, &fingerprint, digest)?;
        }
        Ok(digest)
    }
}

/// What to do about links inside a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Take what they point to: the folder is somebody's, and means what it shows.
    Follow,
    /// Refuse them: what they point to is not part of the folder.
    Refuse,
}

/// Lists the files below a folder, sorted by their path inside it.
pub(crate) fn files_below(folder: &Path, links: Links) -> Result<Vec<(String, PathBuf)>, CacheError> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), folder.to_owned(), 0)];
    while let Some((prefix, folder, depth)) = open.pop() {
        // A link to a folder above it would otherwise be walked for ever.
        if depth > 64 {
            return Err(CacheError::Unkeepable { path: folder, what: "nested more than 64 deep" });
        }
        for entry in fs::read_dir(&folder).map_err(CacheError::io("list", &folder))? {
            let entry = entry.map_err(CacheError::io("list", &folder))?;
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                return Err(CacheError::Unkeepable { path, what: "named in something other than UTF-8" });
            };
            let inside = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let looked_at = match links {
                Links::Follow => fs::metadata(&path),
                Links::Refuse => fs::symlink_metadata(&path),
            };
            let metadata = looked_at.map_err(CacheError::io("find", &path))?;
            if metadata.is_symlink() {
                return Err(CacheError::Unkeepable { path, what: "a link" });
            }
            if metadata.is_dir() {
                open.push((inside, path, depth + 1));
            } else if metadata.is_file() {
                found.push((inside, path));
            } else {
                return Err(CacheError::Unkeepable { path, what: "neither a file nor a folder" });
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

    fn age(path: &Path) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn a_same_size_edit_with_its_time_set_back_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let path = folder.path().join("data.txt");
        fs::write(&path, "aaaa").unwrap();
        age(&path);
        // Wait out the racy window, which looks at ctime too.
        std::thread::sleep(RACY + Duration::from_millis(100));
        let sources = Sources::remembered(cache.index());
        let first = sources.digest(&path).unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let print = Fingerprint::of(&fs::metadata(&path).unwrap());
        assert_eq!(cache.index().remembered(&path, &print).unwrap(), Some(first));

        fs::write(&path, "bbbb").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_ne!(sources.digest(&path).unwrap(), first);
    }

    #[test]
    fn a_fresh_file_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let path = folder.path().join("data.txt");
        fs::write(&path, "aaaa").unwrap();
        Sources::remembered(cache.index()).digest(&path).unwrap();
        let print = Fingerprint::of(&fs::metadata(&path).unwrap());
        assert_eq!(cache.index().remembered(&path, &print).unwrap(), None);
    }

    #[test]
    fn a_folder_is_known_by_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::rehashed();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a"), "1").unwrap();
        let first = sources.digest(folder.path()).unwrap();
        fs::rename(folder.path().join("sub/a"), folder.path().join("sub/b")).unwrap();
        assert_ne!(sources.digest(folder.path()).unwrap(), first);
    }

    #[test]
    fn a_folder_that_links_to_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        assert!(Sources::rehashed().digest(folder.path()).is_err());
    }
}
