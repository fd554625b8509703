//! Rows on their way in and out of a stage.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use corpus::sample::Identities;
use corpus::{Record, Row};
use engine::{Failure, Input};
use serde::Serialize;

/// The file that rows are in.
pub const ROWS_FILE: &str = "rows.jsonl";

/// Reads the rows of an artifact, one after the other.
///
/// # Errors
/// [`Failure`] if the file is not there; a row that cannot be read names its line.
pub fn read_rows(folder: &Path) -> Result<impl Iterator<Item = Result<Row, Failure>> + use<>, Failure> {
    read_records(folder)
}

/// Reads the rows of several artifacts as one, in the order of the artifacts.
///
/// # Errors
/// As [`read_rows`], and if two rows of different artifacts have one id.
pub fn read_rows_of_all(
    inputs: &[Input],
) -> Result<impl Iterator<Item = Result<Row, Failure>> + use<>, Failure> {
    let parts = inputs.iter().map(|input| read_rows(&input.folder)).collect::<Result<Vec<_>, _>>()?;
    let are_several = parts.len() > 1;
    let mut ids = Identities::default();
    Ok(parts.into_iter().flatten().map(move |row| {
        let row = row?;
        if are_several && !ids.insert(row.id()) {
            let message = format!("the id `{}` occurs twice in the rows taken together", row.id());
            return Err(Failure::new(message)
                .help("let each `source` take `id` from a column that tells all the rows apart"));
        }
        Ok(row)
    }))
}

/// Reads the records of an artifact, one after the other.
///
/// # Errors
/// [`Failure`] if the file is not there; a record that cannot be read names its line.
pub fn read_records<R: Record>(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<R, Failure>> + use<R>, Failure> {
    let path = folder.join(ROWS_FILE);
    let file = File::open(&path).map_err(Failure::reading(&path))?;
    let records = corpus::read_jsonl(BufReader::with_capacity(1 << 18, file));
    Ok(records.map(move |record| {
        record.map_err(|error| Failure::caused(format!("read {}", path.display()), error))
    }))
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

/// The rows that a stage has made so far, in a file that outlives a kill.
pub struct KeptRows {
    path: PathBuf,
    /// It is not made before there is something to keep.
    file: Option<File>,
    count: usize,
}

impl KeptRows {
    /// Opens the file in the folder that outlives a kill, and cuts off what was not written to its
    /// end.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be read or written.
    pub fn open<R: Record>(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(ROWS_FILE);
        if !path.exists() {
            return Ok(Self { path, file: None, count: 0 });
        }
        let file = open_to_append(&path)?;
        let (mut count, mut bytes, mut line) = (0, 0, Vec::new());
        let mut reader = BufReader::new(&file);
        while reader.read_until(b'\n', &mut line).map_err(Failure::reading(&path))? > 0 {
            if line.last() != Some(&b'\n') || serde_json::from_slice::<R>(&line).is_err() {
                break;
            }
            (count, bytes) = (count + 1, bytes + line.len() as u64);
            line.clear();
        }
        file.set_len(bytes).map_err(Failure::writing(&path))?;
        Ok(Self { path, file: Some(file), count })
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads them, from the first.
    ///
    /// # Errors
    /// As [`read_records`].
    pub fn read<R: Record>(&self) -> Result<impl Iterator<Item = Result<R, Failure>> + use<R>, Failure> {
        let folder = self.path.parent().expect("a file lies in a folder");
        let rows = self.file.as_ref().map(|_| read_records(folder)).transpose()?;
        Ok(rows.into_iter().flatten().take(self.count))
    }

    /// Adds some.
    ///
    /// # Errors
    /// As [`RowWriter::write`].
    pub fn add<R: Record>(&mut self, rows: &[R]) -> Result<(), Failure> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row).map_err(|error| Failure::caused("write JSON", error))?;
            lines.push(b'\n');
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_to_append(&self.path)?),
        };
        file.write_all(&lines).map_err(Failure::writing(&self.path))?;
        self.count += rows.len();
        Ok(())
    }

    /// Forgets them all.
    ///
    /// # Errors
    /// As [`RowWriter::write`].
    pub fn forget(&mut self) -> Result<(), Failure> {
        self.count = 0;
        self.file.as_ref().map_or(Ok(()), |file| file.set_len(0)).map_err(Failure::writing(&self.path))
    }
}

fn open_to_append(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().create(true).read(true).append(true).open(path).map_err(Failure::writing(path))
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
