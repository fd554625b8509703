//! One row as a format parts it, before the options are applied to its fields.

use super::report::Bad;
use serde_json::{Map, Value};

/// A row, or why it is none.
pub(super) enum ParsedRow {
    Row { line: u64, lines: u64, id: Option<String>, fields: Map<String, Value> },
    Bad(Bad),
}

impl ParsedRow {
    pub(super) fn on_line(self, line: u64) -> Self {
        match self {
            Self::Row { lines, id, fields, .. } => Self::Row { line, lines, id, fields },
            Self::Bad(bad) => Self::Bad(Bad { line, ..bad }),
        }
    }
}
