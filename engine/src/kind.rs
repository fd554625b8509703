//! What a kind of stage is, to those who write one and to those who run one.

pub(crate) mod context;
pub(crate) mod failure;
pub(crate) mod input_file;
pub(crate) mod memory;
pub(crate) mod metrics_file;
pub(crate) mod name;
pub(crate) mod output_column;
pub(crate) mod picks;
pub(crate) mod ports;
pub(crate) mod renamed;
pub(crate) mod schema;
pub(crate) mod stage;
