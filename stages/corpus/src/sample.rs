//! Taking part of the rows, the same part every time.
//!
//! Every row gets a rank: a BLAKE3 hash of the seed and of the row's identity. The rows of the
//! lowest ranks are taken and stay in the order they came in. So a sample does not depend on
//! the order of the rows, and a smaller one is inside a larger one of the same seed.
//!
//! Where rows resemble each other in groups, the groups are ranked first, so that a sample is of
//! whole groups, all but one, and what is disjoint from it shares no group with it.

mod candidate;
mod fraction;
mod max_chars;
mod select;
mod take;

pub use crate::row::MissingField;
pub use candidate::{Candidate, Group, Identified, Identity, Traits};
pub use fraction::{Fraction, NotAFraction};
pub use max_chars::MaxChars;
pub use select::{
    Excluded, GroupReport, Identities, SampleError, SampleReport, Sampled, StratumReport, sample,
};
pub use take::{Sampling, Take};
