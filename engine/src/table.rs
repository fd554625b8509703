//! The finished table: which numbers it holds, and where they came from.

pub(crate) mod cells;
pub(crate) mod fill;
