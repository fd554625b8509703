//! Where the real data is, for the tests of all crates.

use std::path::{Path, PathBuf};

/// Returns where a file or folder of the data is; `None`, and says so, where there is none.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PIPELINE_DATA").map_or_else(
        || {
            let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
            let workspace = folders.find(|folder| folder.join("Cargo.lock").exists()).expect("a workspace");
            workspace.join("../shared/data")
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    let (thread, path) = (std::thread::current(), path.display());
    assert!(std::env::var_os("PIPELINE_REQUIRE_DATA").is_none(), "there is no {path}");
    eprintln!("SKIPPED: {}: there is no {path}; set PIPELINE_DATA", thread.name().unwrap_or("a test"));
    None
}
