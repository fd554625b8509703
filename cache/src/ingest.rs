//! How files enter the cache: hashed through the open file, moved by the handle of their folder.
//!
//! A process that outlives its stage may still write to the stage's files and replace its folders
//! by links. So no path is resolved twice: folders are opened level by level, never through a
//! link, and a file is moved out of the folder that was opened.

use std::ffi::{CStr, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::artifact::{Artifact, Entry};
use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::{
    Fingerprint, Hashing, Links, MAX_DEPTH, digest_opened, open_regular, read_chunks, require_regular,
};
use crate::sources::SourceFile;
use crate::temporary::Temporary;

/// A name in an open folder, and its path for messages.
#[derive(Clone, Copy)]
struct FolderEntry<'a> {
    folder: &'a OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl Blobs {
    /// Stores a copy of a file. The file itself is not touched.
    ///
    /// # Errors
    /// [`CacheError::Io`], [`CacheError::UnsupportedFile`] for anything but a regular file, or
    /// [`CacheError::Unstable`] if the file changes meanwhile.
    pub fn insert_copy(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let opened = open_regular(file, Links::Follow)?;
        self.copy_opened(&opened, file, None)
    }

    /// Stores a copy of a source file as it was when it was hashed, unless it is stored already. The
    /// file itself is not touched.
    ///
    /// # Errors
    /// [`CacheError::Unstable`] if it has changed since; else as [`Blobs::insert_copy`].
    pub fn insert_source(&self, file: &SourceFile) -> Result<(), CacheError> {
        match self.checked(file.digest) {
            Ok(_) => return Ok(()),
            Err(error) if error.is_corruption() => {}
            Err(other) => return Err(other),
        }
        let opened = open_regular(&file.path, Links::Follow)?;
        self.copy_opened(&opened, &file.path, Some(file.digest)).map(|_| ())
    }

    /// Keeps bytes that are in memory, under their final name at once: no one refers to them before this
    /// returns, and a half-written file after a kill is detected by its digest. They are not synced.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = Digest::of(bytes);
        let target = self.path(digest);
        match self.checked(digest) {
            Ok(_) => return Ok(digest),
            Err(CacheError::Missing { .. }) => {}
            Err(error) if error.is_corruption() => self.discard(digest)?,
            Err(other) => return Err(other),
        }
        self.make_shard(target.parent().expect("a blob lies in a shard folder"))?;
        let created = File::options().write(true).create_new(true).mode(0o444).open(&target);
        let mut file = match created {
            // Another process stores the same bytes at the same moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(digest),
            created => created.map_err(CacheError::io("create", &target))?,
        };
        if let Err(error) = file.write_all(bytes) {
            // A half-written file would be in the way of later attempts.
            let _ = fs::remove_file(&target);
            return Err(CacheError::io("write", &target)(error));
        }
        let metadata = file.metadata().map_err(CacheError::io("look at", &target))?;
        self.mark_checked(digest, Fingerprint::of(&metadata));
        Ok(digest)
    }

    /// Stores a copy of an open file, hashing the copy, so that what is stored is what was hashed even
    /// while another process writes to the original. Fails if the digest is not `expected`.
    fn copy_opened(
        &self,
        original: &File,
        path: &Path,
        expected: Option<Digest>,
    ) -> Result<(Digest, u64), CacheError> {
        let temporary = Temporary::create(self.temporary())?;
        let (digest, fingerprint) = copy_hashing(original, path, &temporary)?;
        if expected.is_some_and(|expected| expected != digest) {
            return Err(CacheError::Unstable { path: path.to_owned() });
        }
        self.install_temporary(&temporary, digest, fingerprint)?;
        Ok((digest, fingerprint.bytes))
    }

    /// Moves a file into the store. It must be on the cache's file system and not be written to.
    ///
    /// # Errors
    /// [`CacheError::Io`], or [`CacheError::Unstable`] if it is still being written to.
    pub fn insert_moved(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let (folder, name) = parent_of(file)?;
        let opened = open_regular(file, Links::Refuse)?;
        self.move_opened(&opened, FolderEntry { folder: &folder, name, path: file })
    }

    fn move_opened(&self, opened: &File, entry: FolderEntry<'_>) -> Result<(Digest, u64), CacheError> {
        let (digest, fingerprint) = digest_opened(opened, entry.path)?;
        self.install(opened, entry, digest, fingerprint)?;
        Ok((digest, fingerprint.bytes))
    }

    fn install_temporary(
        &self,
        temporary: &Temporary,
        digest: Digest,
        fingerprint: Fingerprint,
    ) -> Result<(), CacheError> {
        let (folder, name) = parent_of(temporary.path())?;
        let entry = FolderEntry { folder: &folder, name, path: temporary.path() };
        self.install(temporary.file(), entry, digest, fingerprint)
    }

    /// Moves a hashed file to the place of its blob.
    fn install(
        &self,
        opened: &File,
        entry: FolderEntry<'_>,
        digest: Digest,
        fingerprint: Fingerprint,
    ) -> Result<(), CacheError> {
        let FolderEntry { folder, name, path } = entry;
        let unstable = || CacheError::Unstable { path: path.to_owned() };
        let target = self.path(digest);
        let shard_path = target.parent().expect("a blob lies in a shard folder");
        let target_name = target.file_name().expect("a blob has a name");
        let mut shard = None;
        for _ in 0..MAX_TRIES {
            // An intact blob stays; a corrupt one is replaced.
            match self.checked(digest) {
                Ok(_) => {
                    self.unsynced().add(digest);
                    return match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
                        // It was moved, and another has put the same in its place.
                        Ok(()) | Err(Errno::NOENT) => Ok(()),
                        Err(error) => Err(CacheError::io("remove", path)(error.into())),
                    };
                }
                Err(CacheError::Missing { .. }) => {}
                // Another process is just removing it.
                Err(CacheError::Unstable { .. }) => continue,
                // A blob that cannot be read (a bad sector, no permission) is of no use either.
                Err(_) => self.discard(digest)?,
            }
            if shard.is_none() {
                opened
                    .set_permissions(Permissions::from_mode(0o444))
                    .map_err(CacheError::io("protect", path))?;
                self.make_shard(shard_path)?;
                let folder = open_folder(CWD, shard_path.as_os_str());
                shard = Some(folder.map_err(CacheError::io("open", shard_path))?);
            }
            let shard = shard.as_ref().expect("opened above");
            // Never replaces a file: others may be reading it.
            match move_new(folder, name, shard, target_name) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(Errno::NOENT) => return Err(unstable()),
                Err(error) => return Err(CacheError::io("keep", path)(error.into())),
            }
            // The move and the protection change the ctime. What must be as it was is the content,
            // and what was moved must be what was hashed, under no other name that one could write by.
            let now = opened.metadata().map_err(CacheError::io("look at", &target))?;
            let fingerprint_now = Fingerprint::of(&now);
            let is_as_hashed = fingerprint_now.bytes == fingerprint.bytes
                && fingerprint_now.mtime_ns == fingerprint.mtime_ns;
            if !is_as_hashed || now.nlink() > 1 {
                self.discard(digest)?;
                return Err(unstable());
            }
            let is_ours = fs::symlink_metadata(&target).is_ok_and(|metadata| {
                Fingerprint::of(&metadata).device_and_inode == fingerprint.device_and_inode
            });
            if !is_ours {
                // Another file was moved than was hashed; or a process that found the corrupt blob
                // before has removed this new one.
                continue;
            }
            self.mark_checked(digest, fingerprint_now);
            self.unsynced().add(digest);
            return Ok(());
        }
        Err(CacheError::Unstable { path: target })
    }

    /// Stores every file below a folder, which is left without files.
    ///
    /// Below the cache's `work` no link is followed on the way to the folder, either.
    ///
    /// # Errors
    /// As [`Blobs::insert_moved`], and [`CacheError::UnsupportedFile`] for links, sockets and the like.
    pub fn ingest_dir(&self, folder: &Path) -> Result<Artifact, CacheError> {
        let work = self.work();
        let (trusted, inside) = match folder.strip_prefix(&work) {
            Ok(inside) => (work.as_path(), inside),
            Err(_) => {
                let trusted = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                let name = Path::new(folder.file_name().unwrap_or(folder.as_os_str()));
                (trusted.unwrap_or(Path::new(".")), name)
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut opened = rustix::fs::open(trusted, flags, Mode::empty())
            .map_err(|error| CacheError::io("open", trusted)(error.into()))?;
        let mut path = trusted.to_owned();
        for part in inside.components() {
            path.push(part);
            opened = open_subfolder(&opened, part.as_os_str(), &path)?;
        }
        let mut entries = Vec::new();
        self.ingest_below(&opened, &path, "", 0, &mut entries)?;
        Ok(Artifact::new(entries))
    }

    fn ingest_below(
        &self,
        folder: &OwnedFd,
        path: &Path,
        inside: &str,
        depth: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), CacheError> {
        if depth > MAX_DEPTH {
            return Err(CacheError::UnsupportedFile {
                path: path.to_owned(),
                what: "nested more than 64 deep",
            });
        }
        for name in names_in(folder).map_err(CacheError::io("list", path))? {
            let path = path.join(&name);
            let Some(text) = name.to_str() else {
                return Err(CacheError::UnsupportedFile {
                    path,
                    what: "named in something other than UTF-8",
                });
            };
            let inside = if inside.is_empty() { text.to_owned() } else { format!("{inside}/{text}") };
            let stat = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| CacheError::io("find", &path)(error.into()))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let below = open_subfolder(folder, &name, &path)?;
                    self.ingest_below(&below, &path, &inside, depth + 1, entries)?;
                }
                FileType::RegularFile => {
                    let opened = open_in(folder, &name).map_err(CacheError::io("open", &path))?;
                    let metadata = opened.metadata().map_err(CacheError::io("look at", &path))?;
                    require_regular(metadata.file_type(), &path)?;
                    let (digest, bytes) = if metadata.nlink() > 1 {
                        // Through a second name another process may write to the same bytes.
                        self.copy_opened(&opened, &path, None)?
                    } else {
                        self.move_opened(&opened, FolderEntry { folder, name: &name, path: &path })?
                    };
                    let executable = metadata.mode() & 0o100 != 0;
                    entries.push(Entry { path: inside, digest, bytes, executable });
                }
                FileType::Symlink => return Err(CacheError::UnsupportedFile { path, what: "a link" }),
                FileType::Fifo => return Err(CacheError::UnsupportedFile { path, what: "a named pipe" }),
                FileType::Socket => return Err(CacheError::UnsupportedFile { path, what: "a socket" }),
                _ => return Err(CacheError::UnsupportedFile { path, what: "a device" }),
            }
        }
        Ok(())
    }
}

/// Opens the folder that a file lies in.
fn parent_of(file: &Path) -> Result<(OwnedFd, &OsStr), CacheError> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(folder, flags, Mode::empty())
        .map_err(|error| CacheError::io("open", folder)(error.into()))?;
    let name = file
        .file_name()
        .ok_or_else(|| CacheError::UnsupportedFile { path: file.to_owned(), what: "a folder" })?;
    Ok((opened, name))
}

/// Opens a folder to work below it, and fails if a link stands in its place.
pub(crate) fn open_folder(above: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(above, name, flags, Mode::empty())?)
}

/// How often storing a blob is tried while other processes remove or store the same one.
const MAX_TRIES: usize = 100;

/// Moves a file to a name that must be free.
fn move_new(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new_name: &OsStr) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    match rustix::fs::renameat_with(from, name, to, new_name, rustix::fs::RenameFlags::NOREPLACE) {
        // Some file systems, such as NFS, cannot do that in one step.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return other,
    }
    rustix::fs::linkat(from, name, to, new_name, AtFlags::empty())?;
    rustix::fs::unlinkat(from, name, AtFlags::empty())
}

/// As [`open_folder`], with an error that says so if it is a link.
fn open_subfolder(above: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, CacheError> {
    open_folder(above, name).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP) => {
            CacheError::UnsupportedFile { path: path.to_owned(), what: "a link" }
        }
        _ => CacheError::io("open", path)(error),
    })
}

/// Opens a file in a folder without following a link and without waiting.
fn open_in(folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?))
}

/// Lists an open folder, sorted, before anything is moved out of it.
fn names_in(folder: &OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Copies an open file over an empty one and hashes the copy. Where the file system can, both
/// share their blocks until one of them changes.
fn copy_hashing(original: &File, path: &Path, copy: &Temporary) -> Result<(Digest, Fingerprint), CacheError> {
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(copy.file(), original).is_ok() {
        return digest_opened(copy.file(), copy.path());
    }
    let bytes = original.metadata().map_err(CacheError::io("look at", path))?.len();
    let mut hashing = Hashing::new();
    let mut writer = copy.file();
    read_chunks(original, path, bytes, &mut |chunk| {
        hashing.update(chunk);
        writer.write_all(chunk).map_err(CacheError::io("write", copy.path()))
    })?;
    let metadata = copy.file().metadata().map_err(CacheError::io("look at", copy.path()))?;
    Ok((hashing.digest(), Fingerprint::of(&metadata)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::Sources;
    use crate::blobs::tests::store;

    #[test]
    fn many_threads_store_the_same_bytes_while_some_remove_them() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let digest = Digest::of(b"the same");
        for round in 0..100 {
            let keep = |number: usize| {
                let file = folder.path().join(format!("f{number}"));
                fs::write(&file, "the same").unwrap();
                blobs.insert_moved(&file)
            };
            let kept: Vec<_> = std::thread::scope(|scope| {
                let keep = &keep;
                let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || keep(number))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for result in kept {
                assert_eq!(result.unwrap(), (digest, 8));
            }
            assert_eq!(fs::read(blobs.checked(digest).unwrap()).unwrap(), b"the same");
            if round % 2 == 0 {
                blobs.discard(digest).unwrap();
            }
        }
    }

    #[test]
    fn a_source_is_stored_as_it_was_hashed_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let source = folder.path().join("data");
        let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        fs::write(&source, &content).unwrap();
        let state = Sources::rehashed().state(&source).unwrap();
        blobs.insert_source(&state.files[0]).unwrap();
        assert!(state.files[0].is_unchanged().unwrap(), "the original was touched");
        assert_eq!(fs::metadata(&source).unwrap().nlink(), 1);
        let blob = blobs.checked(state.digest).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), content);

        // A corrupt blob is replaced from the source.
        fs::set_permissions(&blob, Permissions::from_mode(0o644)).unwrap();
        fs::write(&blob, "damage").unwrap();
        blobs.insert_source(&state.files[0]).unwrap();
        assert_eq!(fs::read(blobs.checked(state.digest).unwrap()).unwrap(), content);

        blobs.discard(state.digest).unwrap();
        fs::write(&source, "other").unwrap();
        assert!(
            matches!(blobs.insert_source(&state.files[0]), Err(CacheError::Unstable { path }) if path == source)
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
        assert!(matches!(blobs.ingest_dir(&made), Err(CacheError::UnsupportedFile { .. })));
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
        let artifact = blobs.ingest_dir(&made).unwrap();
        fs::write(&outside, "damage").unwrap();
        assert!(blobs.checked(artifact.entries()[0].digest).is_ok());
    }

    #[test]
    fn nothing_outside_is_touched_while_an_output_folder_is_swapped_for_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let blobs = store(folder.path());
        fs::create_dir(path("outside")).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(path("outside").join(name), "the user's").unwrap();
        }
        std::os::unix::fs::symlink(path("outside"), path("link")).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let _ = fs::rename(path("made/sub"), path("away"));
                    let _ = fs::rename(path("link"), path("made/sub"));
                    let _ = fs::rename(path("made/sub"), path("link"));
                    let _ = fs::rename(path("away"), path("made/sub"));
                }
            });
            for _ in 0..100 {
                let _ = fs::create_dir_all(path("made/sub"));
                for name in ["a", "b", "c"] {
                    let _ = fs::write(path("made/sub/").join(format!("new-{name}")), "made");
                    if let Ok(sub) = open_folder(CWD, path("made/sub").as_os_str()) {
                        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                        let file = rustix::fs::openat(&sub, name, flags, Mode::from_raw_mode(0o600));
                        rustix::io::write(file.unwrap(), b"made").unwrap();
                    }
                }
                // It may fail; what it keeps is what was made.
                if let Ok(artifact) = blobs.ingest_dir(&path("made")) {
                    assert!(artifact.entries().iter().all(|entry| entry.digest != Digest::of(b"the user's")));
                }
            }
            is_done.store(true, Ordering::Relaxed);
        });
        for name in ["a", "b", "c"] {
            assert_eq!(fs::read(path("outside").join(name)).unwrap(), b"the user's");
        }
        assert!(blobs.checked(Digest::of(b"the user's")).is_err());
    }

    #[test]
    fn no_link_is_followed_on_the_way_to_an_output() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let blobs = store(folder.path());
        fs::create_dir_all(path("outside/out")).unwrap();
        fs::write(path("outside/out/f"), "the user's").unwrap();
        fs::create_dir_all(path("work/key/run")).unwrap();
        std::os::unix::fs::symlink(path("outside"), path("work/key/run/outputs")).unwrap();
        let result = blobs.ingest_dir(&path("work/key/run/outputs/out"));
        assert!(matches!(result, Err(CacheError::UnsupportedFile { what: "a link", .. })));
        assert!(path("outside/out/f").exists());
    }

    #[test]
    fn a_write_of_the_same_size_after_hashing_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let path = folder.path().join("f");
        fs::write(&path, "hashed").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let (parent, name) = parent_of(&path).unwrap();
        let opened = open_regular(&path, Links::Refuse).unwrap();
        let (digest, fingerprint) = digest_opened(&opened, &path).unwrap();
        (&file).write_all(b"CHANGE").unwrap();
        let entry = FolderEntry { folder: &parent, name, path: &path };
        assert!(matches!(
            blobs.install(&opened, entry, digest, fingerprint),
            Err(CacheError::Unstable { .. })
        ));
        assert!(matches!(blobs.checked(digest), Err(CacheError::Missing { .. })));
    }

    #[test]
    fn many_threads_may_store_the_same_bytes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let stores = [store(folder.path()), store(folder.path())];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (blobs, path) = (&stores[thread % 2], folder.path().join(format!("f{thread}")));
                scope.spawn(move || {
                    for round in 0..100 {
                        let content = format!("content {round}");
                        fs::write(&path, &content).unwrap();
                        let (digest, _) = blobs.insert_moved(&path).unwrap();
                        assert_eq!(fs::read(blobs.checked(digest).unwrap()).unwrap(), content.as_bytes());
                    }
                });
            }
        });
    }

    #[test]
    fn another_file_put_in_the_place_of_the_hashed_one_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let path = folder.path().join("f");
        fs::write(&path, "hashed").unwrap();
        let (parent, name) = parent_of(&path).unwrap();
        let opened = open_regular(&path, Links::Refuse).unwrap();
        let (digest, fingerprint) = digest_opened(&opened, &path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "CHANGE").unwrap();
        let entry = FolderEntry { folder: &parent, name, path: &path };
        assert!(matches!(
            blobs.install(&opened, entry, digest, fingerprint),
            Err(CacheError::Unstable { .. })
        ));
        assert!(matches!(blobs.checked(digest), Err(CacheError::Missing { .. })));
    }
}
