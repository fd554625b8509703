//! The header of one safetensors file.
//!
//! Eight bytes of length, that many bytes of JSON, then the tensors without gaps. Read here and
//! not by the crate `safetensors`, which wants the whole file in memory, keeps the last of two
//! tensors of one name, and often does not say which tensor is wrong.

use crate::error::HeaderFault;
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

/// The longest header that is read, as in the crate `safetensors`.
pub(crate) const LARGEST_HEADER_BYTES: u64 = 100_000_000;

const LENGTH_BYTES: u64 = 8;

/// Says what one tensor is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its extents, outermost first. A scalar has none.
    pub shape: Vec<u64>,
    /// The file that holds it, by its name in the folder.
    pub file: String,
    /// Its bytes, counted from the beginning of the file.
    pub bytes: Range<u64>,
}

impl Tensor {
    /// Returns how many elements it has.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Reads the tensors of a file, in the order of their bytes.
///
/// The outer error is the system's, the inner one the file's.
pub(crate) fn read(
    file: &str,
    file_bytes: u64,
    mut source: impl Read,
) -> io::Result<Result<Vec<Tensor>, HeaderFault>> {
    let mut length = Vec::new();
    source.by_ref().take(LENGTH_BYTES).read_to_end(&mut length)?;
    let truncated = |needed_bytes| Ok(Err(HeaderFault::Truncated { file_bytes, needed_bytes }));
    let Ok(length) = <[u8; 8]>::try_from(length) else { return truncated(LENGTH_BYTES) };
    let bytes = u64::from_le_bytes(length);
    if bytes > LARGEST_HEADER_BYTES {
        return Ok(Err(HeaderFault::TooLarge { bytes }));
    }
    let mut header = Vec::new();
    source.take(bytes).read_to_end(&mut header)?;
    if (header.len() as u64) < bytes || file_bytes < LENGTH_BYTES + bytes {
        return truncated(LENGTH_BYTES + bytes);
    }
    let start = LENGTH_BYTES + bytes;
    Ok(parse(&header).and_then(|entries| check(entries, file, start, file_bytes - start)))
}

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn parse(header: &[u8]) -> Result<Vec<(String, Entry)>, HeaderFault> {
    let text = std::str::from_utf8(header).map_err(|_| HeaderFault::NotUtf8)?;
    let Entries(entries) = serde_json::from_str(text).map_err(HeaderFault::Json)?;
    let mut seen = BTreeMap::new();
    for (name, _) in &entries {
        if seen.insert(name, ()).is_some() {
            return Err(HeaderFault::DuplicateName { tensor: name.clone() });
        }
    }
    Ok(entries)
}

/// The entries as written: a map would keep only one of two with the same name.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry =
                map.next_value().map_err(|error| de::Error::custom(format!("tensor `{name}`: {error}")))?;
            entries.push((name, entry));
        }
        Ok(Entries(entries))
    }
}

fn check(
    mut entries: Vec<(String, Entry)>,
    file: &str,
    start: u64,
    data_bytes: u64,
) -> Result<Vec<Tensor>, HeaderFault> {
    for (tensor, entry) in &entries {
        let tensor = || tensor.clone();
        let (begin, end) = entry.data_offsets;
        if begin > end || end > data_bytes {
            return Err(HeaderFault::OutOfRange { tensor: tensor(), begin, end, data_bytes });
        }
        let expected = size(entry).ok_or_else(|| HeaderFault::Shape { tensor: tensor() })?;
        if end - begin != expected {
            return Err(HeaderFault::WrongSize { tensor: tensor(), found: end - begin, expected });
        }
    }
    entries.sort_by(|(name, entry), (other, next)| {
        entry.data_offsets.cmp(&next.data_offsets).then_with(|| name.cmp(other))
    });
    let mut covered = 0;
    let mut tensors: Vec<Tensor> = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let (begin, end) = entry.data_offsets;
        if begin < covered {
            let first = tensors.last().map_or_else(String::new, |tensor| tensor.name.clone());
            return Err(HeaderFault::Overlap { first, second: name });
        }
        if begin > covered {
            return Err(HeaderFault::Hole { tensor: name, bytes: begin - covered });
        }
        covered = end;
        tensors.push(Tensor {
            name,
            dtype: entry.dtype,
            shape: entry.shape,
            file: file.to_owned(),
            bytes: start + begin..start + end,
        });
    }
    match data_bytes - covered {
        0 => Ok(tensors),
        bytes => Err(HeaderFault::Trailing { bytes }),
    }
}

/// Returns the bytes that a shape and a type make, if that is a whole number and not too many.
fn size(entry: &Entry) -> Option<u64> {
    // An extent of 0 must not hide the others from the check.
    let all = entry.shape.iter().filter(|extent| **extent > 0);
    let most = all.copied().try_fold(1u64, u64::checked_mul)?;
    let bits = most.checked_mul(entry.dtype.bitsize() as u64)?;
    if entry.shape.contains(&0) {
        return Some(0);
    }
    bits.is_multiple_of(8).then_some(bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    fn tensors(bytes: &[u8]) -> Result<Vec<Tensor>, String> {
        let read = read("m.safetensors", bytes.len() as u64, bytes).unwrap();
        read.map_err(|fault| fault.to_string())
    }

    fn fault(header: &str, data_bytes: usize) -> String {
        tensors(&file(header, data_bytes)).unwrap_err()
    }

    #[test]
    fn tensors_come_in_the_order_of_their_bytes() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},
            "a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
            "empty":{"dtype":"F32","shape":[0,3],"data_offsets":[12,12]}}"#;
        let found = tensors(&file(header, 16)).unwrap();
        let start = 8 + header.len() as u64;
        let names: Vec<_> = found.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "empty", "b"]);
        assert_eq!((found[0].dtype, found[0].elements()), (Dtype::BF16, 6));
        assert_eq!(found[2].bytes, start + 12..start + 16);
        assert_eq!((found[1].elements(), found[2].elements()), (0, 1));
    }

    #[test]
    fn a_file_cut_short_is_told() {
        let whole = file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4);
        assert!(tensors(&whole).is_ok());
        for length in [0, 7, 8, 20] {
            let message = tensors(&whole[..length]).unwrap_err();
            assert!(message.contains("truncated"), "{message}");
        }
        let message = tensors(&whole[..whole.len() - 1]).unwrap_err();
        assert_eq!(message, "tensor `a` is at bytes 0 to 4 of 3");
    }

    #[test]
    fn hostile_lengths_allocate_nothing() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend([0; 8]);
        assert!(tensors(&bytes).unwrap_err().contains("18446744073709551615 bytes long"));
        bytes[..8].copy_from_slice(&99_000_000u64.to_le_bytes());
        assert!(tensors(&bytes).unwrap_err().contains("truncated"));
    }

    #[test]
    fn headers_that_lie_are_refused_by_the_tensors_name() {
        let one = |entry: &str| fault(&format!(r#"{{"a":{entry}}}"#), 4);
        let range = one(r#"{"dtype":"U8","shape":[4],"data_offsets":[3,2]}"#);
        assert_eq!(range, "tensor `a` is at bytes 3 to 2 of 4");
        let size = one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#);
        assert_eq!(size, "tensor `a` has 4 bytes, and its shape and type make 8");
        let huge = one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#);
        assert_eq!(huge, "tensor `a` has a shape that no file can hold");
        let hidden = one(r#"{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}"#);
        assert_eq!(hidden, huge);
        let half = one(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#);
        assert_eq!(half, huge);
        let dtype = one(r#"{"dtype":"F31","shape":[1],"data_offsets":[0,4]}"#);
        assert!(dtype.contains("tensor `a`: unknown variant `F31`"), "{dtype}");
        assert_eq!(fault("{}", 3), "3 bytes at the end belong to no tensor");
    }

    #[test]
    fn tensors_neither_overlap_nor_leave_holes_nor_share_a_name() {
        let two = |name: &str, begin: usize| {
            let end = begin + 2;
            let first = r#""a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}"#;
            let second = format!(r#""{name}":{{"dtype":"U8","shape":[2],"data_offsets":[{begin},{end}]}}"#);
            fault(&format!("{{{first},{second}}}"), 6)
        };
        assert_eq!(two("b", 1), "tensors `a` and `b` overlap");
        assert_eq!(two("b", 4), "2 bytes before `b` belong to no tensor");
        assert_eq!(two("a", 2), "two tensors are named `a`");
    }

    #[test]
    fn what_is_no_header_is_refused() {
        assert!(fault("[]", 0).contains("expected an object of tensors"));
        assert!(fault("{", 0).contains("the header cannot be read"));
        let mut bytes = file("{\"a\"}", 0);
        bytes[10] = 0xff;
        assert_eq!(tensors(&bytes).unwrap_err(), "the header is not UTF-8");
    }
}
