//! Draws a graph of stages: for Graphviz, for Mermaid, and as a picture that needs neither.

mod dot;
mod layout;
mod look;
mod mermaid;
mod svg;

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;

/// Holds a graph to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// Is the heading.
    pub title: String,
    /// Lists the stages.
    pub nodes: Vec<Node>,
    /// Lists what flows between them; an edge that names no node is not drawn.
    pub edges: Vec<Edge>,
}

/// Holds a stage, with all its copies along axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Names the stage.
    pub name: String,
    /// Names its kind.
    pub kind: String,
    /// Counts its copies.
    pub copies: usize,
    /// Says what would happen to it.
    pub state: State,
}

/// Says what would happen to a stage, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Marks a stage whose artifact is in the cache.
    Hit,
    /// Marks a stage that has to run.
    Run,
    /// Marks a stage that runs only if its inputs turn out to be new.
    Maybe,
    /// Marks a stage that failed.
    Failed,
    /// Marks a stage of which nothing is known.
    Unknown,
}

/// Holds an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Is the index of the node that makes the artifact.
    pub from: usize,
    /// Is the index of the node that reads it.
    pub to: usize,
    /// Names the port it is read through.
    pub port: String,
}
