//! Where the nodes and edges of a graph are drawn.

mod across;
pub(crate) mod geometry;
mod order;
pub(crate) mod place;
