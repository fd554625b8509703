//! A table whose cells know which nodes fill them.

use crate::kind::output_column::Better;

/// A table whose cells know which nodes fill them.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTable {
    /// The name of `[tables.NAME]`; none for `[table]`.
    pub name: Option<String>,
    pub title: Option<String>,
    pub columns: Vec<Column>,
    pub rows: Vec<PlannedRow>,
    pub deltas: Vec<PlannedDelta>,
    /// Says whether the numbers may be compared with the published ones.
    pub comparability: Vec<String>,
}

/// Describes one column.
#[derive(Debug, Clone, PartialEq)]
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

#[derive(Debug, Clone)]
pub(crate) struct PlannedRow {
    pub label: String,
    /// The name of the published row beside it.
    pub published: String,
    /// In the order of the columns; empty for a row that is only published.
    pub cells: Vec<PlannedCell>,
}

/// Where the number of a cell comes from.
#[derive(Debug, Clone)]
pub(crate) enum PlannedCell {
    /// From these nodes, whose numbers are averaged, each with the output to look in.
    Made {
        nodes: Vec<(usize, String)>,
        definition: Option<String>,
        /// How the definition differs from that of the first row.
        differs: Option<String>,
    },
    /// From nowhere: the stages of the row have no such column.
    Absent { reason: String },
}

/// A difference of two rows, by their positions.
#[derive(Debug, Clone)]
pub(crate) struct PlannedDelta {
    pub label: String,
    pub row: usize,
    pub minus: usize,
    /// The name of the printed difference.
    pub printed: String,
}

impl PlannedRow {
    /// Returns whether the experiment makes it.
    pub(crate) fn is_made(&self) -> bool {
        !self.cells.is_empty()
    }
}

impl PlannedTable {
    /// Returns the nodes that fill the table.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        let made = self.rows.iter().flat_map(|row| &row.cells).filter_map(|cell| match cell {
            PlannedCell::Made { nodes, .. } => Some(nodes),
            PlannedCell::Absent { .. } => None,
        });
        made.flatten().map(|(node, _)| *node)
    }
}
