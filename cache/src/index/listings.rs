//! The files of artifacts.

use rusqlite::Connection;

use super::connection::Index;
use super::removal::CorruptEntry;
use super::row::{self, CHECKSUM};
use crate::artifact::{Artifact, Entry};
use crate::digest::Digest;
use crate::error::CacheError;

impl Index {
    /// Returns the files of an artifact. A corrupt listing counts as absent, and what made the
    /// artifact as not done; see [`Index::take_corruption_messages`].
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn artifact(&self, digest: Digest) -> Result<Option<Artifact>, CacheError> {
        match self.read(|connection| artifact_in(connection, digest))? {
            Listing::Absent => Ok(None),
            Listing::Intact(artifact) => Ok(Some(artifact)),
            Listing::Corrupt(_) => {
                self.invalidate(vec![CorruptEntry::Artifact(digest)])?;
                Ok(None)
            }
        }
    }

    /// Records which files a source folder has whose copies were taken in: keys name it by the digest
    /// of this listing.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn keep_listing(&self, folder: &Artifact) -> Result<(), CacheError> {
        if self.artifact(folder.digest())?.is_some() {
            return Ok(());
        }
        self.write(|connection| put_listing(connection, folder))
    }

    /// Lists the digests of all artifacts.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn artifacts(&self) -> Result<Vec<Digest>, CacheError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT digest FROM artifacts ORDER BY digest")?;
            // What is no digest is no artifact that anything could name.
            let digests = statement.query_map([], |row| Ok(row.get(0).ok()))?;
            Ok(digests.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
    }
}

/// What there is of an artifact's listing.
pub(super) enum Listing {
    Absent,
    Intact(Artifact),
    Corrupt(String),
}

pub(super) fn artifact_in(connection: &Connection, digest: Digest) -> rusqlite::Result<Listing> {
    let mut statement = connection
        .prepare_cached("SELECT digest, bytes, entries, checksum FROM artifacts WHERE digest = ?")?;
    let mut rows = statement.query([digest])?;
    let Some(row) = rows.next()? else {
        return Ok(Listing::Absent);
    };
    if !row::ARTIFACTS.is_intact(row, 0)? {
        return Ok(Listing::Corrupt(CHECKSUM.to_owned()));
    }
    let text: String = row.get(2)?;
    let entries = match serde_json::from_str::<Vec<Entry>>(&text) {
        Ok(entries) => entries,
        Err(error) => return Ok(Listing::Corrupt(error.to_string())),
    };
    let artifact = Artifact::new(entries);
    if artifact.digest() != digest {
        return Ok(Listing::Corrupt("its digest does not match its files".to_owned()));
    }
    Ok(match artifact.check_paths() {
        Ok(()) => Listing::Intact(artifact),
        Err(error) => Listing::Corrupt(error.to_string()),
    })
}

pub(super) fn put_listing(connection: &Connection, artifact: &Artifact) -> rusqlite::Result<()> {
    let entries = serde_json::to_string(artifact.entries()).expect("entries are plain data");
    let (digest, bytes) = (artifact.digest(), row::number(artifact.bytes()));
    row::ARTIFACTS.put(connection, &[row::digest(&digest), bytes, row::text(&entries)])
}
