//! A file seen as memory.

use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ops::Range;

/// A file that is read where and when somebody looks.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file for reading.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: The bytes are only ever read as plain numbers, of which every pattern is one,
        // so a program that changes the file meanwhile changes values and breaks no invariant.
        // One that shortens it ends this process by a signal, where tensors are looked at: a stage
        // looks at those of the cache, which are read-only. Of a folder that a user names, a `source`
        // reads the headers, and not by the map; a bench reads all of it.
        #[expect(unsafe_code, reason = "a mapped file is shared with other processes")]
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(map))
    }

    /// Returns how many bytes there are.
    pub(crate) fn length(&self) -> u64 {
        self.0.len() as u64
    }

    /// Returns some of the bytes.
    pub(crate) fn bytes(&self, range: Range<u64>) -> &[u8] {
        &self.0[range.start as usize..range.end as usize]
    }

    /// Tells the system that some of the bytes are not needed soon: they leave this process and
    /// stay in the system's cache of files.
    pub(crate) fn release(&self, range: Range<u64>) {
        let (start, length) = (range.start as usize, (range.end - range.start) as usize);
        // SAFETY: The mapping is of a file and never written to, so what is looked at again is
        // read again, and is the same.
        #[expect(unsafe_code, reason = "a mapped file is shared with other processes")]
        let told = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, length) };
        // Advice that is not taken costs memory that the system can take back anyway.
        let _ = told;
    }
}
