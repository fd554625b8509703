//! Rows on their way in and out of a stage.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use corpus::sample::Identities;
use corpus::{Record, Row};
use engine::{Input, StageFailure};
use serde::Serialize;

/// The file that rows are in.
pub(crate) const ROWS_FILE: &str = "rows.jsonl";

/// Reads the rows of an artifact, one after the other.
///
/// # Errors
/// [`StageFailure`] if the file is not there; a row that cannot be read names its line.
pub(crate) fn read_rows(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<Row, StageFailure>> + use<>, StageFailure> {
    read_records(folder)
}

/// Reads the rows of several artifacts as one, in the order of the artifacts.
///
/// # Errors
/// As [`read_rows`], and if two rows of different artifacts have one id.
pub(crate) fn read_rows_of_all(
    inputs: &[Input],
) -> Result<impl Iterator<Item = Result<Row, StageFailure>> + use<>, StageFailure> {
    let parts = inputs.iter().map(|input| read_rows(&input.folder)).collect::<Result<Vec<_>, _>>()?;
    let are_several = parts.len() > 1;
    let mut ids = Identities::default();
    Ok(parts.into_iter().flatten().map(move |row| {
        let row = row?;
        if are_several && !ids.insert(row.id()) {
            let message = format!("the id `{}` occurs twice in the rows taken together", row.id());
            return Err(StageFailure::new(message)
                .help("let each `source` take `id` from a column that is different in every row"));
        }
        Ok(row)
    }))
}

/// Reads the records of an artifact, one after the other.
///
/// # Errors
/// [`StageFailure`] if the file is not there; a record that cannot be read names its line.
pub(crate) fn read_records<R: Record>(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<R, StageFailure>> + use<R>, StageFailure> {
    let path = folder.join(ROWS_FILE);
    let file = File::open(&path).map_err(StageFailure::reading(&path))?;
    let records = corpus::read_jsonl(BufReader::with_capacity(1 << 18, file));
    Ok(records.map(move |record| {
        record.map_err(|error| StageFailure::caused(format!("read {}", path.display()), error))
    }))
}

/// Writes rows to an artifact.
pub(crate) struct RowWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl RowWriter {
    /// Begins the file of rows in an output's folder.
    ///
    /// # Errors
    /// [`StageFailure`] if it cannot be made.
    pub(crate) fn create(folder: &Path) -> Result<Self, StageFailure> {
        let path = folder.join(ROWS_FILE);
        let file = File::create(&path).map_err(StageFailure::writing(&path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file) })
    }

    /// Writes one row.
    ///
    /// # Errors
    /// [`StageFailure`] if the disk is full, for example.
    pub(crate) fn write(&mut self, row: &impl Serialize) -> Result<(), StageFailure> {
        let failed = |error| StageFailure::writing(&self.path)(error);
        serde_json::to_writer(&mut self.file, row).map_err(|error| failed(error.into()))?;
        self.file.write_all(b"\n").map_err(StageFailure::writing(&self.path))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`RowWriter::write`].
    pub(crate) fn finish(mut self) -> Result<(), StageFailure> {
        self.file.flush().map_err(StageFailure::writing(&self.path))
    }
}

/// Writes one JSON document, laid out for people.
///
/// # Errors
/// [`StageFailure`] if it cannot be written.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StageFailure> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| StageFailure::caused("write JSON", error))?;
    text.push('\n');
    std::fs::write(path, text).map_err(StageFailure::writing(path))
}
