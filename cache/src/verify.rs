//! Reads every byte again and compares.

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::digest::{Digest, Key};
use crate::error::CacheError;

/// What is wrong with a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Its file is gone.
    Missing,
    /// Its bytes are others than its name says.
    Changed,
}

/// The result of reading everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blobs that are as they should be.
    pub sound: u64,
    /// Damaged blobs: which, how, and the work that they belong to.
    pub damaged: Vec<(Digest, Damage, Vec<Key>)>,
    /// Blobs that no artifact names: left by a kill between keeping and recording. Harmless.
    pub unreferenced: u64,
    /// What SQLite says of the index.
    pub index: Vec<String>,
}

impl Verification {
    /// Returns whether all is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.index.is_empty()
    }
}

impl Cache {
    /// Reads every blob and asks SQLite about the index. `progress` hears of (done, all) blobs.
    ///
    /// # Errors
    /// [`CacheError`] if something cannot be read at all; damage is a result, not an error.
    pub fn verify(&self, progress: &mut dyn FnMut(usize, usize)) -> Result<Verification, CacheError> {
        let mut verification = Verification { index: self.index().complaints()?, ..Verification::default() };
        let mut owners: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for digest in self.index().artifacts()? {
            // What only forgotten work made is nobody's any more, and missing to nobody.
            if self.index().makers(digest)?.is_empty() {
                continue;
            }
            let artifact = self.index().artifact(digest)?.expect("listed a moment ago");
            for entry in artifact.entries() {
                owners.entry(entry.digest).or_default().push(digest);
            }
        }
        let all = self.blobs().all()?;
        verification.unreferenced = all.iter().filter(|digest| !owners.contains_key(*digest)).count() as u64;
        for (done, (digest, artifacts)) in owners.iter().enumerate() {
            progress(done, owners.len());
            let damage = match self.blobs().checked(*digest) {
                Ok(_) => {
                    verification.sound += 1;
                    continue;
                }
                Err(CacheError::Missing { .. }) => Damage::Missing,
                Err(CacheError::Damaged { .. }) => Damage::Changed,
                Err(other) => return Err(other),
            };
            let mut makers = Vec::new();
            for artifact in artifacts {
                makers.extend(self.index().makers(*artifact)?);
            }
            verification.damaged.push((*digest, damage, makers));
        }
        Ok(verification)
    }

    /// Discards damaged blobs and forgets the work they belong to, so that the next run does
    /// that work again.
    ///
    /// # Errors
    /// [`CacheError`] if something cannot be removed.
    pub fn repair(&self, verification: &Verification) -> Result<(), CacheError> {
        for (digest, _, makers) in &verification.damaged {
            self.blobs().discard(*digest)?;
            for maker in makers {
                self.index().forget(*maker)?;
            }
        }
        Ok(())
    }
}
