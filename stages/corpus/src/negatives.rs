//! Dispreferred answers: what a weaker model says of the same input.
//!
//! The papers' triples are (x, y_w, y_l): the target of a row is preferred, and what another
//! model, MolT5, made of the same input is not.

mod outputs;
mod rejected;
mod report;

pub use outputs::{MatchedBy, Output, Outputs};
pub use rejected::{NegativesError, OnEmpty, Rejected, unpaired};
pub use report::NegativesReport;
