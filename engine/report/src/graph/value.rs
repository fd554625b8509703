//! A graph of stages as plain values.

/// A graph of stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The heading.
    pub title: String,
    /// The stages.
    pub nodes: Vec<Node>,
    /// What flows between them; an edge that names no node is not drawn.
    pub edges: Vec<Edge>,
}

/// A stage, with all its copies along axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How many copies it has.
    pub copies: usize,
    /// What would happen to it.
    pub state: State,
}

/// What would happen to a stage, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its artifact is in the cache.
    Hit,
    /// It has to run.
    Run,
    /// It runs only if its inputs turn out to be new.
    Maybe,
    /// It failed.
    Failed,
    /// Nothing is known of it.
    Unknown,
}

/// An edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The index of the node that makes the artifact.
    pub from: usize,
    /// The index of the node that reads it.
    pub to: usize,
    /// The port it is read through.
    pub port: String,
}
