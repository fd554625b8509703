//! What a reader says it did.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How many skipped rows a report shows for each reason.
pub const EXAMPLES_KEPT: usize = 5;

const SNIPPET_CHARS: usize = 80;

/// Says why a row was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It has more or fewer cells than the header.
    Ragged,
    /// The line is not JSON.
    InvalidJson,
    /// The line is JSON and not an object.
    NotAnObject,
    /// A column that was asked for is not in the object.
    MissingField,
    /// The identifier is neither text nor a whole number.
    IdNotText,
    /// The identifier is empty.
    EmptyId,
    /// An earlier row has the same identifier.
    DuplicateId,
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Reason::Ragged => "wrong number of cells",
            Reason::InvalidJson => "invalid json",
            Reason::NotAnObject => "not a json object",
            Reason::MissingField => "missing field",
            Reason::IdNotText => "id is not text",
            Reason::EmptyId => "empty id",
            Reason::DuplicateId => "duplicate id",
        })
    }
}

/// Shows one skipped row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Example {
    /// The line of the file that the row starts on, from 1.
    pub line: u64,
    /// What was wrong, such as `7 cells instead of 3`.
    pub detail: String,
    /// The beginning of the row.
    pub snippet: String,
}

/// Counts the rows skipped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Skipped {
    /// How many there were.
    pub count: u64,
    /// The first few of them.
    pub examples: Vec<Example>,
}

/// Says what was read, what was left out and what was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Report {
    /// Whether the file was compressed with gzip.
    pub gzip: bool,
    /// Whether the file began with a UTF-8 byte order mark, which was dropped.
    pub byte_order_mark: bool,
    /// The columns of the header, or the fields of the first JSON object.
    pub columns: Vec<String>,
    /// How many rows were handed out.
    pub rows: u64,
    /// How many were not, by reason.
    pub skipped: BTreeMap<Reason, Skipped>,
    /// How many lines had nothing on them.
    pub blank_lines: u64,
    /// How many rows go over several lines inside quotes. More than expected means that a
    /// quote is missing somewhere.
    pub multi_line_rows: u64,
    /// How many cells had doubled backslashes collapsed, by field.
    pub collapsed_cells: BTreeMap<String, u64>,
}

impl Report {
    /// Returns how many rows were skipped in all.
    pub fn rows_skipped(&self) -> u64 {
        self.skipped.values().map(|skipped| skipped.count).sum()
    }

    pub(super) fn skip(&mut self, bad: Bad) {
        let skipped = self.skipped.entry(bad.reason).or_default();
        skipped.count += 1;
        if skipped.examples.len() < EXAMPLES_KEPT {
            skipped.examples.push(Example { line: bad.line, detail: bad.detail, snippet: bad.snippet });
        }
    }

    pub(super) fn reasons(&self) -> String {
        let reasons = self.skipped.iter().map(|(reason, skipped)| {
            let first = skipped.examples.first();
            let line = first.map_or(0, |example| example.line);
            format!("{reason} ({}, first on line {line})", skipped.count)
        });
        reasons.collect::<Vec<_>>().join(", ")
    }
}

/// A row that cannot be used.
#[derive(Debug)]
pub(super) struct Bad {
    pub line: u64,
    pub reason: Reason,
    pub detail: String,
    pub snippet: String,
}

impl Bad {
    pub(super) fn new(line: u64, reason: Reason, detail: String, text: &str) -> Self {
        Self { line, reason, detail, snippet: snippet(text) }
    }
}

fn snippet(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    match text.char_indices().nth(SNIPPET_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_all_and_shows_the_first_few() {
        let mut report = Report::default();
        for line in 1..=9 {
            report.skip(Bad::new(line, Reason::Ragged, "1 cell".to_owned(), "x\r\n"));
        }
        assert_eq!(report.rows_skipped(), 9);
        let skipped = &report.skipped[&Reason::Ragged];
        assert_eq!(skipped.examples.len(), EXAMPLES_KEPT);
        assert_eq!(skipped.examples[4].line, 5);
        assert_eq!(skipped.examples[0].snippet, "x");
        assert_eq!(report.reasons(), "wrong number of cells (9, first on line 1)");
    }

    #[test]
    fn a_snippet_is_cut_between_characters() {
        assert_eq!(snippet(&"é".repeat(80)), "é".repeat(80));
        assert_eq!(snippet(&"é".repeat(81)), format!("{}…", "é".repeat(80)));
    }
}
