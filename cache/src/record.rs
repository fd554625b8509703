//! A result by itself: all that the index says of it, in one line, kept beside the blobs.
//!
//! The index can be lost or damaged; what work made and how it was made can then be read from
//! here. Records have a folder of their own, in which no stage can write, so that nothing that a
//! stage made is ever taken for a record.

use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, Entry};
use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::read_regular;
use crate::format::FORMAT;
use crate::index::Finished;
use crate::key::Key;
use crate::manifest::{Manifest, Recipe};

/// How every record begins.
const MAGIC: &str = "{\"pipeline\":\"result\",";

/// No record is larger: it would list millions of files.
const MOST_BYTES: u64 = 1 << 30;

/// What is written down of a piece of finished work. The order of the fields is that of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the line is: `result`.
    pipeline: String,
    format: u32,
    pub trace: Key,
    pub skeleton: Key,
    pub recipe: Key,
    pub document: Recipe,
    pub manifest: Manifest,
    artifacts: Vec<Vec<Entry>>,
}

impl Record {
    pub(crate) fn new(work: &Finished<'_>) -> Self {
        Self {
            pipeline: "result".to_owned(),
            format: FORMAT,
            trace: work.trace,
            skeleton: work.skeleton,
            recipe: work.recipe.0,
            document: work.recipe.1.clone(),
            manifest: work.manifest.clone(),
            artifacts: work.artifacts.iter().map(|artifact| artifact.entries().to_vec()).collect(),
        }
    }

    /// Keeps the record under its digest.
    pub(crate) fn keep(&self, records: &Blobs) -> Result<Digest, CacheError> {
        let mut line = serde_json::to_vec(self).expect("a record is plain data");
        line.push(b'\n');
        debug_assert!(line.starts_with(MAGIC.as_bytes()));
        records.put(&line)
    }

    /// Reads a record; says what is wrong with one that cannot be believed.
    pub(crate) fn read(records: &Blobs, digest: Digest) -> Result<Self, String> {
        let line = read_regular(&records.path(digest), MOST_BYTES).map_err(|error| error.to_string())?;
        if Digest::of(&line) != digest {
            return Err("its bytes are not those that its name promises".to_owned());
        }
        if !line.starts_with(MAGIC.as_bytes()) {
            return Err("it is no record of a result".to_owned());
        }
        let record: Self = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("it has format {}, and this program writes {FORMAT}", record.format));
        }
        let artifacts = record.artifacts();
        for artifact in &artifacts {
            artifact.check_paths().map_err(|error| error.to_string())?;
        }
        let is_listed = |digest: Digest| artifacts.iter().any(|artifact| artifact.digest() == digest);
        if !record.manifest.outputs.iter().all(|output| is_listed(output.artifact)) {
            return Err("it lacks the files of an output".to_owned());
        }
        Ok(record)
    }

    /// Returns what the work made.
    pub(crate) fn artifacts(&self) -> Vec<Artifact> {
        self.artifacts.iter().cloned().map(Artifact::new).collect()
    }
}
