//! Where a stage computes.

use serde::{Deserialize, Serialize};

/// The name of a device, such as `cpu` or `cuda:0`. The engine does not know what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device(pub String);
