//! Whether a file is on a network file system.

use std::path::Path;

/// Returns whether a file is on a network file system, where memory cannot be shared.
#[cfg(target_os = "linux")]
pub(crate) fn is_network(path: &Path) -> bool {
    const NETWORK: [u32; 7] = [
        0x6969,      // NFS
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x0bd0_0bd0, // Lustre
        0x4750_4653, // GPFS
        0x00c3_6400, // Ceph
        0x1983_0326, // BeeGFS
    ];
    let folder = path.parent().unwrap_or(path);
    rustix::fs::statfs(folder).is_ok_and(|stat| NETWORK.contains(&(stat.f_type as u32)))
}

/// Returns whether a file is on a network file system; not known on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_network(_: &Path) -> bool {
    false
}
