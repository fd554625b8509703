//! Reading files that other processes may change: opened once, checked to be regular, and read
//! without a memory map.
//!
//! If another process truncates a mapped file, the reader is killed by a signal. A named pipe or a
//! device that is opened by mistake blocks or is read for ever.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::OFlags;

use crate::digest::Digest;
use crate::error::CacheError;

/// The metadata of a file that must stay the same for a remembered digest to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Device and inode: a file moved over another is another file.
    pub device_and_inode: (u64, u64),
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
            device_and_inode: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What to do about symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Take what they point to: the path is the user's, who may use links.
    Follow,
    /// Refuse them: what they point to is not part of the folder.
    Refuse,
}

/// Opens a regular file for reading, and refuses everything else without waiting for it.
///
/// `links` says what to do if the last part of the path is a link.
///
/// # Errors
/// [`CacheError::UnsupportedFile`] for anything but a regular file, [`CacheError::Io`] if it cannot be
/// opened.
pub fn open_regular(path: &Path, links: Links) -> Result<File, CacheError> {
    // Looked at before it is opened, because opening a device can have effects of its own.
    let metadata = match links {
        Links::Follow => fs::metadata(path),
        Links::Refuse => fs::symlink_metadata(path),
    };
    require_regular(metadata.map_err(CacheError::io("find", path))?.file_type(), path)?;
    let mut flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(CacheError::io("open", path))?;
    // Looked at again, because another may have taken its place meanwhile.
    require_regular(file.metadata().map_err(CacheError::io("look at", path))?.file_type(), path)?;
    Ok(file)
}

/// Reads a regular file whole, following a link to it.
///
/// # Errors
/// As [`open_regular`], [`CacheError::TooLarge`] for a file of more than `limit_bytes`, and
/// [`CacheError::Io`] if it cannot be read.
pub fn read_regular(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, CacheError> {
    let file = open_regular(path, Links::Follow)?;
    let bytes = file.metadata().map_err(CacheError::io("look at", path))?.len();
    let too_large = || CacheError::TooLarge { path: path.to_owned(), limit_bytes };
    if bytes > limit_bytes {
        return Err(too_large());
    }
    let mut content = Vec::with_capacity(bytes as usize);
    // One byte more than allowed, so that a file that grows meanwhile is noticed.
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(CacheError::io("read", path))?;
    if content.len() as u64 > limit_bytes {
        return Err(too_large());
    }
    Ok(content)
}

/// Fails unless a file is a regular one.
pub(crate) fn require_regular(file_type: FileType, path: &Path) -> Result<(), CacheError> {
    match irregular_kind(file_type) {
        None => Ok(()),
        Some(what) => Err(CacheError::UnsupportedFile { path: path.to_owned(), what }),
    }
}

/// Returns what kind of file it is, if it is not a regular one.
pub(crate) fn irregular_kind(file_type: FileType) -> Option<&'static str> {
    if file_type.is_file() {
        None
    } else if file_type.is_dir() {
        Some("a folder")
    } else if file_type.is_symlink() {
        Some("a link")
    } else if file_type.is_fifo() {
        Some("a named pipe")
    } else if file_type.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// How much is read at a time: small enough to stay in the processor's cache until it is hashed.
const CHUNK_BYTES: usize = 1 << 20;

/// With more threads than this, reading is the bottleneck.
const MAX_THREADS: usize = 8;

/// The threads that hash, started at the first large file. `None` if the system refuses threads:
/// then the calling thread hashes. Rayon's global pool would panic instead.
static HASHING: LazyLock<Option<rayon::ThreadPool>> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(MAX_THREADS));
    if threads == 1 {
        return None;
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|number| format!("hashing {number}"))
        .build()
        .ok()
});

/// Hashes what is read from a file until its end.
pub(crate) struct Hashing {
    hasher: blake3::Hasher,
}

impl Hashing {
    pub(crate) fn new() -> Self {
        Self { hasher: blake3::Hasher::new() }
    }

    /// Takes the next bytes, on several threads where there are many of them.
    pub(crate) fn update(&mut self, chunk: &[u8]) {
        let hasher = &mut self.hasher;
        match (chunk.len() >= CHUNK_BYTES / 2).then(|| HASHING.as_ref()).flatten() {
            Some(pool) => pool.install(|| hasher.update_rayon(chunk)),
            None => hasher.update(chunk),
        };
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(*self.hasher.finalize().as_bytes())
    }
}

/// Reads a file to its end, chunk by chunk; `path` is for messages.
///
/// Fails with [`CacheError::Unstable`] as soon as there is more of it than `bytes`, because
/// something that is appended to for ever would be read for ever.
pub(crate) fn read_chunks(
    mut file: &File,
    path: &Path,
    bytes: u64,
    take: &mut dyn FnMut(&[u8]) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let room = usize::try_from(bytes.saturating_add(1)).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
    let mut chunk = vec![0; room];
    let mut done = 0;
    loop {
        let length = fill(&mut file, &mut chunk).map_err(CacheError::io("read", path))?;
        done += length as u64;
        if done > bytes {
            return Err(CacheError::Unstable { path: path.to_owned() });
        }
        take(&chunk[..length])?;
        if length < chunk.len() {
            break;
        }
    }
    if done == bytes { Ok(()) } else { Err(CacheError::Unstable { path: path.to_owned() }) }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Hashes an open file from where it stands, which is its beginning; the fingerprint is that of
/// the hashed bytes. Fails if the file changes meanwhile.
pub(crate) fn digest_opened(file: &File, path: &Path) -> Result<(Digest, Fingerprint), CacheError> {
    let stat = || file.metadata().map_err(CacheError::io("look at", path));
    let before = Fingerprint::of(&stat()?);
    let mut hashing = Hashing::new();
    read_chunks(file, path, before.bytes, &mut |chunk| {
        hashing.update(chunk);
        Ok(())
    })?;
    if Fingerprint::of(&stat()?) != before {
        return Err(CacheError::Unstable { path: path.to_owned() });
    }
    Ok((hashing.digest(), before))
}

/// Hashes the file at a path at full speed, and fails if it changes or is replaced meanwhile.
pub(crate) fn digest_file(path: &Path, links: Links) -> Result<(Digest, Fingerprint), CacheError> {
    let file = open_regular(path, links)?;
    let (digest, fingerprint) = digest_opened(&file, path)?;
    let now = fs::metadata(path).map_err(CacheError::io("look at", path))?;
    if Fingerprint::of(&now) != fingerprint {
        return Err(CacheError::Unstable { path: path.to_owned() });
    }
    Ok((digest, fingerprint))
}

/// Returns whether a file does not exist.
pub(crate) fn is_not_found(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Waits until a folder's entries are on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), CacheError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(CacheError::io("sync", folder))
}

/// Folders are walked no deeper than this: a link to a folder above would be walked for ever.
pub(crate) const MAX_DEPTH: usize = 64;

/// Lists the files below a folder, sorted by their path inside it.
pub(crate) fn files_below(folder: &Path, links: Links) -> Result<Vec<(String, PathBuf)>, CacheError> {
    let mut files = Vec::new();
    let mut open = vec![(String::new(), folder.to_owned(), 0)];
    while let Some((prefix, folder, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(CacheError::UnsupportedFile { path: folder, what: "nested more than 64 deep" });
        }
        for entry in fs::read_dir(&folder).map_err(CacheError::io("list", &folder))? {
            let entry = entry.map_err(CacheError::io("list", &folder))?;
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                return Err(CacheError::UnsupportedFile {
                    path,
                    what: "named in something other than UTF-8",
                });
            };
            let inside = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let stat = match links {
                Links::Follow => fs::metadata(&path),
                Links::Refuse => fs::symlink_metadata(&path),
            };
            let metadata = stat.map_err(CacheError::io("find", &path))?;
            if metadata.is_dir() {
                open.push((inside, path, depth + 1));
            } else {
                require_regular(metadata.file_type(), &path)?;
                files.push((inside, path));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(error: CacheError) -> &'static str {
        match error {
            CacheError::UnsupportedFile { what, .. } => what,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn anything_but_a_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "content").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();

        assert_eq!(what(read_regular(&path("pipe"), 100).unwrap_err()), "a named pipe");
        assert_eq!(what(read_regular(&path("socket"), 100).unwrap_err()), "a socket");
        assert_eq!(what(read_regular(folder.path(), 100).unwrap_err()), "a folder");
        assert_eq!(what(read_regular(Path::new("/dev/zero"), 100).unwrap_err()), "a device");
        assert_eq!(what(open_regular(&path("link"), Links::Refuse).unwrap_err()), "a link");
        assert_eq!(read_regular(&path("link"), 100).unwrap(), b"content");
        assert_eq!(read_regular(&path("file"), 7).unwrap(), b"content");
        assert!(matches!(read_regular(&path("file"), 6), Err(CacheError::TooLarge { limit_bytes: 6, .. })));
        assert_eq!(what(files_below(folder.path(), Links::Follow).unwrap_err()).split(' ').next(), Some("a"));
    }

    #[test]
    fn a_digest_does_not_depend_on_the_size_of_the_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
            let content: Vec<u8> = (0..bytes).map(|position| (position % 251) as u8).collect();
            fs::write(&path, &content).unwrap();
            let (digest, fingerprint) = digest_file(&path, Links::Refuse).unwrap();
            assert_eq!((digest, fingerprint.bytes), (Digest::of(&content), bytes as u64));
        }
    }

    #[test]
    fn a_file_that_shrinks_or_grows_while_it_is_hashed_is_an_error_and_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for later in [0, 1 << 20, (6 << 20) - 1, (6 << 20) + 1, 9 << 20] {
            fs::write(&path, vec![7; 6 << 20]).unwrap();
            let writer = File::options().write(true).open(&path).unwrap();
            let reader = open_regular(&path, Links::Refuse).unwrap();
            let mut hashing = Hashing::new();
            let result = read_chunks(&reader, &path, 6 << 20, &mut |chunk| {
                writer.set_len(later).unwrap();
                hashing.update(chunk);
                Ok(())
            });
            assert!(matches!(result, Err(CacheError::Unstable { .. })), "{later}");
        }
    }
}
