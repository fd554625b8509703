//! The real data, where it is.

use std::fs;
use std::io::Read;

#[path = "../../../../tests/real_data.rs"]
mod real_data;

pub(crate) use real_data::path;

/// Returns a file of the data, unpacked if need be.
pub(crate) fn text(name: &str) -> Option<String> {
    let bytes = fs::read(path(name)?).expect("the file can be read");
    let mut text = String::new();
    let is_packed = bytes.starts_with(&[0x1f, 0x8b]);
    let read = if is_packed {
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text)
    } else {
        (&bytes[..]).read_to_string(&mut text)
    };
    read.expect("the file is UTF-8");
    Some(text)
}
