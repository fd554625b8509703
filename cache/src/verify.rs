//! Reads every byte again and compares it with its digest.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::index::Flaw;
use crate::key::Key;
use crate::manifest::Recipe;

/// What is wrong with a blob or a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// Its file is gone.
    Missing,
    /// Its bytes do not match its digest.
    Changed,
    /// Something other than a file is there, or the system cannot read it. Says what.
    Unreadable(String),
}

impl Corruption {
    fn of(error: &CacheError) -> Self {
        match error {
            CacheError::Missing { .. } => Self::Missing,
            CacheError::Corrupt { .. } => Self::Changed,
            CacheError::NotABlob { what, .. } => Self::Unreadable(format!("{what} is in its place")),
            CacheError::Io { source, .. } => Self::Unreadable(source.to_string()),
            other => Self::Unreadable(other.to_string()),
        }
    }
}

/// A blob that is missing or corrupt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorruptBlob {
    /// Its digest.
    pub digest: Digest,
    /// What is wrong with it.
    pub corruption: Corruption,
    /// The work that made it.
    pub producers: Vec<Key>,
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verification {
    /// How many blobs and records of results are intact.
    pub intact: u64,
    /// corrupt blobs.
    pub corrupt: Vec<CorruptBlob>,
    /// corrupt records of results; they are written again from the index.
    pub corrupt_records: Vec<(Digest, Corruption, Key)>,
    /// Blobs that are not referenced, left by a kill between keeping and recording. Harmless.
    pub unreferenced: u64,
    /// corrupt rows of the index.
    pub flaws: Vec<Flaw>,
    /// Errors of SQLite's integrity check.
    pub sqlite_errors: Vec<String>,
}

impl Verification {
    /// Returns whether nothing is corrupt.
    pub fn is_intact(&self) -> bool {
        self.corruptions() == 0
    }

    /// Returns how many things are corrupt.
    pub fn corruptions(&self) -> usize {
        self.corrupt.len() + self.corrupt_records.len() + self.flaws.len() + self.sqlite_errors.len()
    }
}

impl Cache {
    /// Reads every blob and every row of the index, and runs SQLite's integrity check. Every
    /// byte is read, also of blobs that this process has checked before. `progress` is called with
    /// the numbers of blobs that are done and of all.
    ///
    /// # Errors
    /// [`CacheError`] if the index cannot be read at all; corruption is a result, not an error.
    pub fn verify(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Verification, CacheError> {
        let inspection = self.index().inspect()?;
        let mut verification =
            Verification { sqlite_errors: self.index().integrity_errors()?, ..Verification::default() };
        verification.flaws = inspection.flaws;
        let mut producers: BTreeMap<Digest, Vec<Key>> = BTreeMap::new();
        for (key, _, manifest) in &inspection.works {
            for output in &manifest.outputs {
                producers.entry(output.artifact).or_default().push(*key);
            }
        }
        let mut owners: BTreeMap<Digest, BTreeSet<Key>> = BTreeMap::new();
        for artifact in &inspection.artifacts {
            let keys = producers.get(&artifact.digest()).map_or(&[][..], Vec::as_slice);
            for entry in artifact.entries() {
                owners.entry(entry.digest).or_default().extend(keys);
            }
        }
        // Recipes name a folder by the digest of its listing.
        let mut sources = sources_of(&inspection.recipes);
        for folder in sources.clone() {
            if let Some(listing) = self.index().artifact(folder)? {
                sources.extend(listing.entries().iter().map(|entry| entry.digest));
            }
        }
        sources.extend(inspection.sources);
        let all: BTreeSet<Digest> = self.blobs().all()?.into_iter().collect();
        for digest in &all {
            if owners.contains_key(digest) {
                continue;
            }
            // A source that was taken in is read for its own sake: it may not be there any more.
            if sources.contains(digest) {
                owners.insert(*digest, BTreeSet::new());
            } else {
                verification.unreferenced += 1;
            }
        }
        let count = owners.len() + inspection.works.len();
        for (done, (digest, keys)) in owners.iter().enumerate() {
            progress(done, count);
            match self.blobs().rehash(*digest) {
                Ok(_) => verification.intact += 1,
                Err(error) => verification.corrupt.push(CorruptBlob {
                    digest: *digest,
                    corruption: Corruption::of(&error),
                    producers: keys.iter().copied().collect(),
                }),
            }
        }
        for (done, (key, record, _)) in inspection.works.iter().enumerate() {
            progress(owners.len() + done, count);
            match self.records().rehash(*record) {
                Ok(_) => verification.intact += 1,
                Err(error) => verification.corrupt_records.push((*record, Corruption::of(&error), *key)),
            }
        }
        Ok(verification)
    }

    /// Discards corrupt blobs and corrupt rows and forgets the work they belong to, so that the
    /// next run does that work again; and writes corrupt records again.
    ///
    /// # Errors
    /// [`CacheError`] if something cannot be removed.
    pub fn repair(&self, verification: &Verification) -> Result<(), CacheError> {
        for blob in &verification.corrupt {
            self.invalidate(Some(blob.digest), &blob.producers)?;
        }
        self.index().repair(&verification.flaws)?;
        for (record, _, key) in &verification.corrupt_records {
            self.records().discard(*record)?;
            self.write_record_again(*key)?;
        }
        Ok(())
    }

    /// Writes the record of a piece of work that the index still knows.
    fn write_record_again(&self, trace: Key) -> Result<(), CacheError> {
        let Some((shape, recipe_key)) = self.index().making_of(trace)? else {
            return Ok(());
        };
        let (Some(manifest), Some(recipe)) =
            (self.index().manifest(trace)?, self.index().recipe(recipe_key)?)
        else {
            return self.index().forget(trace);
        };
        let mut artifacts = Vec::new();
        for output in &manifest.outputs {
            match self.index().artifact(output.artifact)? {
                Some(artifact) => artifacts.push(artifact),
                None => return Ok(()),
            }
        }
        self.commit(trace, shape, &manifest, &artifacts, (recipe_key, &recipe))
    }
}

/// Returns the digests of the files that recipes name.
fn sources_of(recipes: &[String]) -> BTreeSet<Digest> {
    let mut digests = BTreeSet::new();
    for recipe in recipes {
        if let Ok(recipe) = serde_json::from_str::<Recipe>(recipe) {
            collect_digests(&recipe.params, &mut digests);
        }
    }
    digests
}

fn collect_digests(value: &serde_json::Value, digests: &mut BTreeSet<Digest>) {
    match value {
        serde_json::Value::String(text) => {
            digests.extend(text.strip_prefix("blake3:").and_then(|digits| digits.parse::<Digest>().ok()));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_digests(value, digests)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|value| collect_digests(value, digests));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::files::Fingerprint;

    #[test]
    fn verification_trusts_no_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let file = folder.path().join("source");
        fs::write(&file, "content").unwrap();
        let (digest, _) = cache.blobs().insert_copy(&file).unwrap();
        cache.index().remember(&file, &Fingerprint::of(&fs::metadata(&file).unwrap()), digest).unwrap();
        assert_eq!(cache.verify(&mut |_, _| {}).unwrap().intact, 1);

        // The fingerprint of the corrupt blob is the one that is remembered as checked, as after a
        // disk error, which changes no time stamp.
        let path = cache.blobs().path(digest);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "cOntent").unwrap();
        cache.blobs().mark_checked(digest, Fingerprint::of(&fs::metadata(&path).unwrap()));
        assert!(cache.blobs().checked(digest).is_ok());
        let verification = cache.verify(&mut |_, _| {}).unwrap();
        assert_eq!((verification.intact, verification.corrupt.len()), (0, 1));
        assert_eq!(verification.corrupt[0].corruption, Corruption::Changed);
    }
}
