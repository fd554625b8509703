//! Files that a group shares: open to those to whom the cache's folder is.
//!
//! What a process makes is closed to its user's group unless the user's mask says otherwise. In a
//! folder in which a group may write, that would lock its other members out one by one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::error::CacheError;

/// Read and write, for the group.
const GROUP: u32 = 0o060;

/// What is made in such a folder gets its group.
const SET_GROUP: u32 = 0o2000;

/// Makes a folder, and those above it up to the cache's, and shares what was made.
pub(crate) fn make_folder(cache: &Path, folder: &Path) -> Result<(), CacheError> {
    if folder.is_dir() {
        return Ok(());
    }
    if folder != cache
        && let Some(above) = folder.parent()
    {
        make_folder(cache, above)?;
    }
    // Another process may have made it meanwhile.
    fs::create_dir_all(folder).map_err(CacheError::io("create", folder))?;
    share(cache, folder);
    Ok(())
}

/// Opens what this user made to the group of the cache's folder, as far as that is open to it.
/// Where the system does not allow it, all stays as it is.
pub(crate) fn share(cache: &Path, path: &Path) {
    let (Ok(above), Ok(own)) = (fs::metadata(cache), fs::symlink_metadata(path)) else {
        return;
    };
    let is_ours = own.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || own.is_symlink() || above.mode() & GROUP == 0 {
        return;
    }
    if own.gid() != above.gid() {
        let _ = chown(path, None, Some(above.gid()));
    }
    let mut mode = own.mode() & 0o7777 | above.mode() & GROUP;
    if own.is_dir() {
        mode |= above.mode() & 0o010;
        if above.mode() & 0o020 != 0 {
            mode |= SET_GROUP;
        }
    }
    let now = fs::symlink_metadata(path).map_or(own.mode(), |metadata| metadata.mode());
    if now & 0o7777 != mode {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode));
    }
}
