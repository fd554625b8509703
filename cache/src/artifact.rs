//! What an artifact is: a folder of files, known by the digest of its listing.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::encode::Value;

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Path inside the artifact, with `/` between folders.
    pub path: String,
    /// The file's content.
    pub digest: Digest,
    /// The file's size.
    pub bytes: u64,
    /// Whether the owner may execute it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A folder of files, sorted by path. Empty folders are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    digest: Digest,
    entries: Vec<Entry>,
}

impl Artifact {
    /// Makes an artifact of its files, in whatever order they come.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort();
        let listing = Value::List(
            entries
                .iter()
                .map(|entry| {
                    Value::List(vec![
                        Value::Text(entry.path.clone()),
                        Value::Digest(entry.digest),
                        Value::Bool(entry.executable),
                    ])
                })
                .collect(),
        );
        let mut hasher = blake3::Hasher::new_derive_key("pipeline artifact 1");
        listing
            .encode(&mut |bytes| {
                hasher.update(bytes);
            })
            .expect("a listing holds no path values");
        Self { digest: Digest::from_bytes(*hasher.finalize().as_bytes()), entries }
    }

    /// Returns the digest of the listing: equal digests, equal folders.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the files, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the file at a path inside the artifact.
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        let position = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.entries.get(position)
    }

    /// Returns the size of all files together.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &[u8]) -> Entry {
        Entry {
            path: path.to_owned(),
            digest: Digest::of(content),
            bytes: content.len() as u64,
            executable: false,
        }
    }

    #[test]
    fn the_order_of_files_does_not_matter_and_their_names_do() {
        let ab = Artifact::new(vec![entry("a", b"1"), entry("b", b"2")]);
        let ba = Artifact::new(vec![entry("b", b"2"), entry("a", b"1")]);
        let swapped = Artifact::new(vec![entry("a", b"2"), entry("b", b"1")]);
        assert_eq!(ab, ba);
        assert_ne!(ab.digest(), swapped.digest());
        assert_eq!(ab.entry("b").map(|entry| entry.bytes), Some(1));
        assert_eq!(ab.entry("c"), None);
    }
}
