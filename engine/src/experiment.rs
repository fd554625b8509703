//! What the user wrote: files, profile and overrides as one experiment, not yet planned.

pub(crate) mod assemble;
pub(crate) mod axes;
pub(crate) mod combinations;
pub(crate) mod defaults;
pub(crate) mod excerpts;
pub(crate) mod layers;
pub(crate) mod load;
pub(crate) mod own_kind;
pub(crate) mod published;
pub(crate) mod reference;
pub(crate) mod seeds;
pub(crate) mod settings;
pub(crate) mod spec;
pub(crate) mod stage_layers;
pub(crate) mod table_layers;
pub(crate) mod table_spec;
