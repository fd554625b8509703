//! What goes into a stage, what comes out, and what it needs of the machine.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kind::name::{InvalidName, Name};
use crate::kind::output_column::OutputColumn;

/// The type of an artifact. The engine compares types and knows none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArtifactType(Cow<'static, str>);

impl ArtifactType {
    /// Names a type.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl From<String> for ArtifactType {
    fn from(name: String) -> Self {
        Self(Cow::Owned(name))
    }
}

impl fmt::Display for ArtifactType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which artifacts an input port takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepts {
    /// Artifacts of these types.
    Only(Vec<ArtifactType>),
    /// Artifacts of every type.
    Any,
}

impl Accepts {
    pub(crate) fn takes(&self, artifact_type: &ArtifactType) -> bool {
        match self {
            Self::Only(types) => types.contains(artifact_type),
            Self::Any => true,
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Only(types) => {
                types.iter().map(|artifact_type| artifact_type.name()).collect::<Vec<_>>().join(" or ")
            }
            Self::Any => "anything".to_owned(),
        }
    }
}

/// How many artifacts an input port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    One,
    ZeroOrOne,
    OneOrMore,
    Many,
}

impl Arity {
    /// Says whether a stage without it cannot run.
    pub(crate) fn is_needed(self) -> bool {
        matches!(self, Self::One | Self::OneOrMore)
    }

    /// Says whether it takes a list.
    pub(crate) fn takes_several(self) -> bool {
        matches!(self, Self::OneOrMore | Self::Many)
    }
}

/// A named input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputPort {
    pub name: String,
    pub accepts: Accepts,
    pub arity: Arity,
}

/// A named output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPort {
    /// Its name.
    pub name: Name,
    /// The type of what it makes.
    pub artifact_type: ArtifactType,
    /// The numbers that a table can take from its `metrics.json`.
    pub columns: Vec<OutputColumn>,
}

/// What goes into a stage and what comes out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    pub(crate) inputs: Vec<InputPort>,
    pub(crate) rest: Option<Accepts>,
    pub(crate) outputs: Vec<OutputPort>,
    /// The first output whose name cannot be one.
    pub(crate) invalid: Option<InvalidName>,
}

impl Ports {
    /// Starts without ports.
    pub fn new() -> Self {
        Self::default()
    }

    fn with_input(mut self, name: &str, accepts: Accepts, arity: Arity) -> Self {
        self.inputs.push(InputPort { name: name.to_owned(), accepts, arity });
        self
    }

    /// Adds an input that must be given.
    pub fn input(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::One)
    }

    /// Adds an input that may be left out.
    pub fn optional(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::ZeroOrOne)
    }

    /// Adds an input that takes one artifact or more, in order.
    pub fn several(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::OneOrMore)
    }

    /// Adds an input that takes any number of artifacts, in order.
    pub fn many(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.with_input(name, Accepts::Only(vec![artifact_type]), Arity::Many)
    }

    /// Takes inputs of every other name.
    pub fn any_other_inputs(mut self, accepts: Accepts) -> Self {
        self.rest = Some(accepts);
        self
    }

    /// Adds an output. The first one is meant where a reference names none.
    pub fn output(self, name: &str, artifact_type: ArtifactType) -> Self {
        self.scored_output(name, artifact_type, Vec::new())
    }

    /// Adds an output with numbers for tables in its `metrics.json`.
    pub fn scored_output(
        mut self,
        name: &str,
        artifact_type: ArtifactType,
        columns: Vec<OutputColumn>,
    ) -> Self {
        match Name::new(name) {
            Ok(name) => self.outputs.push(OutputPort { name, artifact_type, columns }),
            Err(invalid) => {
                self.invalid.get_or_insert(invalid);
            }
        }
        self
    }

    /// Returns the numbers that tables can take from any of the outputs.
    pub fn columns(&self) -> impl Iterator<Item = &OutputColumn> {
        self.outputs.iter().flat_map(|output| &output.columns)
    }

    pub(crate) fn port(&self, name: &str) -> Option<(&Accepts, Arity)> {
        let named = self.inputs.iter().find(|port| port.name == name);
        named
            .map(|port| (&port.accepts, port.arity))
            .or_else(|| self.rest.as_ref().map(|accepts| (accepts, Arity::Many)))
    }
}

/// What a stage needs of the machine while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor cores.
    pub cores: u32,
    /// Memory in bytes; 0 where it does not matter.
    pub memory_bytes: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cores: 1, memory_bytes: 0 }
    }
}
