//! The text of an experiment: values that know where they were written, and reports that point there.

pub(crate) mod deserialize;
pub(crate) mod diagnostic;
pub(crate) mod parse;
pub(crate) mod source_map;
pub(crate) mod value;
