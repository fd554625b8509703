//! What a state looks like, so that all drawings agree.

use crate::graph::value::{Edge, Graph, Node, State};

/// Lists the states in the order of the legend.
const STATES: [State; 5] = [State::Hit, State::Run, State::Maybe, State::Failed, State::Unknown];

impl State {
    /// Returns the word for people who see no colours.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hit => "cached",
            Self::Run => "to run",
            Self::Maybe => "maybe",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the identifier of its class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Run => "run",
            Self::Maybe => "maybe",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the colour of its surface.
    pub(crate) fn fill(self) -> &'static str {
        match self {
            Self::Hit => "#e6f4ea",
            Self::Run => "#e3eefb",
            Self::Maybe => "#fdf3d7",
            Self::Failed => "#fde4e1",
            Self::Unknown => "#f1f2f4",
        }
    }

    /// Returns the colour of its border; dark enough for white upon it.
    pub(crate) fn stroke(self) -> &'static str {
        match self {
            Self::Hit => "#2f7d46",
            Self::Run => "#2563b0",
            Self::Maybe => "#96690a",
            Self::Failed => "#b3261e",
            Self::Unknown => "#6b7280",
        }
    }
}

impl Node {
    /// Returns the kind, with the number of copies if there are several.
    pub(crate) fn subtitle(&self) -> String {
        if self.copies > 1 { format!("{} ×{}", self.kind, self.copies) } else { self.kind.clone() }
    }
}

impl Graph {
    /// Returns the states that occur, in the order of the legend.
    pub(crate) fn states(&self) -> Vec<State> {
        let occurs = |state: &State| self.nodes.iter().any(|node| node.state == *state);
        STATES.into_iter().filter(occurs).collect()
    }

    /// Returns the edges whose ends exist.
    pub(crate) fn valid_edges(&self) -> impl Iterator<Item = &Edge> {
        let count = self.nodes.len();
        self.edges.iter().filter(move |edge| edge.from < count && edge.to < count)
    }
}
