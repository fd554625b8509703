//! Rows of molecules and captions.
//!
//! [`formats`] reads the files that people have and says what it did to them; [`compose`] makes
//! captions of property lists; [`sample`] takes part of the rows; a [`Prompt`] asks for one
//! [`Direction`], and [`negatives`] holds a target against what a model made of the same input.
//! The crate refuses to know where files are, what a stage is, and what anything costs: bytes,
//! rows and parameters come in, and rows and reports go out. Everything that looks random is a
//! hash of a seed and of the row itself, so the order of rows and of threads changes nothing.
//!
//! ```
//! use corpus::formats::{Format, ReadOptions, read};
//!
//! let text = "CID\tSMILES\n71\tC/C=C\\\\C\n72\tCC\tO\n";
//! let options = ReadOptions {
//!     columns: [("id", "CID"), ("molecule", "SMILES")].map(|(a, b)| (a.into(), b.into())).into(),
//!     collapse_backslashes: ["molecule".to_owned()].into(),
//!     ..ReadOptions::default()
//! };
//! let mut rows = read(text.as_bytes(), Format::Tsv, &options)?;
//! let row = rows.next().expect("there is a row")?;
//! assert_eq!((row.id(), row.text("molecule")), ("71", Some(r"C/C=C\C")));
//! assert!(rows.next().is_none());
//! assert_eq!(rows.report().rows_skipped(), 1);
//! # Ok::<(), corpus::formats::ReadError>(())
//! ```

pub mod compose;
mod direction;
pub mod facts;
pub mod formats;
pub mod negatives;
mod prompt;
mod record;
mod row;
mod rows;
pub mod sample;

pub use direction::Direction;
pub use prompt::{Prompt, PromptError, TextPrompt};
pub use record::{Prediction, Preference, Record, Unpaired};
pub use row::{ID, MissingField, Row, RowError};
pub use rows::{RowsError, read_jsonl, read_jsonl_rows, write_jsonl};
