//! Reads every byte again and compares.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::index::Flaw;
use crate::key::Key;
use crate::manifest::Recipe;

/// What is wrong with a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Its file is gone.
    Missing,
    /// Its bytes are others than its name says.
    Changed,
    /// Something else stands in its place, or the system cannot read it; and what it says.
    Unreadable(String),
}

impl Damage {
    fn of(error: &CacheError) -> Self {
        match error {
            CacheError::Missing { .. } => Self::Missing,
            CacheError::Damaged { .. } => Self::Changed,
            CacheError::NotABlob { what, .. } => Self::Unreadable(format!("{what} stands in its place")),
            CacheError::Io { source, .. } => Self::Unreadable(source.to_string()),
            other => Self::Unreadable(other.to_string()),
        }
    }
}

/// A blob that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedBlob {
    /// Which.
    pub digest: Digest,
    /// How.
    pub damage: Damage,
    /// The work that it belongs to.
    pub makers: Vec<Key>,
}

/// The result of reading everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verification {
    /// Blobs and records of results that are as they should be.
    pub sound: u64,
    /// Damaged blobs.
    pub damaged: Vec<DamagedBlob>,
    /// Damaged records of results; they are written again from the index.
    pub records: Vec<(Digest, Damage, Key)>,
    /// Blobs that nothing names: left by a kill between keeping and recording. Harmless.
    pub unreferenced: u64,
    /// Damaged rows of the index.
    pub flaws: Vec<Flaw>,
    /// What SQLite says of the index.
    pub index: Vec<String>,
}

impl Verification {
    /// Returns whether all is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damage() == 0
    }

    /// Returns how much is damaged.
    pub fn damage(&self) -> usize {
        self.damaged.len() + self.records.len() + self.flaws.len() + self.index.len()
    }
}

impl Cache {
    /// Reads every blob and every row of the index, and asks SQLite about it. `progress` hears of
    /// (done, all) blobs.
    ///
    /// # Errors
    /// [`CacheError`] if the index cannot be read at all; damage is a result, not an error.
    pub fn verify(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Verification, CacheError> {
        let inspection = self.index().inspect()?;
        let mut verification = Verification { index: self.index().complaints()?, ..Verification::default() };
        verification.flaws = inspection.flaws;
        let mut makers: BTreeMap<Digest, Vec<Key>> = BTreeMap::new();
        for (key, _, manifest) in &inspection.works {
            for output in &manifest.outputs {
                makers.entry(output.artifact).or_default().push(*key);
            }
        }
        let mut owners: BTreeMap<Digest, BTreeSet<Key>> = BTreeMap::new();
        for artifact in &inspection.artifacts {
            let keys = makers.get(&artifact.digest()).map_or(&[][..], Vec::as_slice);
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
            match self.blobs().read_again(*digest) {
                Ok(_) => verification.sound += 1,
                Err(error) => verification.damaged.push(DamagedBlob {
                    digest: *digest,
                    damage: Damage::of(&error),
                    makers: keys.iter().copied().collect(),
                }),
            }
        }
        for (done, (key, record, _)) in inspection.works.iter().enumerate() {
            progress(owners.len() + done, count);
            match self.records().read_again(*record) {
                Ok(_) => verification.sound += 1,
                Err(error) => verification.records.push((*record, Damage::of(&error), *key)),
            }
        }
        Ok(verification)
    }

    /// Discards damaged blobs and damaged rows and forgets the work they belong to, so that the
    /// next run does that work again; and writes damaged records again.
    ///
    /// # Errors
    /// [`CacheError`] if something cannot be removed.
    pub fn repair(&self, verification: &Verification) -> Result<(), CacheError> {
        for damaged in &verification.damaged {
            self.invalidate(Some(damaged.digest), &damaged.makers)?;
        }
        self.index().mend(&verification.flaws)?;
        for (record, _, key) in &verification.records {
            self.records().discard(*record)?;
            self.write_record_again(*key)?;
        }
        Ok(())
    }

    /// Writes the record of a piece of work that the index still knows.
    fn write_record_again(&self, trace: Key) -> Result<(), CacheError> {
        let Some((skeleton, recipe)) = self.index().making_of(trace)? else {
            return Ok(());
        };
        let (Some(manifest), Some(document)) = (self.index().manifest(trace)?, self.index().recipe(recipe)?)
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
        self.commit(trace, skeleton, &manifest, &artifacts, (recipe, &document))
    }
}

/// Returns the digests of the files that recipes name.
fn sources_of(documents: &[String]) -> BTreeSet<Digest> {
    let mut digests = BTreeSet::new();
    for document in documents {
        if let Ok(recipe) = serde_json::from_str::<Recipe>(document) {
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
