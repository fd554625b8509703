//! Rows that a stage has made so far, in files that outlive a kill.
//!
//! Beside the rows lies a file with a line for each batch of them: its bytes, its rows, and the
//! BLAKE3 digest of the digest before and of the batch. So each line vouches for all that lies
//! before it. Nothing is believed that has no line that fits: a changed digit would be a wrong
//! number under the right key. What does not fit is discarded, with all behind it, and computed again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use blake3::Hash;
use corpus::Record;
use engine::{Context, Stage, StageFailure};

use crate::support::rows::ROWS_FILE;

/// The file with the batches' digests.
const DIGESTS_FILE: &str = "rows.digests";

/// 1: the first with digests.
const FORMAT: u32 = 1;

/// More than the digests of any rows take.
const MOST_DIGESTS_BYTES: u64 = 1 << 28;

/// How many bytes of what is discarded are read, to say how many rows they are.
const MOST_COUNTED_BYTES: u64 = 1 << 28;

/// The rows that a stage has made so far.
pub(crate) struct KeptRows {
    path: PathBuf,
    digests_path: PathBuf,
    /// They are not made before there is something to keep.
    files: Option<Files>,
    batches: Vec<Batch>,
    /// What vouches for nothing yet.
    first: Hash,
    discarded: Option<Discarded>,
}

struct Files {
    rows: File,
    digests: File,
}

/// Rows that were added together.
struct Batch {
    bytes: u64,
    rows: usize,
    digest: Hash,
}

impl Batch {
    /// Returns the digest of a batch behind another.
    fn digest(before: &Hash, rows: usize, content: &[u8]) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(before.as_bytes());
        hasher.update(&(rows as u64).to_le_bytes());
        hasher.update(&(content.len() as u64).to_le_bytes());
        hasher.update(content);
        hasher.finalize()
    }

    /// Returns the line of the digests' file.
    fn line(&self) -> String {
        format!("{} {} {}\n", self.bytes, self.rows, self.digest)
    }

    /// Reads a line that is spelt as [`Batch::line`] spells it.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.trim_end().split(' ');
        let batch = Self {
            bytes: parts.next()?.parse().ok()?,
            rows: parts.next()?.parse().ok()?,
            digest: Hash::from_hex(parts.next()?).ok()?,
        };
        (batch.line() == line).then_some(batch)
    }
}

/// What was not as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Discarded {
    rows: usize,
    /// Whether it is only what a kill cuts off: the batch that was being written.
    is_cut_off: bool,
}

impl KeptRows {
    /// Opens the files in the folder that outlives a kill, and cuts off what is not as it was
    /// written for this very work.
    ///
    /// # Errors
    /// [`StageFailure`] if they cannot be written.
    pub(crate) fn open<S: Stage, R: Record>(folder: &Path) -> Result<Self, StageFailure> {
        // The folder above is named by the key of the work, which parameters and inputs are part of.
        let key = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        let work = format!("kept rows {FORMAT}, {} {}, {}", S::KIND, S::VERSION, key.unwrap_or_default());
        let mut kept = Self {
            path: folder.join(ROWS_FILE),
            digests_path: folder.join(DIGESTS_FILE),
            files: None,
            batches: Vec::new(),
            first: blake3::hash(work.as_bytes()),
            discarded: None,
        };
        for path in [&kept.path, &kept.digests_path] {
            // A pipe or a link was not put there by a stage, and opening one may wait for ever.
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() => {
                    fs::remove_dir_all(path).map_err(StageFailure::writing(path))?
                }
                Ok(metadata) if !metadata.is_file() => {
                    fs::remove_file(path).map_err(StageFailure::writing(path))?
                }
                _ => {}
            }
        }
        if kept.path.exists() || kept.digests_path.exists() {
            let mut files = kept.files()?;
            kept.discarded = kept.check::<R>(&mut files);
            kept.cut(&files)?;
            kept.files = Some(files);
        }
        Ok(kept)
    }

    /// Says in the log how many rows there are, and how many were discarded; `done` is what was
    /// done to them.
    pub(crate) fn log_resumed(&self, done: &str, context: &mut Context) {
        match self.discarded {
            Some(Discarded { rows, is_cut_off: true }) => {
                context.log(format!("{rows} rows of a killed attempt were not kept whole, and are computed again"));
            }
            Some(Discarded { rows, is_cut_off: false }) => context.note(format!(
                "{rows} rows that a killed attempt had kept are discarded and computed again: they are not as they were written"
            )),
            None => {}
        }
        if self.count() > 0 {
            context.log(format!("{} rows were {done} before", self.count()));
        }
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows).sum()
    }

    /// Reads them, from the first.
    ///
    /// # Errors
    /// [`StageFailure`] if they are not any more what they were; the next attempt discards them.
    pub(crate) fn read<R: Record>(
        &self,
    ) -> Result<impl Iterator<Item = Result<R, StageFailure>> + use<R>, StageFailure> {
        let (path, mut before) = (self.path.clone(), self.first);
        let file = self.files.as_ref().map(|_| File::open(&path)).transpose();
        let mut reader = file.map_err(StageFailure::reading(&path))?.map(BufReader::new);
        let batches: Vec<(u64, usize, Hash)> =
            self.batches.iter().map(|batch| (batch.bytes, batch.rows, batch.digest)).collect();
        let rows = batches.into_iter().map(move |(bytes, rows, digest)| {
            let reader = reader.as_mut().expect("there is a file where there are rows");
            let content = take(reader, bytes).map_err(StageFailure::reading(&path))?;
            let computed = Batch::digest(&before, rows, &content);
            before = digest;
            let parsed = (computed == digest).then(|| records(&content)).flatten();
            parsed.ok_or_else(|| changed(&path))
        });
        Ok(rows.flat_map(|batch: Result<Vec<R>, StageFailure>| {
            let (rows, failure) = match batch {
                Ok(rows) => (rows, None),
                Err(failure) => (Vec::new(), Some(Err(failure))),
            };
            rows.into_iter().map(Ok).chain(failure)
        }))
    }

    /// Adds some.
    ///
    /// # Errors
    /// [`StageFailure`] if the disk is full, for example.
    pub(crate) fn add<R: Record>(&mut self, rows: &[R]) -> Result<(), StageFailure> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut content = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut content, row)
                .map_err(|error| StageFailure::caused("write JSON", error))?;
            content.push(b'\n');
        }
        let before = self.last();
        let mut files = match self.files.take() {
            Some(files) => files,
            None => self.files()?,
        };
        let digest = Batch::digest(&before, rows.len(), &content);
        let batch = Batch { bytes: content.len() as u64, rows: rows.len(), digest };
        // The line last: rows without one are not believed.
        files.rows.write_all(&content).map_err(StageFailure::writing(&self.path))?;
        files
            .digests
            .write_all(batch.line().as_bytes())
            .map_err(StageFailure::writing(&self.digests_path))?;
        self.batches.push(batch);
        self.files = Some(files);
        Ok(())
    }

    /// Forgets them all.
    ///
    /// # Errors
    /// As [`KeptRows::add`].
    pub(crate) fn forget(&mut self) -> Result<(), StageFailure> {
        self.batches.clear();
        self.files.as_ref().map_or(Ok(()), |files| self.cut(files))
    }

    /// Copies them to a file, as the bytes that they are.
    ///
    /// # Errors
    /// As [`KeptRows::read`], and if the file cannot be written.
    pub(crate) fn copy_to(&self, target: &Path) -> Result<(), StageFailure> {
        let mut written = File::create(target).map_err(StageFailure::writing(target))?;
        if self.files.is_none() {
            return Ok(());
        }
        let mut reader = File::open(&self.path).map_err(StageFailure::reading(&self.path))?;
        let mut before = self.first;
        for batch in &self.batches {
            let content = take(&mut reader, batch.bytes).map_err(StageFailure::reading(&self.path))?;
            if Batch::digest(&before, batch.rows, &content) != batch.digest {
                return Err(changed(&self.path));
            }
            before = batch.digest;
            written.write_all(&content).map_err(StageFailure::writing(target))?;
        }
        Ok(())
    }

    fn last(&self) -> Hash {
        self.batches.last().map_or(self.first, |batch| batch.digest)
    }

    fn files(&self) -> Result<Files, StageFailure> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().create(true).read(true).append(true).open(path);
            opened.map_err(StageFailure::writing(path))
        };
        Ok(Files { rows: open(&self.path)?, digests: open(&self.digests_path)? })
    }

    /// Takes the batches that fit, and says what does not.
    fn check<R: Record>(&mut self, files: &mut Files) -> Option<Discarded> {
        let mut lines = BufReader::new((&files.digests).take(MOST_DIGESTS_BYTES));
        let mut rows = BufReader::new(&files.rows);
        let length = files.rows.metadata().map_or(0, |metadata| metadata.len());
        let (mut begin, mut is_cut_off) = (0, true);
        loop {
            // What cannot be read is no better than what does not fit.
            let mut line = Vec::new();
            let read = lines.read_until(b'\n', &mut line).unwrap_or(0);
            if read == 0 {
                break;
            }
            let batch = std::str::from_utf8(&line).ok().and_then(Batch::parse);
            let fits = batch.filter(|batch| batch.bytes <= length - begin).filter(|batch| {
                take(&mut rows, batch.bytes).is_ok_and(|content| {
                    Batch::digest(&self.last(), batch.rows, &content) == batch.digest
                        && records::<R>(&content).is_some_and(|rows| rows.len() == batch.rows)
                })
            });
            let Some(batch) = fits else {
                // A kill leaves half a line at most.
                is_cut_off = line.last() != Some(&b'\n');
                break;
            };
            begin += batch.bytes;
            self.batches.push(batch);
        }
        if begin == length && is_cut_off {
            return None;
        }
        let mut rest = (&files.rows).take(MOST_COUNTED_BYTES);
        let rows = (&files.rows).seek(SeekFrom::Start(begin)).map_or(0, |_| count_lines(&mut rest));
        Some(Discarded { rows, is_cut_off })
    }

    /// Cuts off all that is behind the batches.
    fn cut(&self, files: &Files) -> Result<(), StageFailure> {
        let bytes = self.batches.iter().map(|batch| batch.bytes).sum();
        let lines = self.batches.iter().map(|batch| batch.line().len() as u64).sum();
        files.rows.set_len(bytes).map_err(StageFailure::writing(&self.path))?;
        files.digests.set_len(lines).map_err(StageFailure::writing(&self.digests_path))
    }
}

fn changed(path: &Path) -> StageFailure {
    StageFailure::new(format!("{} changed while it was used", path.display()))
        .help("run it again: what does not fit is discarded and computed again")
}

/// Reads as many bytes as are asked for, and no fewer.
fn take(reader: &mut impl io::Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = reader.take(bytes).read_to_end(&mut content)?;
    if (read as u64) < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(content)
}

/// Reads the rows of a batch, if they are rows.
fn records<R: Record>(content: &[u8]) -> Option<Vec<R>> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).ok()).collect()
}

fn count_lines(reader: &mut impl io::Read) -> usize {
    let mut reader = BufReader::new(reader);
    let (mut count, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        count += 1;
        line.clear();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Evaluate;
    use crate::judge::Judge;
    use serde::{Deserialize, Serialize};
    use tempfile::TempDir;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Scored {
        id: String,
        score: f64,
    }

    impl Record for Scored {
        const WHAT: &'static str = "a scored row";
    }

    fn row(number: usize) -> Scored {
        Scored { id: format!("row {number}"), score: number as f64 / 7.0 }
    }

    fn open(folder: &Path) -> KeptRows {
        KeptRows::open::<Judge, Scored>(folder).unwrap()
    }

    fn rows(kept: &KeptRows) -> Vec<Scored> {
        kept.read().unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Four batches of three rows.
    fn kept() -> TempDir {
        let folder = TempDir::new().unwrap();
        let mut kept = open(folder.path());
        for batch in 0..4 {
            let added: Vec<Scored> = (3 * batch..3 * batch + 3).map(row).collect();
            kept.add(&added).unwrap();
        }
        kept.add::<Scored>(&[]).unwrap();
        folder
    }

    #[test]
    fn rows_come_back_and_go_on() {
        let folder = kept();
        let mut kept = open(folder.path());
        assert_eq!((kept.count(), kept.discarded), (12, None));
        kept.add(&[row(12)]).unwrap();
        let expected: Vec<Scored> = (0..13).map(row).collect();
        assert_eq!(rows(&kept), expected);
        let target = folder.path().join("copy");
        kept.copy_to(&target).unwrap();
        let lines: Vec<Scored> = records(&fs::read(target).unwrap()).unwrap();
        assert_eq!(lines, expected);
        kept.forget().unwrap();
        assert_eq!((kept.count(), rows(&kept)), (0, Vec::new()));
        kept.add(&[row(5)]).unwrap();
        assert_eq!(rows(&open(folder.path())), [row(5)]);
    }

    /// Every byte of both files: whatever is read again is what was written.
    #[test]
    fn no_flipped_bit_goes_unseen() {
        let folder = kept();
        for name in [ROWS_FILE, DIGESTS_FILE] {
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            for place in 0..whole.len() {
                let copied = TempDir::new().unwrap();
                for file in [ROWS_FILE, DIGESTS_FILE] {
                    fs::copy(folder.path().join(file), copied.path().join(file)).unwrap();
                }
                let mut flipped = whole.clone();
                flipped[place] ^= 1 << (place % 8);
                fs::write(copied.path().join(name), &flipped).unwrap();
                let mut kept = open(copied.path());
                assert!(kept.count() < 12 && kept.count().is_multiple_of(3), "{name}: byte {place}");
                assert!(
                    kept.discarded.is_some_and(|aside| aside.rows + kept.count() >= 11),
                    "{name}: byte {place}"
                );
                // It goes on from there.
                let rest: Vec<Scored> = (kept.count()..14).map(row).collect();
                kept.add(&rest).unwrap();
                let kept = open(copied.path());
                assert_eq!((rows(&kept), kept.discarded), ((0..14).map(row).collect(), None));
            }
        }
    }

    /// A kill cuts anywhere: rows without their line, or half a line.
    #[test]
    fn what_a_kill_cuts_off_is_made_anew() {
        for name in [ROWS_FILE, DIGESTS_FILE] {
            let length = fs::metadata(kept().path().join(name)).unwrap().len();
            for rest in 0..length {
                let folder = kept();
                OpenOptions::new().write(true).open(folder.path().join(name)).unwrap().set_len(rest).unwrap();
                let kept = open(folder.path());
                let expected: Vec<Scored> = (0..kept.count()).map(row).collect();
                assert!(kept.count() < 12);
                assert_eq!(rows(&kept), expected, "{name}: cut to {rest}");
                let is_by_kill = kept.discarded.is_some_and(|aside| aside.is_cut_off);
                assert_eq!(is_by_kill, name == DIGESTS_FILE, "{name}: cut to {rest}");
            }
        }
    }

    #[test]
    fn what_is_missing_or_of_other_work_is_made_anew() {
        for name in [ROWS_FILE, DIGESTS_FILE] {
            let folder = kept();
            fs::remove_file(folder.path().join(name)).unwrap();
            assert_eq!(open(folder.path()).count(), 0);
            fs::remove_file(folder.path().join(name)).unwrap();
            fs::create_dir(folder.path().join(name)).unwrap();
            assert_eq!(open(folder.path()).count(), 0);
        }
        let folder = kept();
        let kept = KeptRows::open::<Evaluate, Scored>(folder.path()).unwrap();
        assert_eq!(kept.discarded, Some(Discarded { rows: 12, is_cut_off: false }));
    }

    #[test]
    fn rows_that_change_while_they_are_used_are_an_error() {
        let folder = kept();
        let kept = open(folder.path());
        let path = folder.path().join(ROWS_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("row 4", "row 5")).unwrap();
        let read: Vec<Result<Scored, StageFailure>> = kept.read().unwrap().collect();
        assert_eq!(read.iter().filter(|row| row.is_err()).count(), 1);
        assert!(kept.copy_to(&folder.path().join("copy")).is_err());
    }
}
