//! A number of an output that a table can show: its name, how it is shown, and what it is a number of.

use serde::{Deserialize, Serialize};

/// A number that a table can take from an output's `metrics.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    /// Its name in `metrics.json` and in experiment files.
    pub name: String,
    /// The heading of its column.
    pub label: String,
    /// The number of decimals; without it the numbers of the column decide.
    pub digits: Option<u8>,
    /// Which way is better, where that is known.
    pub better: Option<Better>,
    /// Whether a table that names no columns shows it. Counts and deviations are shown by name only.
    pub is_default: bool,
    /// What it was computed by, where stages of one kind can differ in that.
    pub definition: Option<Definition>,
}

impl OutputColumn {
    /// Makes a column of which no more is known than its name.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { label: name.clone(), name, digits: None, better: None, is_default: true, definition: None }
    }

    /// Makes a column that a table shows only if it names it.
    pub fn by_name_only(name: impl Into<String>) -> Self {
        Self { is_default: false, ..Self::new(name) }
    }
}

/// Says which way a metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Marks a score.
    Higher,
    /// Marks a loss or a distance.
    Lower,
}

/// What the numbers of a column were computed by. Numbers with different definitions are not
/// compared in silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What belongs to it, each in a few words, such as `word pieces of vocab.txt`; none where all is
    /// as usual.
    pub parts: Vec<String>,
    /// The parameters with files that belong to it, as dotted paths: two files of one name are two
    /// definitions.
    pub files: Vec<String>,
}
