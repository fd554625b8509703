//! Bytes to lines: gzip, byte order mark, UTF-8 and a bound on length.

use super::error::ReadError;
use flate2::read::MultiGzDecoder;
use std::io::{BufRead, BufReader, ErrorKind, Read};

/// The most bytes one row may have, 64 MiB: beyond it something is wrong with the file.
pub const LONGEST_RECORD_BYTES: usize = 64 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const BUFFER_BYTES: usize = 1 << 16;

pub(super) struct Lines<'r> {
    input: BufReader<Box<dyn Read + 'r>>,
    pub gzip: bool,
    pub byte_order_mark: bool,
    /// The number of the last line returned, from 1.
    pub number: u64,
    /// How many blank lines the formats have passed over.
    pub blank: u64,
    buffer: Vec<u8>,
    limit: usize,
}

impl<'r> Lines<'r> {
    pub(super) fn open(source: impl Read + 'r) -> Result<Self, ReadError> {
        Self::with_limit(source, LONGEST_RECORD_BYTES)
    }

    fn with_limit(mut source: impl Read + 'r, limit: usize) -> Result<Self, ReadError> {
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        let fetched = source.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic);
        fetched.map_err(|source| ReadError::Io { line: 0, source })?;
        let gzip = magic == GZIP_MAGIC;
        let whole = std::io::Cursor::new(magic).chain(source);
        let input: Box<dyn Read + 'r> = if gzip {
            // The buffer matters: the decompressor asks for its bytes a few at a time.
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self {
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            gzip,
            byte_order_mark: false,
            number: 0,
            blank: 0,
            buffer: Vec::new(),
            limit,
        })
    }

    /// Returns the next line with its line feed, if it has one.
    ///
    /// `used` is how many bytes of the same row came before, on earlier lines.
    pub(super) fn next(&mut self, used: usize) -> Result<Option<&str>, ReadError> {
        self.buffer.clear();
        let left = self.limit.saturating_sub(used);
        // One more than fits tells a line that is too long from one that just fits.
        let mut bounded = self.input.by_ref().take(left as u64 + 1);
        let fetched = bounded.read_until(b'\n', &mut self.buffer);
        let fetched = fetched.map_err(|error| failure(error, self.gzip, self.number))?;
        if fetched == 0 {
            return Ok(None);
        }
        self.number += 1;
        if fetched > left {
            return Err(ReadError::TooLong { line: self.number, limit: self.limit });
        }
        let mut line = self.buffer.as_slice();
        if self.number == 1
            && let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK)
        {
            self.byte_order_mark = true;
            line = rest;
        }
        match std::str::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(_) => Err(ReadError::NotUtf8 { line: self.number }),
        }
    }
}

/// Parts a line from what ends it: a line feed, with a carriage return or without.
pub(super) fn part_ending(line: &str) -> (&str, &str) {
    let body = line.strip_suffix('\n').unwrap_or(line);
    let body = body.strip_suffix('\r').unwrap_or(body);
    line.split_at(body.len())
}

fn failure(error: std::io::Error, gzip: bool, line: u64) -> ReadError {
    match error.kind() {
        ErrorKind::UnexpectedEof if gzip => ReadError::TruncatedGzip { line },
        ErrorKind::InvalidData | ErrorKind::InvalidInput if gzip => {
            ReadError::CorruptGzip { line, source: error }
        }
        _ => ReadError::Io { line, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn all(bytes: &[u8]) -> Result<Vec<String>, ReadError> {
        let mut lines = Lines::open(bytes)?;
        let mut found = Vec::new();
        while let Some(line) = lines.next(0)? {
            found.push(line.to_owned());
        }
        Ok(found)
    }

    #[test]
    fn lines_keep_their_endings() {
        assert_eq!(all(b"a\r\n\nb").unwrap(), ["a\r\n", "\n", "b"]);
        assert_eq!(part_ending("a\r\n"), ("a", "\r\n"));
        assert_eq!(part_ending("a\n"), ("a", "\n"));
        assert_eq!(part_ending("a"), ("a", ""));
        assert!(all(b"").unwrap().is_empty());
        assert_eq!(all(b"x").unwrap(), ["x"]);
    }

    #[test]
    fn gzip_is_told_by_its_magic_and_may_have_members() {
        let mut bytes = gzipped(b"a\nb");
        bytes.extend(gzipped(b"c\n"));
        assert_eq!(all(&bytes).unwrap(), ["a\n", "bc\n"]);
    }

    #[test]
    fn damaged_gzip_is_told_from_truncated() {
        let text: String = (0..5000).map(|n| format!("{}\n", n * n)).collect();
        let bytes = gzipped(text.as_bytes());
        let error = all(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(matches!(error, ReadError::TruncatedGzip { line } if line > 0), "{error:?}");
        let mut flipped = bytes.clone();
        let last = flipped.len() - 5;
        flipped[last] ^= 1;
        let error = all(&flipped).unwrap_err();
        assert!(matches!(error, ReadError::CorruptGzip { .. }), "{error:?}");
        assert!(matches!(all(&bytes[..2]), Err(ReadError::TruncatedGzip { line: 0 })));
    }

    #[test]
    fn a_byte_order_mark_is_dropped_once() {
        let mut lines = Lines::open(b"\xef\xbb\xbfa\n\xef\xbb\xbfb".as_slice()).unwrap();
        assert_eq!(lines.next(0).unwrap(), Some("a\n"));
        assert_eq!(lines.next(0).unwrap(), Some("\u{feff}b"));
        assert!(lines.byte_order_mark);
    }

    #[test]
    fn other_encodings_are_refused_with_their_line() {
        assert!(matches!(all(b"a\n\xe9t\xe9\n"), Err(ReadError::NotUtf8 { line: 2 })));
        assert!(matches!(all(b"\xff\xfea\0"), Err(ReadError::NotUtf8 { line: 1 })));
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        let mut lines = Lines::with_limit(b"ab\nabc\n".as_slice(), 3).unwrap();
        assert_eq!(lines.next(0).unwrap(), Some("ab\n"));
        assert!(matches!(lines.next(0), Err(ReadError::TooLong { line: 2, limit: 3 })));
        let mut lines = Lines::with_limit(b"ab\n".as_slice(), 3).unwrap();
        assert!(matches!(lines.next(1), Err(ReadError::TooLong { line: 1, .. })));
    }
}
