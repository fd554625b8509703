//! Draws a graph of stages: for Graphviz, for Mermaid, and as a picture that needs neither.

mod dot;
mod layout;
mod look;
mod mermaid;
mod svg;
mod value;

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;
pub use value::{Edge, Graph, Node, State};
