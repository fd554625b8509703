//! What an artifact is: a folder of files, known by the digest of its listing.

use std::collections::BTreeSet;

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

/// A path in a listing that must not be written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {path:?} of a file in it {problem}")]
pub struct EntryPathError {
    /// The path.
    pub path: String,
    /// What is wrong with it, as a verb.
    pub problem: &'static str,
}

/// A folder of files, sorted by path. Empty folders are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    digest: Digest,
    entries: Vec<Entry>,
}

impl Artifact {
    /// Makes an artifact of its files, in whatever order they come. Their paths are not checked
    /// here; see [`Artifact::check_paths`].
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

    /// Makes sure that the files of a listing can be written below one folder and nowhere else.
    ///
    /// A listing that was read, from an index that may be corrupt or come from another user, is checked
    /// before it is used, and again before files are written by it.
    ///
    /// # Errors
    /// [`EntryPathError`] names the first path that is not relative, or has a part that is empty,
    /// `.` or `..`, or a NUL; or that is there twice, or is a folder of another.
    pub fn check_paths(&self) -> Result<(), EntryPathError> {
        let mut files = BTreeSet::new();
        for entry in &self.entries {
            let path = entry.path.as_str();
            let refuse = |problem| Err(EntryPathError { path: path.to_owned(), problem });
            if path.is_empty() {
                return refuse("is empty");
            }
            if path.starts_with('/') {
                return refuse("is not relative");
            }
            if path.contains('\0') {
                return refuse("holds a NUL");
            }
            if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return refuse("has a part that is empty, `.` or `..`");
            }
            if !files.insert(path) {
                return refuse("is there twice");
            }
        }
        for path in &files {
            for (at, _) in path.match_indices('/') {
                if files.contains(&path[..at]) {
                    let problem = "is both a file and a folder";
                    return Err(EntryPathError { path: path[..at].to_owned(), problem });
                }
            }
        }
        Ok(())
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

    #[test]
    fn paths_stay_below_their_folder() {
        let check = |paths: &[&str]| {
            Artifact::new(paths.iter().map(|path| entry(path, b"1")).collect()).check_paths()
        };
        assert_eq!(check(&["a", "b/c", "b/d/e", "..a", "a.", "b/..."]), Ok(()));
        for path in ["", "/a", "..", "../a", "a/..", "a/../b", ".", "./a", "a/./b", "a//b", "a/", "a\0b"] {
            assert_eq!(check(&["fine", path]).unwrap_err().path, path);
        }
        assert!(check(&["a", "a"]).is_err());
        // Something sorts between the two.
        assert_eq!(check(&["a", "a-b", "a/b"]).unwrap_err().path, "a");
        assert!(check(&["a/b", "a/b/c/d"]).is_err());
        assert_eq!(check(&["a/b", "a/bc/d"]), Ok(()));
    }
}
