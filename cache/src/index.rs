//! Key to manifest, in SQLite: the only SQL in the workspace.

mod connection;
mod finished;
mod inspect;
mod listings;
mod lookups;
mod open;
mod overview;
mod removal;
mod row;
mod runs;
mod schema;
mod sources;
#[cfg(test)]
mod tests;
mod view;

pub use self::connection::Index;
pub(crate) use self::finished::Finished;
pub use self::inspect::Flaw;
pub use self::lookups::Trace;
pub use self::overview::{ListedWork, Totals};
pub use self::runs::{Execution, HistoryEntry};
