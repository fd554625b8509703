//! A file seen as memory.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::Range;

/// A file that is read where and when somebody looks.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file for reading.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: The bytes are only ever read as plain numbers, of which every pattern is one,
        // so a program that changes the file meanwhile changes values and breaks no invariant.
        // One that shortens it ends this process by a signal; the files of models are written
        // under another name and renamed, and those of the cache are read-only.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(map))
    }

    /// Returns some of the bytes.
    pub fn bytes(&self, range: Range<u64>) -> &[u8] {
        &self.0[range.start as usize..range.end as usize]
    }
}
