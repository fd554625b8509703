//! What would happen, and why, before anything does.

pub(crate) mod explain;
pub(crate) mod status;
