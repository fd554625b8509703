//! A finished table as plain values: what was made, what was published, and where each number came from.
//!
//! Numbers are kept at full precision; the renderings round them, once.

use serde::Serialize;

/// Holds a finished table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Names the table, where an experiment has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Is the heading.
    pub title: String,
    /// Lists the columns, one metric each.
    pub columns: Vec<Column>,
    /// Lists the rows in the order in which they are shown.
    pub rows: Vec<Row>,
    /// Lists the differences between rows, shown below them.
    pub deltas: Vec<Delta>,
    /// Lists remarks shown at the end.
    pub notes: Vec<String>,
}

/// Describes one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Is the metric's name, for machines.
    pub name: String,
    /// Is the heading, for people.
    pub label: String,
    /// Is the number of decimals shown; without it the numbers of the column decide.
    pub digits: Option<u8>,
    /// Says which way is better, where that is known.
    pub better: Option<Better>,
}

/// Says which way a metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Marks a score.
    Higher,
    /// Marks a loss or a distance.
    Lower,
}

/// Holds one row; cells stand in the order of the columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Names the row.
    pub label: String,
    /// Says whether the experiment makes the row.
    pub origin: RowOrigin,
    /// Lists the cells.
    pub cells: Vec<Cell>,
}

/// Says where a row comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowOrigin {
    /// Marks a row that a stage makes.
    Made {
        /// Names the stage.
        stage: String,
    },
    /// Marks a published row for which the experiment has no stage yet.
    PublishedOnly,
}

/// Holds one cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Is our number, or why there is none.
    pub value: CellValue,
    /// Is the published number beside it.
    pub published: Option<f64>,
    /// Lists the artifacts that our number was read from.
    pub provenance: Vec<Provenance>,
    /// Says by what our number was computed, where that can differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Says how the definition differs from that of the first row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
}

/// Holds our number, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CellValue {
    /// Is a single number.
    Number(f64),
    /// Is an average, for example over seeds.
    Mean {
        /// Is the average.
        mean: f64,
        /// Is the standard deviation.
        std: f64,
        /// Counts the numbers averaged.
        n: usize,
    },
    /// Marks a cell that is meant to be empty: the row has no such column.
    Absent {
        /// Says why.
        reason: String,
    },
    /// Marks a number that could not be had.
    Missing {
        /// Says why.
        reason: String,
    },
}

/// Points at the place a number was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Names the stage that made the artifact.
    pub stage: String,
    /// Is the artifact's digest in hexadecimal.
    pub artifact: String,
    /// Is the path in the artifact, such as `metrics.json#accuracy`.
    pub path: String,
}

/// Holds the difference between two rows; cells stand in the order of the columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delta {
    /// Names the difference.
    pub label: String,
    /// Lists the cells.
    pub cells: Vec<DeltaCell>,
}

/// Holds one difference three times over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeltaCell {
    /// Is the difference of our rows, in the metric's unit.
    pub ours: Option<f64>,
    /// Says that one of our rows has no such number, and is not meant to.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_absent: bool,
    /// Is the difference recomputed from the published rows, in the metric's unit.
    pub published: Option<f64>,
    /// Is the difference as the paper prints it, in the paper's unit.
    pub printed: Option<f64>,
    /// Is the paper's unit over the metric's: 100 where it prints percentage points.
    pub printed_scale: f64,
}
