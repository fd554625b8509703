//! The files that a stage reads, fixed as they were when the stage was keyed.
//!
//! A stage may begin hours after its key was made, and people edit files meanwhile. So when a run
//! begins, the files of all stages that it will make are taken into the cache as blobs, and stages
//! read those: an edit reaches the next run, and never a result of this one. What is too large to
//! be copied (models) is read in place, and compared with what it was when it was keyed
//! before the stage begins and again before its result is recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cache::{Artifact, Cache, CacheError, Entry, SourceFile, SourceState, Value};

use crate::kind::input_file::{SourceFiles, materialized_path};
use crate::process::cancel::while_nothing_starts;

/// A file or folder up to this size is taken into the cache. Copying so much takes a tenth of a
/// second, and it is kept only once, however many stages read it.
const TAKEN_UP_TO_BYTES: u64 = 64 << 20;
/// And a folder of up to so many files: each is a file in the cache, and a link for each stage.
const TAKEN_UP_TO_FILES: usize = 1000;

/// The files that one stage reads, by the path that its parameters have.
#[derive(Debug, Clone, Default)]
pub(crate) struct FixedFiles(BTreeMap<String, SourceState>);

/// Why a stage cannot have its files as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FixError {
    /// A file is not what it was when it was keyed.
    #[error("{} changed while the run went on", .0.display())]
    Changed(PathBuf),
    /// The cache could not insert or materialize it.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl FixedFiles {
    /// Collects the files that the parameters of some stages name, each once.
    pub(crate) fn of<'a>(params: impl IntoIterator<Item = &'a Value>, files: &SourceFiles) -> Self {
        let mut fixed = BTreeMap::new();
        for params in params {
            collect(params, &mut |path| {
                if let (false, Some(state)) = (fixed.contains_key(path), files.0.get(Path::new(path))) {
                    fixed.insert(path.to_owned(), state.clone());
                }
            });
        }
        Self(fixed)
    }

    /// Returns whether some are read in place.
    pub(crate) fn are_in_place(&self) -> bool {
        self.0.values().any(|state| !is_taken(state))
    }

    /// Takes into the cache what is small enough.
    ///
    /// # Errors
    /// [`FixError`].
    pub(crate) fn take_in(&self, cache: &Cache) -> Result<(), FixError> {
        for (path, state) in self.0.iter().filter(|(_, state)| is_taken(state)) {
            take(cache, path, state)?;
            if state.is_folder {
                let (_, artifact) = listing(state, Path::new(""), "");
                cache.index().keep_listing(&artifact)?;
            }
        }
        Ok(())
    }

    /// Fails if something that is read in place is not what it was when it was keyed.
    ///
    /// # Errors
    /// [`FixError`].
    pub(crate) fn compare_in_place(&self) -> Result<(), FixError> {
        for (path, state) in self.0.iter().filter(|(_, state)| !is_taken(state)) {
            // What cannot be looked at any more has changed, too.
            if !state.is_unchanged(Path::new(path)).unwrap_or(false) {
                return Err(FixError::Changed(PathBuf::from(path)));
            }
        }
        Ok(())
    }

    /// Materializes the files below `folder`, each in a folder of its own so that it keeps its name, and
    /// returns the parameters as a job has them. What is read in place stays there.
    ///
    /// # Errors
    /// [`FixError`].
    pub(crate) fn materialize(
        &self,
        params: &Value,
        cache: &Cache,
        folder: &Path,
        copies: bool,
    ) -> Result<serde_json::Value, FixError> {
        let mut places: BTreeMap<&str, String> = BTreeMap::new();
        for (number, (path, state)) in self.0.iter().enumerate() {
            let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or("file");
            let own = folder.join(number.to_string());
            let place = if is_taken(state) {
                own.join(name)
            } else {
                std::path::absolute(path).map_err(|_| FixError::Changed(PathBuf::from(path)))?
            };
            places.insert(path, place.to_string_lossy().into_owned());
            if !is_taken(state) {
                continue;
            }
            let (below, artifact) = listing(state, &own, name);
            // If the copy in the cache is corrupt, the original may still be as it was.
            take(cache, path, state)?;
            materialize_artifact(cache, &artifact, &below, copies)?;
        }
        let mut params = params.clone();
        let replaced = params.resolve_paths::<FixError>(&mut |_, path, _| {
            let place = places.get(path).ok_or_else(|| FixError::Changed(PathBuf::from(path)))?;
            Ok(materialized_path(place, path))
        });
        replaced?;
        Ok(serde_json::to_value(&params).expect("parameters are plain data"))
    }
}

/// Materializes an artifact's files; executable ones are copies that can be executed at once.
pub(crate) fn materialize_artifact(
    cache: &Cache,
    artifact: &Artifact,
    folder: &Path,
    copies: bool,
) -> Result<(), CacheError> {
    if artifact.entries().iter().any(|entry| entry.executable) {
        while_nothing_starts(|| cache.blobs().materialize(artifact, folder, copies))
    } else {
        cache.blobs().materialize(artifact, folder, copies)
    }
}

/// Takes in what of a file or folder is not in the cache, intact, already.
fn take(cache: &Cache, path: &str, state: &SourceState) -> Result<(), FixError> {
    let changed = || FixError::Changed(PathBuf::from(path));
    for file in &state.files {
        cache.blobs().insert_source(file).map_err(|error| match error {
            CacheError::Unstable { .. } | CacheError::UnsupportedFile { .. } => changed(),
            CacheError::Io { source, path, .. }
                if path == file.path && source.kind() == std::io::ErrorKind::NotFound =>
            {
                changed()
            }
            other => other.into(),
        })?;
    }
    Ok(())
}

/// Returns whether something is small enough to be taken into the cache.
fn is_taken(state: &SourceState) -> bool {
    let bytes = state.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
    bytes <= TAKEN_UP_TO_BYTES && state.files.len() <= TAKEN_UP_TO_FILES
}

/// Returns where a source's files go, and as what.
fn listing(state: &SourceState, own: &Path, name: &str) -> (PathBuf, Artifact) {
    let entry = |file: &SourceFile, path: &str| Entry {
        path: path.to_owned(),
        digest: file.digest,
        bytes: file.bytes,
        executable: file.executable,
    };
    if state.is_folder {
        let entries = state.files.iter().map(|file| entry(file, &file.inside));
        (own.join(name), Artifact::new(entries.collect()))
    } else {
        (own.to_owned(), Artifact::new(state.files.iter().map(|file| entry(file, name)).collect()))
    }
}

/// Hands every path in some parameters to `visit`.
fn collect(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::Path(path) | Value::NamedPath(path) => visit(path),
        Value::List(items) => items.iter().for_each(|item| collect(item, visit)),
        Value::Map(entries) => entries.values().for_each(|item| collect(item, visit)),
        _ => {}
    }
}
