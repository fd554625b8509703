//! Renders a finished table for people and for machines.
//!
//! Every rendering starts from the same normalized copy, in which what is not a number has become
//! missing, and rounding happens here and nowhere else.

mod cells;
mod csv;
mod formatted;
mod json;
mod markdown;
mod normalize;
mod number;
mod text;

pub use cells::{Better, Cell, CellValue, Column, Delta, DeltaCell, Provenance, Row, RowOrigin, Table};
pub use csv::csv;
pub use json::json;
pub use markdown::markdown;
pub use number::number;
pub use text::text;
