//! Whether a cache can be written to.

/// Whether a cache can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// New work can be kept.
    ReadWrite,
    /// Only what is there can be used.
    ReadOnly,
}
