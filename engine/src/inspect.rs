//! What a run would do, and why, before anything runs.

pub(crate) mod explain;
pub(crate) mod reasons;
pub(crate) mod status;
