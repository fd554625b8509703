//! A result by itself: all that the index says of it, in one line, kept beside the blobs.
//!
//! The index can be lost or corrupt; what work made and how it was made can then be read from
//! here. Records have a folder of their own, in which no stage can write, so that nothing that a
//! stage made is ever taken for a record.

use serde::{Deserialize, Serialize};

use crate::artifact::{Artifact, Entry};
use crate::blobs::Blobs;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::files::read_regular;
use crate::format::FOLDER_FORMAT;
use crate::index::Finished;
use crate::key::Key;
use crate::manifest::{Manifest, Recipe};

/// How every record begins.
const MAGIC: &str = "{\"pipeline\":\"result\",";

/// No record is larger: it would list millions of files.
const MAX_BYTES: u64 = 1 << 30;

/// What is written down of a piece of finished work. The order of the fields is that of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the line is: `result`.
    pipeline: String,
    format: u32,
    pub trace: Key,
    pub shape: Key,
    pub recipe_key: Key,
    pub recipe: Recipe,
    pub manifest: Manifest,
    artifacts: Vec<Vec<Entry>>,
}

impl Record {
    pub(crate) fn new(work: &Finished<'_>) -> Self {
        Self {
            pipeline: "result".to_owned(),
            format: FOLDER_FORMAT,
            trace: work.trace,
            shape: work.shape,
            recipe_key: work.recipe.0,
            recipe: work.recipe.1.clone(),
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

    /// Reads a record and checks it; the error says what is wrong with it.
    pub(crate) fn read(records: &Blobs, digest: Digest) -> Result<Self, String> {
        let line = read_regular(&records.path(digest), MAX_BYTES).map_err(|error| error.to_string())?;
        if Digest::of(&line) != digest {
            return Err("its bytes do not match its digest".to_owned());
        }
        if !line.starts_with(MAGIC.as_bytes()) {
            return Err("it is not the record of a result".to_owned());
        }
        let record: Self = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
        if record.format != FOLDER_FORMAT {
            return Err(format!("it has format {}, and this program writes {FOLDER_FORMAT}", record.format));
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
