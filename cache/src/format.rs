//! The version of what is written, in keys and on disk.

/// The format of the folder and of every key. Another format is refused, never guessed at.
pub const FORMAT: u32 = 2;
