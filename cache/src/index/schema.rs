//! The tables.

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifacts (
    digest BLOB PRIMARY KEY, bytes INTEGER NOT NULL, entries TEXT NOT NULL, checksum BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traces (
    key BLOB PRIMARY KEY, shape BLOB NOT NULL, record BLOB NOT NULL, manifest TEXT NOT NULL,
    checksum BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_by_shape ON traces (shape);
CREATE TABLE IF NOT EXISTS outputs (
    trace BLOB NOT NULL, name TEXT NOT NULL, artifact BLOB NOT NULL, count INTEGER NOT NULL, checksum BLOB,
    PRIMARY KEY (trace, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outputs_by_artifact ON outputs (artifact);
CREATE TABLE IF NOT EXISTS recipes (
    key BLOB PRIMARY KEY, recipe TEXT NOT NULL, checksum BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    recipe BLOB PRIMARY KEY, trace BLOB NOT NULL, checksum BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS results_by_trace ON results (trace);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, experiment TEXT NOT NULL, profile TEXT NOT NULL, plan BLOB NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER, outcome TEXT);
CREATE INDEX IF NOT EXISTS runs_by_experiment ON runs (experiment, profile);
CREATE TABLE IF NOT EXISTS history (
    experiment TEXT NOT NULL, stage TEXT NOT NULL, run INTEGER NOT NULL, recipe BLOB NOT NULL,
    checksum BLOB, PRIMARY KEY (experiment, stage, run)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS executions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, stage TEXT NOT NULL, recipe BLOB NOT NULL,
    trace BLOB NOT NULL, at_ms INTEGER NOT NULL, seconds REAL NOT NULL, outcome TEXT NOT NULL,
    message TEXT NOT NULL, log TEXT NOT NULL, checksum BLOB);
CREATE INDEX IF NOT EXISTS executions_by_recipe ON executions (recipe);
CREATE TABLE IF NOT EXISTS sources (
    path TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, bytes INTEGER NOT NULL,
    mtime_ns BLOB NOT NULL, ctime_ns BLOB NOT NULL, digest BLOB NOT NULL,
    checksum BLOB) WITHOUT ROWID;
";
