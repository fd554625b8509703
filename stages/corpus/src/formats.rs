//! Reading rows from the files that people have.

mod csv;
mod error;
mod format;
mod jsonl;
mod lines;
mod options;
mod parsed_row;
mod read;
mod report;
mod table;
mod tsv;

pub use error::ReadError;
pub use format::Format;
pub use lines::LONGEST_RECORD_BYTES;
pub use options::{OnBadRow, ReadOptions};
pub use read::{Rows, read};
pub use report::{EXAMPLES_KEPT, Example, Reason, Report, Skipped};
