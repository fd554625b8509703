//! The log of runs: which recipe each stage had in them, and each attempt at a stage.

use std::time::SystemTime;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::connection::Index;
use super::finished::put_recipe;
use super::lookups::parse;
use super::row;
use crate::error::CacheError;
use crate::key::Key;
use crate::manifest::Recipe;

/// How many changes of a stage are looked back at.
const MAX_CHANGES: usize = 50;

/// One attempt at a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The run it belongs to.
    pub run: i64,
    /// The stage's label in that run.
    pub stage: String,
    /// The recipe asked for.
    pub recipe: Key,
    /// The key of the work.
    pub trace: Key,
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long it took.
    pub seconds: f64,
    /// `done`, `failed`, `killed` or `interrupted`.
    pub outcome: String,
    /// What went wrong, if something did.
    pub message: String,
    /// Its log, relative to the cache's folder.
    pub log: String,
}

/// A stage as an earlier run of the same experiment saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// The run.
    pub run: i64,
    /// Its recipe's key.
    pub key: Key,
    /// Its recipe.
    pub recipe: Recipe,
}

impl Index {
    /// Begins a run: remembers which recipe each stage of the experiment has now, where that
    /// differs from the run before; `stages` is asked only if the plan is another one. Returns
    /// the run's number.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn begin_run(
        &self,
        experiment: &str,
        profile: &str,
        plan: Key,
        stages: &dyn Fn() -> Vec<(String, Key, Recipe)>,
    ) -> Result<i64, CacheError> {
        self.write(|connection| {
            let same: bool = connection
                .prepare_cached("SELECT plan = ?1 FROM runs WHERE experiment = ?2 ORDER BY id DESC LIMIT 1")?
                .query_row(params![plan, experiment], |row| row.get(0))
                .optional()?
                .unwrap_or(false);
            connection
                .prepare_cached(
                    "INSERT INTO runs (experiment, profile, plan, started_ms) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![experiment, profile, plan, now_ms()])?;
            let run = connection.last_insert_rowid();
            if !same {
                for (stage, key, recipe) in stages() {
                    put_recipe(connection, (key, &recipe))?;
                    let last = recipe_before(connection, experiment, &stage)?;
                    if last != Some(key) {
                        let values = [
                            row::text(experiment),
                            row::text(&stage),
                            ValueRef::Integer(run),
                            row::key(&key),
                        ];
                        row::HISTORY.put(connection, &values)?;
                    }
                }
            }
            Ok(run)
        })
    }

    /// Ends a run with one word for how it went.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn end_run(&self, run: i64, outcome: &str) -> Result<(), CacheError> {
        self.write(|connection| {
            connection
                .prepare_cached("UPDATE runs SET ended_ms = ?, outcome = ? WHERE id = ?")?
                .execute(params![now_ms(), outcome, run])?;
            Ok(())
        })
    }

    /// Records an attempt at a stage.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn record(&self, execution: &Execution) -> Result<(), CacheError> {
        self.write(|connection| {
            let values = [
                ValueRef::Integer(execution.run),
                row::text(&execution.stage),
                row::key(&execution.recipe),
                row::key(&execution.trace),
                row::number(execution.at_ms),
                ValueRef::Real(execution.seconds),
                row::text(&execution.outcome),
                row::text(&execution.message),
                row::text(&execution.log),
            ];
            row::EXECUTIONS.put(connection, &values)
        })
    }

    /// Returns the last attempt at a recipe. An attempt whose record is corrupt is passed over.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn last_execution(&self, recipe: Key) -> Result<Option<Execution>, CacheError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT run, stage, recipe, trace, at_ms, seconds, outcome, message, log, checksum \
                 FROM executions WHERE recipe = ? ORDER BY id DESC",
            )?;
            let mut rows = statement.query([recipe])?;
            while let Some(row) = rows.next()? {
                if row::EXECUTIONS.is_intact(row, 0)? {
                    return Ok(Some(Execution {
                        run: row.get(0)?,
                        stage: row.get(1)?,
                        recipe: row.get(2)?,
                        trace: row.get(3)?,
                        at_ms: row.get(4)?,
                        seconds: row.get(5)?,
                        outcome: row.get(6)?,
                        message: row.get(7)?,
                        log: row.get(8)?,
                    }));
                }
            }
            Ok(None)
        })
    }

    /// Returns whether a run of an experiment is remembered.
    ///
    /// # Errors
    /// [`CacheError::Index`].
    pub fn has_history(&self, experiment: &str) -> Result<bool, CacheError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM history WHERE experiment = ?)")?;
            statement.query_row([experiment], |row| row.get(0))
        })
    }

    /// Returns the recipes that a stage had in earlier runs of an experiment, newest first. What
    /// is corrupt is left out.
    ///
    /// # Errors
    /// [`CacheError::Index`], or [`CacheError::Row`] if an entry is unreadable.
    pub fn history(&self, experiment: &str, stage: &str) -> Result<Vec<HistoryEntry>, CacheError> {
        let changes: Vec<(i64, Key, String)> = self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT h.experiment, h.stage, h.run, h.recipe, h.checksum, r.key, r.recipe, r.checksum \
                 FROM history h JOIN recipes r ON r.key = h.recipe \
                 WHERE h.experiment = ? AND h.stage = ? ORDER BY h.run DESC",
            )?;
            let mut rows = statement.query([experiment, stage])?;
            let mut changes = Vec::new();
            while let Some(row) = rows.next()?
                && changes.len() < MAX_CHANGES
            {
                if row::HISTORY.is_intact(row, 0)? && row::RECIPES.is_intact(row, 5)? {
                    changes.push((row.get(2)?, row.get(3)?, row.get(6)?));
                }
            }
            Ok(changes)
        })?;
        changes
            .into_iter()
            .map(|(run, key, text)| Ok(HistoryEntry { run, key, recipe: parse(key, &text)? }))
            .collect()
    }
}

/// Returns what a stage was in the last run that knew it.
fn recipe_before(connection: &Connection, experiment: &str, stage: &str) -> rusqlite::Result<Option<Key>> {
    let mut statement = connection.prepare_cached(
        "SELECT experiment, stage, run, recipe, checksum FROM history \
         WHERE experiment = ? AND stage = ? ORDER BY run DESC LIMIT 1",
    )?;
    let mut rows = statement.query([experiment, stage])?;
    match rows.next()? {
        Some(row) if row::HISTORY.is_intact(row, 0)? => Ok(Some(row.get(3)?)),
        _ => Ok(None),
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}
