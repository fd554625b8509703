//! The nodes of a plan, and what enters them.

use std::ops::Range;
use std::path::PathBuf;

use cache::Value;
use choice::Component;

use crate::experiment::axes::Assignment;
use crate::kind::name::Name;
use crate::kind::ports::{OutputPort, Resources};
use crate::kind::stage::Kind;
use crate::toml::diagnostic::Diagnostic;
use crate::toml::source_map::Span;

/// One stage with one variant of each of its axes.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) stage: usize,
    pub(crate) label: String,
    pub(crate) assignment: Assignment,
    pub(crate) kind: &'static Kind,
    /// All parameters; files as absolute paths.
    pub(crate) params: Value,
    /// How it is computed; outside the key.
    pub(crate) tuning: Value,
    pub(crate) components: Vec<Component>,
    pub(crate) seed: Option<u64>,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) outputs: Vec<OutputPort>,
    pub(crate) resources: Resources,
}

/// What enters a node by a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The port.
    pub port: Name,
    /// The label, where a port gathers several.
    pub label: Option<String>,
    /// The node that makes it.
    pub from: usize,
    /// Which of its outputs.
    pub output: String,
}

/// A file that a parameter names.
#[derive(Debug, Clone)]
pub(crate) struct FileUse {
    /// As an absolute path, or as written where that cannot be told.
    pub path: PathBuf,
    /// What to do, where it cannot be told which file it is.
    pub unset: Option<String>,
    /// The nodes whose parameters name it.
    pub nodes: Range<usize>,
    pub span: Span,
    pub about: Option<String>,
}

impl FileUse {
    /// Says that it cannot be told which file it is.
    pub(crate) fn problem(&self) -> Option<Diagnostic> {
        let message = format!("`{}` cannot be found", self.path.display());
        self.unset.as_ref().map(|help| Diagnostic::new(self.span.clone(), message).help(help))
    }
}

impl Node {
    /// Returns `stage` or `stage[axis=variant,…]`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the stage kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Returns what enters it, by port.
    pub fn inputs(&self) -> &[Edge] {
        &self.inputs
    }

    /// Returns what it makes.
    pub fn outputs(&self) -> &[OutputPort] {
        &self.outputs
    }

    /// Returns what it needs of the machine.
    pub fn resources(&self) -> Resources {
        self.resources
    }
}
