//! Rows on their way in and out of a stage.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use corpus::Row;
use engine::Failure;
use serde::Serialize;

/// The file that rows are in.
pub const ROWS_FILE: &str = "rows.jsonl";

/// Reads the rows of an artifact, one after the other.
///
/// # Errors
/// [`Failure`] if the file is not there; a row that cannot be read names its line.
pub fn read_rows(folder: &Path) -> Result<impl Iterator<Item = Result<Row, Failure>> + use<>, Failure> {
    let path = folder.join(ROWS_FILE);
    let file = File::open(&path).map_err(Failure::reading(&path))?;
    let rows = corpus::read_jsonl_rows(BufReader::with_capacity(1 << 18, file));
    Ok(rows.map(move |row| row.map_err(|error| Failure::caused(format!("read {}", path.display()), error))))
}

/// Writes rows to an artifact.
pub struct RowWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl RowWriter {
    /// Begins the file of rows in an output's folder.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be made.
    pub fn create(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(ROWS_FILE);
        let file = File::create(&path).map_err(Failure::writing(&path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file) })
    }

    /// Writes one row.
    ///
    /// # Errors
    /// [`Failure`] if the disk is full, for example.
    pub fn write(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        let failed = |error| Failure::writing(&self.path)(error);
        serde_json::to_writer(&mut self.file, row).map_err(|error| failed(error.into()))?;
        self.file.write_all(b"\n").map_err(Failure::writing(&self.path))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`RowWriter::write`].
    pub fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().map_err(Failure::writing(&self.path))
    }
}

/// Writes one JSON document, laid out for people.
///
/// # Errors
/// [`Failure`] if it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::caused("write JSON", error))?;
    text.push('\n');
    std::fs::write(path, text).map_err(Failure::writing(path))
}
