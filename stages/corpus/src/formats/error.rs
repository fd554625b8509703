//! What can be wrong with a file as a whole.

use super::report::{Bad, Reason};
use std::io;

/// Says why a file cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes could not be fetched.
    #[error("cannot read past line {line}: {source}")]
    Io {
        /// The last line that could be read.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The compressed data ends too early.
    #[error("the gzip data ends in the middle, after line {line}: fetch the file again")]
    TruncatedGzip {
        /// The last line that could be read.
        line: u64,
    },
    /// The compressed data is damaged.
    #[error("the gzip data is corrupt after line {line} ({source}): fetch the file again")]
    CorruptGzip {
        /// The last line that could be read.
        line: u64,
        /// What the decompressor said.
        source: io::Error,
    },
    /// There is no line with anything on it.
    #[error("the file is empty")]
    Empty,
    /// There is a header and nothing else.
    #[error("the file has a header and no rows")]
    HeaderOnly,
    /// Every row was skipped.
    #[error("none of the {rows} rows can be used: {reasons}")]
    NoUsableRows {
        /// How many rows there are.
        rows: u64,
        /// Why they were skipped.
        reasons: String,
    },
    /// A column that was asked for is not there.
    #[error(
        "there is no column `{column}` for `{field}`{}; the columns are {}",
        did_you_mean(.nearest), quoted(.available)
    )]
    MissingColumn {
        /// Our field.
        field: String,
        /// The column it was to come from.
        column: String,
        /// The columns there are.
        available: Vec<String>,
        /// The column with the most similar name.
        nearest: Option<String>,
    },
    /// An option names a field that the rows do not have.
    #[error(
        "`{option}` names the field `{field}`, which the rows do not have{}; the fields are {}",
        did_you_mean(.nearest), quoted(.available)
    )]
    UnknownField {
        /// The option.
        option: &'static str,
        /// The field it names.
        field: String,
        /// The fields the rows have.
        available: Vec<String>,
        /// The field with the most similar name.
        nearest: Option<String>,
    },
    /// Two columns that are both wanted have one name.
    #[error("columns {first} and {second} are both named `{column}`: rename one of them")]
    RepeatedColumn {
        /// The name.
        column: String,
        /// The position of the first, from 1.
        first: usize,
        /// The position of the second, from 1.
        second: usize,
    },
    /// A column that would be taken has no name.
    #[error("column {position} has no name: name it in the file, or list the `columns` to take")]
    UnnamedColumn {
        /// Its position, from 1.
        position: usize,
    },
    /// A line is not UTF-8.
    #[error("line {line} is not UTF-8: convert the file, for example with iconv")]
    NotUtf8 {
        /// The line, from 1.
        line: u64,
    },
    /// A row is longer than any row should be.
    #[error("the row on line {line} is longer than {limit} bytes: a quote may be missing")]
    TooLong {
        /// The line it starts on, from 1.
        line: u64,
        /// The most bytes a row may have.
        limit: usize,
    },
    /// A quoted cell has no end.
    #[error("the quote opened in the row on line {line} is never closed")]
    UnclosedQuote {
        /// The line the row starts on, from 1.
        line: u64,
    },
    /// A row cannot be used, and the options say to stop there.
    #[error("line {line}: {reason}: {detail}: `{snippet}`")]
    BadRow {
        /// The line the row starts on, from 1.
        line: u64,
        /// What kind of fault it is.
        reason: Reason,
        /// The fault.
        detail: String,
        /// The beginning of the row.
        snippet: String,
    },
    /// A field is to be split at nothing.
    #[error("the separator of `{field}` in `split` is empty")]
    EmptySeparator {
        /// The field.
        field: String,
    },
    /// The identifier is to be split.
    #[error("`split` names `id`, which stays one text")]
    SplitId,
}

impl From<Bad> for ReadError {
    fn from(bad: Bad) -> Self {
        let Bad { line, reason, detail, snippet } = bad;
        Self::BadRow { line, reason, detail, snippet }
    }
}

/// Returns the name closest to `wanted`, if one is close.
pub(super) fn nearest(wanted: &str, available: &[String]) -> Option<String> {
    let wanted = wanted.to_lowercase();
    let scored = available.iter().map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name));
    scored
        .filter(|(similarity, _)| *similarity > 0.7)
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, name)| name.clone())
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!(" (nearest: `{name}`)"))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
