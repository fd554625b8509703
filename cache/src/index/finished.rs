//! Recording finished work.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::connection::Index;
use super::listings::put_listing;
use super::lookups::record_in;
use super::{open, row};
use crate::artifact::Artifact;
use crate::digest::Digest;
use crate::error::CacheError;
use crate::key::Key;
use crate::manifest::{Manifest, Recipe};

/// Finished work that is to be recorded.
pub(crate) struct Finished<'a> {
    pub trace: Key,
    pub shape: Key,
    pub manifest: &'a Manifest,
    pub artifacts: &'a [Artifact],
    pub recipe: (Key, &'a Recipe),
}

/// Adds a piece of work and its record to an index that is being made.
type Add<'a> = dyn FnMut(&Finished<'_>, Digest) -> rusqlite::Result<()> + 'a;

impl Index {
    /// Records finished work: artifacts, trace and recipe in one transaction. Returns the record
    /// that the new one replaces.
    pub(crate) fn commit(&self, work: &Finished<'_>, record: Digest) -> Result<Option<Digest>, CacheError> {
        self.write(|connection| commit_in(connection, work, record))
    }

    /// Records that a recipe gives work that is there already.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn alias(&self, recipe: (Key, &Recipe), trace: Key) -> Result<(), CacheError> {
        self.write(|connection| {
            put_recipe(connection, recipe)?;
            row::RESULTS.put(connection, &[row::key(&recipe.0), row::key(&trace)])
        })
    }

    /// Makes a new index at a path, with all work that `fill` adds to it.
    pub(crate) fn make(
        path: &Path,
        fill: &mut dyn FnMut(&mut Add<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), CacheError> {
        let mut make = || {
            let connection = open::for_building(path)?;
            let transaction = connection.unchecked_transaction()?;
            fill(&mut |work, record| commit_in(&transaction, work, record).map(|_| ()))?;
            transaction.commit()
        };
        make().map_err(|source| CacheError::Index { path: path.to_owned(), source })
    }
}

fn commit_in(
    connection: &Connection,
    work: &Finished<'_>,
    record: Digest,
) -> rusqlite::Result<Option<Digest>> {
    let Finished { trace, shape, manifest, artifacts, recipe } = work;
    let before = record_in(connection, *trace)?.filter(|before| *before != record);
    for artifact in *artifacts {
        put_listing(connection, artifact)?;
    }
    let text = serde_json::to_string(manifest).expect("a manifest is plain data");
    let values = [row::key(trace), row::key(shape), row::digest(&record), row::text(&text)];
    row::TRACES.put(connection, &values)?;
    connection.prepare_cached("DELETE FROM outputs WHERE trace = ?")?.execute([trace])?;
    let count = ValueRef::Integer(manifest.outputs.len() as i64);
    for output in &manifest.outputs {
        let values = [row::key(trace), row::text(&output.name), row::digest(&output.artifact), count];
        row::OUTPUTS.put(connection, &values)?;
    }
    put_recipe(connection, *recipe)?;
    row::RESULTS.put(connection, &[row::key(&recipe.0), row::key(trace)])?;
    Ok(before)
}

/// Records a recipe, unless an intact entry is there already.
pub(super) fn put_recipe(connection: &Connection, recipe: (Key, &Recipe)) -> rusqlite::Result<()> {
    let text = serde_json::to_string(recipe.1).expect("a recipe is plain data");
    let is_intact: Option<bool> = connection
        .prepare_cached("SELECT key, recipe, checksum FROM recipes WHERE key = ?")?
        .query_row(params![recipe.0], |row| row::RECIPES.is_intact(row, 0))
        .optional()?;
    if is_intact == Some(true) {
        return Ok(());
    }
    row::RECIPES.put(connection, &[row::key(&recipe.0), row::text(&text)])
}
