//! What a reader is asked to do with the columns of a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Says which columns become which fields, and what is done to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// Our field's name to the file's column. Empty takes every column under its own name.
    ///
    /// `id` comes from its column here, else from a column named `id`, else it is the number
    /// of the data row, counted from 1 over kept and skipped rows alike.
    pub columns: BTreeMap<String, String>,
    /// Field to separator: turns a text into an array of texts, leaving out empty pieces.
    pub split: BTreeMap<String, String>,
    /// Fields in which a doubled backslash stands for one.
    pub collapse_backslashes: BTreeSet<String>,
    /// What to do with a row that cannot be read.
    pub on_bad_row: OnBadRow,
}

/// Says what to do with a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// Leaves the row out, and counts it in the report.
    #[default]
    Skip,
    /// Stops with an error.
    Fail,
}
