//! Synonyms from the database files of WordNet: Miller, 1995; the version is the user's, the
//! reference values were made with 3.0.
//!
//! A word is looked up by every part of speech, as it is and by the base forms that nltk 3.10.4
//! finds for it: those of the exception list, else those of the rules of detachment.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use tar::EntryType;

/// Parts of speech, as the files are called.
const PARTS: [&str; 4] = ["noun", "verb", "adj", "adv"];

/// Endings of inflected forms and of their base forms, by part of speech.
const RULES: [&[(&str, &str)]; 4] = [
    &[
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ],
    &[("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")],
    &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    &[],
];

/// Says why there is no WordNet.
#[derive(Debug, thiserror::Error)]
pub enum WordNetError {
    /// It cannot be read.
    #[error("cannot be read")]
    Read(#[from] io::Error),
    /// A file is not there.
    #[error("`{0}` is not there: WordNet is index, data and exception files of four parts of speech")]
    MissingFile(String),
    /// It has the name of a file, and is a link, a device or a file with holes.
    #[error("`{0}` is no plain file: unpack WordNet, and give the folder with its files")]
    NotAFile(String),
    /// It is far larger than WordNet.
    #[error("it holds more than {} MiB, and WordNet some 50: this is another archive", MOST_BYTES >> 20)]
    TooLarge,
    /// There is not one word in it.
    #[error("there is not one word in its index: the files are empty")]
    Empty,
    /// A line is not as it must be.
    #[error("line {line} of `{file}` is not as WordNet writes it")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
    },
}

/// The most bytes of all files together, unpacked: ten times what WordNet 3.1 has.
const MOST_BYTES: u64 = 1 << 29;

/// The most memory that unpacking takes: as `xz -9` needs, and more.
const MOST_XZ_BYTES: u64 = 1 << 28;

/// The synonyms of WordNet.
pub struct WordNet {
    parts: [Part; 4],
}

/// One part of speech.
#[derive(Default)]
struct Part {
    /// By word, which of `offsets` are its meanings'.
    index: HashMap<Box<str>, (u32, u32)>,
    offsets: Vec<u32>,
    /// By rising offset, where the words of a meaning end in `words`.
    meanings: Vec<(u32, u32)>,
    /// Words of one part, without those of several (`_`).
    words: Vec<Box<str>>,
    exceptions: HashMap<Box<str>, Vec<Box<str>>>,
}

impl WordNet {
    /// Reads a folder with the files, or an archive of it: `.tar`, or `.tar.xz`.
    pub fn open(path: &Path) -> Result<Self, WordNetError> {
        if !path.is_dir() {
            return Self::from_archive(open_file(path)?);
        }
        let mut room = MOST_BYTES;
        Self::of_files(|name| {
            let file = match open_file(&path.join(name)) {
                Err(WordNetError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(WordNetError::MissingFile(name.to_owned()));
                }
                file => file?,
            };
            content(file, &mut room).map(latin)
        })
    }

    /// Reads an archive with the files in any folder: tar, compressed with xz or not.
    pub fn from_archive(archive: impl Read) -> Result<Self, WordNetError> {
        let mut archive = BufReader::new(archive);
        if !archive.fill_buf()?.starts_with(b"\xfd7zXZ\0") {
            Self::from_tar(archive)
        } else {
            let stream = Stream::new_stream_decoder(MOST_XZ_BYTES, CONCATENATED).map_err(io::Error::from)?;
            Self::from_tar(XzDecoder::new_stream(archive, stream))
        }
    }

    fn from_tar(tar: impl Read) -> Result<Self, WordNetError> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        // Of what is passed over too: a small file unpacks to any size.
        let tar = Bounded { inner: tar, room: MOST_BYTES };
        let mut room = MOST_BYTES;
        for entry in tar::Archive::new(tar).entries().map_err(bounded)? {
            let entry = entry.map_err(bounded)?;
            let name = entry.path()?.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = name.filter(|name| names().any(|wanted| wanted == *name)) {
                // A link or a device has no bytes, and would be an empty file of WordNet; one with
                // holes says that it has any number.
                if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
                    return Err(WordNetError::NotAFile(name));
                }
                files.insert(name, content(entry, &mut room)?);
            }
        }
        Self::of_files(|name| {
            files.remove(name).map(latin).ok_or_else(|| WordNetError::MissingFile(name.to_owned()))
        })
    }

    fn of_files(mut read: impl FnMut(&str) -> Result<String, WordNetError>) -> Result<Self, WordNetError> {
        let mut parts: [Part; 4] = Default::default();
        for (part, name) in parts.iter_mut().zip(PARTS) {
            let file = format!("index.{name}");
            part.read_index(&read(&file)?).map_err(|line| WordNetError::Line { file, line })?;
            let file = format!("data.{name}");
            part.read_data(&read(&file)?).map_err(|line| WordNetError::Line { file, line })?;
            for line in read(&format!("{name}.exc"))?.lines() {
                let mut words = line.split_ascii_whitespace().map(Box::from);
                if let Some(word) = words.next() {
                    part.exceptions.insert(word, words.collect());
                }
            }
        }
        if parts.iter().all(|part| part.index.is_empty()) {
            Err(WordNetError::Empty)
        } else {
            Ok(Self { parts })
        }
    }

    /// Tells every word, but for those written with `_`, that shares a meaning with this one.
    /// A word may come twice.
    pub fn each_synonym<'a>(&'a self, word: &str, on_synonym: &mut dyn FnMut(&'a str)) {
        for (part, rules) in self.parts.iter().zip(RULES) {
            part.each_synonym(word, on_synonym);
            if let Some(forms) = part.exceptions.get(word) {
                forms
                    .iter()
                    .filter(|form| form.as_ref() != word)
                    .for_each(|form| part.each_synonym(form, on_synonym));
                continue;
            }
            for (ending, base) in rules {
                if let Some(stem) = word.strip_suffix(ending) {
                    part.each_synonym(&format!("{stem}{base}"), on_synonym);
                }
            }
        }
    }
}

impl Part {
    /// Reads which meanings words have; on failure returns the number of the line.
    fn read_index(&mut self, text: &str) -> Result<(), usize> {
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with(' ')) {
            let mut read = || -> Option<()> {
                // lemma pos synsets pointers [pointer]… senses tagged [offset]…
                let mut cells = line.split_ascii_whitespace();
                let word = cells.next()?;
                let count: usize = cells.nth(1)?.parse().ok()?;
                let pointers: usize = cells.next()?.parse().ok()?;
                let start = self.offsets.len();
                for offset in cells.skip(pointers + 2).take(count) {
                    self.offsets.push(offset.parse().ok()?);
                }
                let is_whole = count > 0 && self.offsets.len() == start + count;
                is_whole.then(|| self.index.insert(word.into(), (start as u32, count as u32))).map(drop)
            };
            read().ok_or(at + 1)?;
        }
        Ok(())
    }

    /// Reads which words meanings have; on failure returns the number of the line.
    fn read_data(&mut self, text: &str) -> Result<(), usize> {
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with(' ')) {
            let mut read = || -> Option<()> {
                // offset file type words(hex) [word id]…
                let mut cells = line.split_ascii_whitespace();
                let offset: u32 = cells.next()?.parse().ok()?;
                let count = usize::from_str_radix(cells.nth(2)?, 16).ok()?;
                for _ in 0..count {
                    let word = without_marker(cells.next()?);
                    cells.next()?;
                    if !word.contains('_') {
                        self.words.push(word.into());
                    }
                }
                let is_later = self.meanings.last().is_none_or(|(before, _)| *before < offset);
                is_later.then(|| self.meanings.push((offset, self.words.len() as u32)))
            };
            read().ok_or(at + 1)?;
        }
        Ok(())
    }

    fn each_synonym<'a>(&'a self, word: &str, on_synonym: &mut dyn FnMut(&'a str)) {
        let Some((start, count)) = self.index.get(word) else { return };
        for offset in &self.offsets[*start as usize..(start + count) as usize] {
            if let Ok(at) = self.meanings.binary_search_by_key(offset, |(offset, _)| *offset) {
                let from = if at == 0 { 0 } else { self.meanings[at - 1].1 };
                self.words[from as usize..self.meanings[at].1 as usize]
                    .iter()
                    .for_each(|word| on_synonym(word));
            }
        }
    }
}

/// Opens a file, and neither a pipe, which may never end, nor a device.
fn open_file(path: &Path) -> Result<File, WordNetError> {
    if !std::fs::metadata(path)?.is_file() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        return Err(WordNetError::NotAFile(name));
    }
    Ok(File::open(path)?)
}

/// Reads a file, if there is room for it.
fn content(file: impl Read, room: &mut u64) -> Result<Vec<u8>, WordNetError> {
    let mut content = Vec::new();
    file.take(*room + 1).read_to_end(&mut content).map_err(bounded)?;
    *room = room.checked_sub(content.len() as u64).ok_or(WordNetError::TooLarge)?;
    Ok(content)
}

/// A reader that fails where too much comes.
struct Bounded<R> {
    inner: R,
    room: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.room.checked_sub(read as u64) {
            Some(room) => self.room = room,
            None => return Err(io::ErrorKind::FileTooLarge.into()),
        }
        Ok(read)
    }
}

/// Tells what is too large from what cannot be read.
fn bounded(error: io::Error) -> WordNetError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => WordNetError::TooLarge,
        _ => error.into(),
    }
}

/// Returns the names of all files.
fn names() -> impl Iterator<Item = String> {
    let each = |name: &str| [format!("index.{name}"), format!("data.{name}"), format!("{name}.exc")];
    PARTS.into_iter().flat_map(each)
}

/// Takes the marker off an adjective that says where it may stand: `(a)`, `(p)`, `(ip)`.
fn without_marker(word: &str) -> &str {
    match word.strip_suffix(')').and_then(|open| Some((open, open.rfind('(')?))) {
        Some((open, at)) if !open[at..].contains(')') => &open[..at],
        _ => word,
    }
}

/// Returns text whose bytes are UTF-8, or else one character each.
fn latin(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Result<WordNet, WordNetError> {
        WordNet::of_files(|name| {
            Ok(match name {
                "index.noun" => "  licence\ncat n 1 1 @ 1 1 00000009  \nfeline n 1 1 @ 1 0 00000009  \n",
                "data.noun" => {
                    "  licence\n00000009 05 n 03 cat 0 true_cat 0 feline 0 001 @ 00000001 n 0000 | a cat\n"
                }
                "noun.exc" => "kitties cat\n",
                "index.adj" => "fond a 1 0 1 0 00000004\n",
                "data.adj" => "00000004 00 a 02 fond(p) 0 partial 0 000 | liking\n",
                _ => "",
            }
            .to_owned())
        })
    }

    fn synonyms(wordnet: &WordNet, word: &str) -> Vec<String> {
        let mut found = Vec::new();
        wordnet.each_synonym(word, &mut |synonym| found.push(synonym.to_owned()));
        found
    }

    #[test]
    fn words_are_looked_up_in_all_their_forms() {
        let wordnet = tiny().unwrap();
        for word in ["cat", "cats", "feline", "kitties"] {
            assert_eq!(synonyms(&wordnet, word), ["cat", "feline"], "{word}");
        }
        assert_eq!(synonyms(&wordnet, "fonder"), ["fond", "partial"]);
        assert_eq!(synonyms(&wordnet, "dog"), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let missing = WordNet::of_files(|name| Err(WordNetError::MissingFile(name.to_owned()))).err();
        assert!(missing.unwrap().to_string().starts_with("`index.noun` is not there"));
        let broken =
            WordNet::of_files(|name| Ok(if name == "index.verb" { "run v 2 0" } else { "" }.to_owned()));
        assert_eq!(broken.err().unwrap().to_string(), "line 1 of `index.verb` is not as WordNet writes it");
        assert!(WordNet::from_archive(&b""[..]).is_err());
        let empty = WordNet::of_files(|_| Ok(String::new())).err().unwrap().to_string();
        assert_eq!(empty, "there is not one word in its index: the files are empty");
    }

    /// An archive with all files, each as it is written by a function.
    fn archive(write: impl Fn(&mut tar::Header, &str) -> Vec<u8>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names() {
            let mut header = tar::Header::new_gnu();
            header.set_path(format!("WordNet-3.0/dict/{name}")).unwrap();
            header.set_mode(0o644);
            let content = write(&mut header, &name);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn word(name: &str) -> Vec<u8> {
        match name {
            "index.noun" => b"cat n 1 0 1 0 00000009\n".to_vec(),
            "data.noun" => b"00000009 05 n 02 cat 0 feline 0 000\n".to_vec(),
            _ => Vec::new(),
        }
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).unwrap();
        packed
    }

    #[test]
    fn an_archive_is_read_packed_or_not() {
        let tar = archive(|_, name| word(name));
        for archive in [xz(&tar), tar] {
            assert_eq!(synonyms(&WordNet::from_archive(&archive[..]).unwrap(), "cats"), ["cat", "feline"]);
        }
    }

    #[test]
    fn links_devices_and_holes_are_no_files_of_wordnet() {
        let kinds = [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo];
        for kind in kinds {
            let tar = archive(|header, name| {
                if name.ends_with("noun") {
                    header.set_entry_type(kind);
                    return Vec::new();
                }
                word(name)
            });
            let error = WordNet::from_archive(&tar[..]).err().unwrap().to_string();
            assert!(error.starts_with("`index.noun` is no plain file"), "{kind:?}: {error}");
        }
        // A file that says that it has 40 GB, all of it a hole.
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_path("data.noun").unwrap();
        header.set_entry_type(EntryType::GNUSparse);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize = *b"500000000000";
        (gnu.sparse[0].offset, gnu.sparse[0].numbytes) = (gnu.realsize, *b"000000000000");
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let error = WordNet::from_archive(&builder.into_inner().unwrap()[..]).err().unwrap().to_string();
        assert!(error.starts_with("`data.noun` is no plain file"), "{error}");
    }

    #[test]
    fn what_unpacks_to_any_size_is_refused() {
        /// Zeros as an archive that has them in files that are passed over.
        struct Endless(Vec<u8>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    buffer.fill(0);
                    return Ok(buffer.len());
                }
                let count = buffer.len().min(self.0.len());
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0.drain(..count);
                Ok(count)
            }
        }
        let mut header = tar::Header::new_gnu();
        for name in ["other", "data.noun"] {
            header.set_path(name).unwrap();
            header.set_size(1 << 40);
            header.set_cksum();
            let endless = Endless(header.as_bytes().to_vec());
            let error = WordNet::from_archive(endless).err().unwrap().to_string();
            assert!(error.starts_with("it holds more than 512 MiB"), "{name}: {error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_is_no_wordnet() {
        let pipe = std::path::Path::new("/dev/null");
        assert_eq!(
            WordNet::open(pipe).err().unwrap().to_string(),
            "`null` is no plain file: unpack WordNet, and give the folder with its files"
        );
    }
}
