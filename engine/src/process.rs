//! Programs: started, confined, listened to and ended.

pub(crate) mod cancel;
pub(crate) mod device;
pub(crate) mod job;
pub(crate) mod program;
pub(crate) mod sandbox;
pub(crate) mod signal;
pub(crate) mod supervisor;
