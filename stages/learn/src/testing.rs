//! Where tests find their files.

use std::path::{Path, PathBuf};

/// Returns a file or folder of reference values.
///
/// Where the tests run on another machine than they were built on, `PIPELINE_TEST_GOLDEN` names the
/// folder that `tests/golden` is there.
pub(crate) fn golden(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("PIPELINE_TEST_GOLDEN").map_or(built, PathBuf::from).join(name)
}
