//! The real data, where it is.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Returns where a file of the data is; `None`, and says so, where there is none.
pub fn path(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("PIPELINE_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    let path = folder.join(name);
    if !path.exists() {
        assert!(std::env::var_os("PIPELINE_REQUIRE_DATA").is_none(), "{} is not there", path.display());
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Returns a file of the data, unpacked if need be.
pub fn text(name: &str) -> Option<String> {
    let bytes = fs::read(path(name)?).expect("the file can be read");
    let mut text = String::new();
    let is_packed = bytes.starts_with(&[0x1f, 0x8b]);
    let read = match is_packed {
        true => flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text),
        false => (&bytes[..]).read_to_string(&mut text),
    };
    read.expect("the file is UTF-8");
    Some(text)
}
