//! Renders a finished table for people and for machines.
//!
//! Every rendering starts from the same settled copy, in which what is not a number has become
//! missing, and rounding happens here and nowhere else.

mod csv;
mod faces;
mod json;
mod markdown;
mod number;
mod settle;
mod text;

pub use csv::csv;
pub use json::json;
pub use markdown::markdown;
pub use number::number;
pub use text::text;
