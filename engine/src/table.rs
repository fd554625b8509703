//! The table: as written, as planned, as published, and filled from artifacts.

mod fill;
mod planned;
mod published;
mod spec;

pub use fill::fill;
pub(crate) use fill::{METRICS_FILE, read_metric};
pub(crate) use planned::{PlannedTable, plan};
pub(crate) use published::Published;
pub(crate) use spec::TableSpec;
