//! How artifacts leave the cache: as links to their blobs, or as copies, below one folder.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::artifact::Artifact;
use crate::blobs::Blobs;
use crate::error::CacheError;
use crate::ingest::open_folder;
use crate::key::Key;

impl Blobs {
    /// Makes an artifact's files appear below `folder`, checked: as read-only links, or as copies
    /// that may be written to.
    ///
    /// # Errors
    /// As [`Blobs::checked`]; [`CacheError::Row`] if a path of the artifact leads elsewhere; and
    /// [`CacheError::Io`], also if there is a link inside `folder` where a folder is expected.
    pub fn materialize(&self, artifact: &Artifact, folder: &Path, copies: bool) -> Result<(), CacheError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use crate::blobs::tests::store;

    #[test]
    fn a_folder_goes_in_and_comes_out_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let made = folder.path().join("made");
        fs::create_dir_all(made.join("deep/er")).unwrap();
        fs::write(made.join("deep/er/a"), "1").unwrap();
        fs::write(made.join("b"), "2").unwrap();
        let artifact = blobs.ingest_dir(&made).unwrap();
        assert_eq!(artifact.bytes(), 2);

        for copies in [false, true] {
            let out = folder.path().join(format!("out-{copies}"));
            blobs.materialize(&artifact, &out, copies).unwrap();
            assert_eq!(fs::read(out.join("deep/er/a")).unwrap(), b"1");
            assert_eq!(fs::read(out.join("b")).unwrap(), b"2");
        }
    }

    #[test]
    fn nothing_is_written_outside_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = store(folder.path());
        let path = |name: &str| folder.path().join(name);
        fs::write(path("f"), "content").unwrap();
        let (digest, bytes) = blobs.insert_copy(&path("f")).unwrap();
        let listing = |path: &str, executable| {
            Artifact::new(vec![Entry { path: path.to_owned(), digest, bytes, executable }])
        };
        fs::create_dir(path("elsewhere")).unwrap();
        for (number, outside) in ["../elsewhere/x", "a/../../elsewhere/x"].iter().enumerate() {
            let result = blobs.materialize(&listing(outside, false), &path(&format!("out-{number}")), false);
            assert!(matches!(result, Err(CacheError::Row { .. })), "{outside}");
        }
        let absolute = path("elsewhere/x").display().to_string();
        assert!(blobs.materialize(&listing(&absolute, true), &path("out"), true).is_err());

        fs::create_dir(path("linked")).unwrap();
        std::os::unix::fs::symlink(path("elsewhere"), path("linked/sub")).unwrap();
        std::os::unix::fs::symlink(path("elsewhere/y"), path("linked/file")).unwrap();
        for copies in [false, true] {
            for inside in ["sub/x", "sub/deeper/x", "file"] {
                assert!(blobs.materialize(&listing(inside, copies), &path("linked"), copies).is_err());
            }
        }
        assert_eq!(fs::read_dir(path("elsewhere")).unwrap().count(), 0);
    }
}
