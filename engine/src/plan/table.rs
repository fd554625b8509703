//! Which nodes fill which cells: planned before anything runs.

pub(crate) mod cells;
pub(crate) mod columns;
pub(crate) mod comparable;
pub(crate) mod deltas;
pub(crate) mod planned;
pub(crate) mod planner;
pub(crate) mod published;
pub(crate) mod rows;
pub(crate) mod template;
