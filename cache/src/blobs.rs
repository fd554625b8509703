//! Content-addressed files: written once, read-only, named by their digest.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::artifact::{Artifact, Entry};
use crate::digest::{Digest, Key};
use crate::error::CacheError;
use crate::files::{
    Fingerprint, Hashing, Links, digest_file, digest_opened, files_below, open_regular, read_chunks,
};
use crate::sources::SourceFile;

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

    /// Copies a file in. The file stays as it is.
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::Unkeepable`] for anything but a regular file, or
    /// [`CacheError::Unstable`] if the file changes meanwhile.
    pub fn copy_in(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let opened = open_regular(file, Links::Follow)?;
        self.copy_opened(&opened, file, None)
    }

    /// Takes a copy of a source file in, as it was when its digest was taken, if it is not there
    /// already. The file itself is not touched.
    ///
    /// # Errors
    /// [`CacheError::Unstable`] if it is not what it was any more; else as [`Blobs::copy_in`].
    pub fn take_source(&self, file: &SourceFile) -> Result<(), CacheError> {
        match self.checked(file.digest) {
            Ok(_) => return Ok(()),
            Err(error) if error.is_damage() => {}
            Err(other) => return Err(other),
        }
        let opened = open_regular(&file.path, Links::Follow)?;
        self.copy_opened(&opened, &file.path, Some(file.digest)).map(|_| ())
    }

    /// Copies an open file in, hashing the copy, so that what is kept is what was hashed even
    /// while somebody writes to the original. Fails unless the digest is the one `expected`.
    fn copy_opened(
        &self,
        original: &File,
        path: &Path,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), CacheError> {
        let name = format!("{}-{}", std::process::id(), self.serial.fetch_add(1, Ordering::Relaxed));
        let copy = self.temporary.join(name);
        let target = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&copy)
            .map_err(CacheError::io("create", &copy))?;
        let kept = copy_hashing(original, path, &target, &copy).and_then(|(digest, print)| {
            if expected.is_some_and(|expected| expected != digest) {
                return Err(CacheError::Unstable { path: path.to_owned() });
            }
            self.enter(&target, &copy, digest, print)
        });
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
        let opened = open_regular(file, Links::Refuse)?;
        let (digest, print) = digest_opened(&opened, file)?;
        self.enter(&opened, file, digest, print)
    }

    /// Gives a file that was hashed the name of its digest.
    fn enter(
        &self,
        opened: &File,
        file: &Path,
        digest: Digest,
        print: Fingerprint,
    ) -> Result<(Digest, u64), CacheError> {
        let target = self.path(digest);
        // What is there already stays, unless it is damaged: then this is how it is mended.
        if self.checked(digest).is_ok() {
            fs::remove_file(file).map_err(CacheError::io("remove", file))?;
            return Ok((digest, print.bytes));
        }
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
        let (found, print) = digest_file(&path, Links::Refuse).map_err(gone)?;
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
    /// As [`Blobs::checked`]; [`CacheError::Row`] if a path of the artifact leads elsewhere; and
    /// [`CacheError::Io`], also if a link stands inside `folder` where a folder is wanted.
    pub fn lay_out(&self, artifact: &Artifact, folder: &Path, copies: bool) -> Result<(), CacheError> {
        artifact.check_paths().map_err(|error| CacheError::Row {
            key: Key::from_bytes(*artifact.digest().as_bytes()),
            detail: error.to_string(),
        })?;
        fs::create_dir_all(folder).map_err(CacheError::io("create", folder))?;
        let top = open_folder(CWD, folder.as_os_str()).map_err(CacheError::io("open", folder))?;
        for entry in artifact.entries() {
            let blob = self.checked(entry.digest)?;
            let target = folder.join(&entry.path);
            let (parent, name) = make_parent(&top, &entry.path).map_err(CacheError::io("create", &target))?;
            if copies || entry.executable {
                let mode = if entry.executable { 0o755 } else { 0o644 };
                copy_blob(&blob, &parent, name, mode).map_err(CacheError::io("copy", &target))?;
            } else {
                rustix::fs::symlinkat(&blob, &parent, name)
                    .map_err(|error| CacheError::io("link", &target)(error.into()))?;
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

/// Copies an open file over an empty one and hashes the copy. Where the file system can, both
/// share their blocks until one of them changes.
fn copy_hashing(
    original: &File,
    path: &Path,
    target: &File,
    copy: &Path,
) -> Result<(Digest, Fingerprint), CacheError> {
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(target, original).is_ok() {
        return digest_opened(target, copy);
    }
    let bytes = original.metadata().map_err(CacheError::io("look at", path))?.len();
    let mut hashing = Hashing::new();
    let mut writer = target;
    read_chunks(original, path, bytes, &mut |chunk| {
        hashing.update(chunk);
        writer.write_all(chunk).map_err(CacheError::io("write", copy))
    })?;
    let metadata = target.metadata().map_err(CacheError::io("look at", copy))?;
    Ok((hashing.digest(), Fingerprint::of(&metadata)))
}

/// Opens a folder to work below it, and fails if a link stands in its place.
fn open_folder(above: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(above, name, flags, Mode::empty())?)
}

/// Makes the folders of a path below an open folder, following no links, and returns the last of
/// them with the name that remains.
fn make_parent<'a>(top: &OwnedFd, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let mut parent = top.try_clone()?;
    let mut rest = path;
    while let Some((name, below)) = rest.split_once('/') {
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        parent = open_folder(&parent, name.as_ref())?;
        rest = below;
    }
    Ok((parent, rest))
}

/// Copies a blob to a new file in an open folder.
fn copy_blob(blob: &Path, parent: &OwnedFd, name: &str, mode: u32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
    let mut original = File::open(blob)?;
    #[cfg(target_os = "linux")]
    let is_shared = rustix::fs::ioctl_ficlone(&target, &original).is_ok();
    #[cfg(not(target_os = "linux"))]
    let is_shared = false;
    if !is_shared {
        io::copy(&mut original, &mut target)?;
    }
    target.set_permissions(Permissions::from_mode(mode))
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
    fn nothing_is_laid_out_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let path = |name: &str| folder.path().join(name);
        fs::write(path("f"), "content").unwrap();
        let (digest, bytes) = blobs.copy_in(&path("f")).unwrap();
        let listing = |path: &str, executable| {
            Artifact::new(vec![Entry { path: path.to_owned(), digest, bytes, executable }])
        };
        fs::create_dir(path("elsewhere")).unwrap();
        for (number, outside) in ["../elsewhere/x", "a/../../elsewhere/x"].iter().enumerate() {
            let result = blobs.lay_out(&listing(outside, false), &path(&format!("out-{number}")), false);
            assert!(matches!(result, Err(CacheError::Row { .. })), "{outside}");
        }
        let absolute = path("elsewhere/x").display().to_string();
        assert!(blobs.lay_out(&listing(&absolute, true), &path("out"), true).is_err());

        fs::create_dir(path("linked")).unwrap();
        std::os::unix::fs::symlink(path("elsewhere"), path("linked/sub")).unwrap();
        std::os::unix::fs::symlink(path("elsewhere/y"), path("linked/file")).unwrap();
        for copies in [false, true] {
            for inside in ["sub/x", "sub/deeper/x", "file"] {
                assert!(blobs.lay_out(&listing(inside, copies), &path("linked"), copies).is_err());
            }
        }
        assert_eq!(fs::read_dir(path("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    fn a_source_is_taken_in_as_it_was_or_not_at_all() {
        use crate::Sources;
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let source = folder.path().join("data");
        let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        fs::write(&source, &content).unwrap();
        let state = Sources::rehashed().state(&source).unwrap();
        blobs.take_source(&state.files[0]).unwrap();
        assert!(state.files[0].is_unchanged().unwrap(), "the original was touched");
        assert_eq!(fs::metadata(&source).unwrap().nlink(), 1);
        let blob = blobs.checked(state.digest).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), content);

        // It is mended from the source where it is damaged.
        fs::set_permissions(&blob, Permissions::from_mode(0o644)).unwrap();
        fs::write(&blob, "damage").unwrap();
        blobs.take_source(&state.files[0]).unwrap();
        assert_eq!(fs::read(blobs.checked(state.digest).unwrap()).unwrap(), content);

        blobs.discard(state.digest).unwrap();
        fs::write(&source, "other").unwrap();
        assert!(
            matches!(blobs.take_source(&state.files[0]), Err(CacheError::Unstable { path }) if path == source)
        );
        assert_eq!(blobs.all().unwrap(), []);
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
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
