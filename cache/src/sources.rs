//! Digests of source files, remembered while the files stay unchanged.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::artifact::{Artifact, Entry};
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::{Fingerprint, Links, digest_file, files_below, is_not_found, require_regular};
use crate::index::Index;
use crate::network::is_network;

/// A file that changed this recently may change again within the same time stamp.
const RACY: Duration = Duration::from_secs(2);

/// On a network file system time stamps are of the server's clock, which may be behind ours. Its clock
/// cannot be asked without writing a file beside the source, so the window is wide enough for
/// clocks that are not synchronised.
const RACY_ON_NETWORK: Duration = Duration::from_secs(600);

/// A source file or folder at the time it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// The digest of the file's bytes, or of the folder's listing.
    pub digest: Digest,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// The file itself, or the folder's files, sorted by their path inside it.
    pub files: Vec<SourceFile>,
}

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path inside the folder; empty for a file by itself.
    pub inside: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its content.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Whether the owner may execute it.
    pub executable: bool,
    /// What it looked like when it was hashed: now, or when its digest was remembered.
    pub fingerprint: Fingerprint,
    /// Whether it had changed so recently that another change may leave the same fingerprint.
    pub is_racy: bool,
}

impl SourceState {
    /// Returns whether the file or folder at a path is still what it was: the same files, each as
    /// [`SourceFile::is_unchanged`] has it.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be looked at.
    pub fn is_unchanged(&self, path: &Path) -> Result<bool, CacheError> {
        if self.is_folder {
            let below = files_below(path, Links::Follow)?;
            if !below.iter().map(|(inside, _)| inside).eq(self.files.iter().map(|file| &file.inside)) {
                return Ok(false);
            }
        }
        for file in &self.files {
            if !file.is_unchanged()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl SourceFile {
    /// Returns whether the file is still what it was; it is hashed again only if its fingerprint
    /// cannot tell.
    ///
    /// # Errors
    /// [`CacheError::Io`] if it cannot be looked at. That it is gone, or is no regular file any
    /// more, is a change and no error.
    pub fn is_unchanged(&self) -> Result<bool, CacheError> {
        let metadata = match fs::metadata(&self.path) {
            Err(error) if is_not_found(&error) => return Ok(false),
            metadata => metadata.map_err(CacheError::io("find", &self.path))?,
        };
        if !metadata.is_file()
            || is_executable(&metadata) != self.executable
            || Fingerprint::of(&metadata) != self.fingerprint
        {
            return Ok(false);
        }
        if !self.is_racy {
            return Ok(true);
        }
        match digest_file(&self.path, Links::Follow) {
            Ok((digest, _)) => Ok(digest == self.digest),
            Err(CacheError::Unstable { .. } | CacheError::UnsupportedFile { .. }) => Ok(false),
            Err(CacheError::Io { source, .. }) if is_not_found(&source) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.mode() & 0o100 != 0
}

/// Returns whether something changed so recently that its fingerprint may not show the next change.
fn is_racy(fingerprint: &Fingerprint, path: &Path) -> bool {
    let window = if is_network(path) { RACY_ON_NETWORK } else { RACY };
    is_within(window, fingerprint)
}

fn is_within(window: Duration, fingerprint: &Fingerprint) -> bool {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_nanos() as i128);
    let newest = fingerprint.mtime_ns.max(fingerprint.ctime_ns);
    // A time stamp from the future says nothing about when the file was written.
    now - newest < window.as_nanos() as i128
}

/// Computes the digests of source files and folders, or takes them from the index.
pub struct Sources<'a> {
    memory: Option<&'a Index>,
}

impl<'a> Sources<'a> {
    /// Uses the digests that the index remembers.
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
    /// As [`Sources::state`].
    pub fn digest(&self, path: &Path) -> Result<Digest, CacheError> {
        Ok(self.state(path)?.digest)
    }

    /// Returns what a file or a folder is now, file by file.
    ///
    /// # Errors
    /// [`CacheError::Io`] if something cannot be read, [`CacheError::Unstable`] if it changes
    /// meanwhile, [`CacheError::UnsupportedFile`] if there is something other than regular files.
    pub fn state(&self, path: &Path) -> Result<SourceState, CacheError> {
        let metadata = fs::metadata(path).map_err(CacheError::io("find", path))?;
        if !metadata.is_dir() {
            let file = self.file(String::new(), path.to_owned(), &metadata)?;
            return Ok(SourceState { digest: file.digest, is_folder: false, files: vec![file] });
        }
        let mut files = Vec::new();
        for (inside, path) in files_below(path, Links::Follow)? {
            let metadata = fs::metadata(&path).map_err(CacheError::io("find", &path))?;
            files.push(self.file(inside, path, &metadata)?);
        }
        let entry = |file: &SourceFile| Entry {
            path: file.inside.clone(),
            digest: file.digest,
            bytes: file.bytes,
            executable: file.executable,
        };
        let listing = Artifact::new(files.iter().map(entry).collect());
        Ok(SourceState { digest: listing.digest(), is_folder: true, files })
    }

    fn file(&self, inside: String, path: PathBuf, metadata: &Metadata) -> Result<SourceFile, CacheError> {
        require_regular(metadata.file_type(), &path)?;
        // A change of it changes the time of the last change too, which is compared.
        let executable = is_executable(metadata);
        let state = |path, digest, fingerprint: Fingerprint, is_racy| SourceFile {
            inside,
            path,
            digest,
            bytes: fingerprint.bytes,
            executable,
            fingerprint,
            is_racy,
        };
        let stat = Fingerprint::of(metadata);
        let absolute = std::path::absolute(&path).map_err(CacheError::io("find", &path))?;
        if let Some(memory) = self.memory
            && let Some(digest) = memory.remembered(&absolute, &stat)?
        {
            return Ok(state(path, digest, stat, false));
        }
        let (digest, fingerprint) = digest_file(&path, Links::Follow)?;
        if fingerprint != stat {
            return Err(CacheError::Unstable { path });
        }
        let is_racy = is_racy(&fingerprint, &path);
        if let Some(memory) = self.memory
            && !is_racy
        {
            match memory.remember(&absolute, &fingerprint, digest) {
                // What is not remembered is read again; no reason to stop.
                Err(error) if error.is_full_disk() => {}
                remembered => remembered?,
            }
        }
        Ok(state(path, digest, fingerprint, is_racy))
    }
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
        let fingerprint = Fingerprint::of(&fs::metadata(&path).unwrap());
        assert_eq!(cache.index().remembered(&path, &fingerprint).unwrap(), Some(first));

        fs::write(&path, "bbbb").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_ne!(sources.digest(&path).unwrap(), first);
    }

    #[test]
    fn a_clock_that_is_behind_or_ahead_makes_nothing_look_older() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.txt");
        fs::write(&path, "aaaa").unwrap();
        let fingerprint = Fingerprint::of(&fs::metadata(&path).unwrap());
        let minutes = |minutes: i128| minutes * 60 * 1_000_000_000;
        let written_at = |offset| Fingerprint {
            mtime_ns: fingerprint.mtime_ns + offset,
            ctime_ns: fingerprint.ctime_ns + offset,
            ..fingerprint
        };
        assert!(is_within(RACY, &fingerprint) && is_within(RACY, &written_at(minutes(60))));
        assert!(!is_within(RACY, &written_at(minutes(-1))));
        assert!(is_within(RACY_ON_NETWORK, &written_at(minutes(-1))));
        assert!(!is_within(RACY_ON_NETWORK, &written_at(minutes(-11))));
    }

    #[test]
    fn a_fresh_file_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let path = folder.path().join("data.txt");
        fs::write(&path, "aaaa").unwrap();
        Sources::remembered(cache.index()).digest(&path).unwrap();
        let fingerprint = Fingerprint::of(&fs::metadata(&path).unwrap());
        assert_eq!(cache.index().remembered(&path, &fingerprint).unwrap(), None);
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
    fn the_state_of_a_source_says_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("data")).unwrap();
        fs::write(path("data/a"), "aaaa").unwrap();
        fs::write(path("data/b"), "bb").unwrap();
        let sources = Sources::rehashed();
        let state = sources.state(&path("data")).unwrap();
        assert!(state.is_folder);
        assert_eq!(state.digest, sources.digest(&path("data")).unwrap());
        let names: Vec<&str> = state.files.iter().map(|file| file.inside.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let single = sources.state(&path("data/a")).unwrap();
        assert_eq!((single.is_folder, single.files[0].inside.as_str()), (false, ""));
        let file = &state.files[0];
        assert_eq!((file.digest, file.bytes, file.executable), (Digest::of(b"aaaa"), 4, false));
        assert!(file.is_racy && file.is_unchanged().unwrap());

        // As another change within the same time stamp leaves it.
        fs::write(path("data/a"), "AAAA").unwrap();
        let fingerprint = Fingerprint::of(&fs::metadata(path("data/a")).unwrap());
        let racy = SourceFile { fingerprint, ..file.clone() };
        assert!(!racy.is_unchanged().unwrap());
        assert!(!file.is_unchanged().unwrap());

        fs::remove_file(path("data/b")).unwrap();
        assert!(!state.files[1].is_unchanged().unwrap());
        fs::create_dir(path("data/b")).unwrap();
        assert!(!state.files[1].is_unchanged().unwrap());
    }

    #[test]
    fn a_source_that_is_no_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            assert!(matches!(Sources::rehashed().digest(path), Err(CacheError::UnsupportedFile { .. })));
        }
    }

    #[test]
    fn a_folder_that_links_to_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        assert!(Sources::rehashed().digest(folder.path()).is_err());
    }
}
