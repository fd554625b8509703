//! What became of the rows and of a model's outputs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counts what became of the rows and the outputs of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct NegativesReport {
    /// How many rows there are.
    pub rows: u64,
    /// How many outputs there are.
    pub outputs: u64,
    /// How many outputs come after the first of their row, and are left out.
    pub further_outputs: u64,
    /// How many of the first outputs belong to none of the rows.
    pub outputs_without_row: u64,
    /// How many rows have no output.
    pub rows_without_output: u64,
    /// How many rows have an output that is empty, and are left out.
    pub empty: u64,
    /// How many rows have an output that is the target's text, and are left out.
    pub same_text: u64,
    /// How many rows have an output that is the target's molecule written otherwise, and are left
    /// out.
    pub same_molecule: u64,
    /// How many rows make a preference.
    pub taken: u64,
}
