//! Experiment files to plans, keys, artifacts and tables.
//!
//! The crate knows graphs: stages with typed ports, axes that multiply them, keys that name
//! their work, and how to run what is missing. It refuses to know what the stages do: no word
//! of learning is in here, and a stage kind reaches it only as a [`Kind`].
//!
//! ```
//! use engine::{ArtifactType, Context, Failure, Kind, Ports, Stage};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! /// Writes a greeting.
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Params {
//!     name: String,
//! }
//!
//! struct Greet;
//!
//! impl Stage for Greet {
//!     const KIND: &'static str = "greet";
//!     const VERSION: u32 = 1;
//!     type Params = Params;
//!
//!     fn ports(_: &Params) -> Ports {
//!         Ports::new().output("text", ArtifactType::new("text"))
//!     }
//!
//!     fn run(params: &Params, context: &mut Context) -> Result<(), Failure> {
//!         let file = context.output("text")?.join("greeting.txt");
//!         std::fs::write(&file, format!("hello {}", params.name)).map_err(Failure::writing(&file))
//!     }
//! }
//!
//! const KINDS: &[Kind] = &[Kind::of::<Greet>()];
//! let text = "[stages.hello]\nkind = 'greet'\nname = 'you'\n";
//! let request = engine::Request::new("hello.toml");
//! let experiment = engine::Experiment::load(&request, KINDS, &|_| Ok(text.to_owned()));
//! let plan = engine::Plan::new(experiment)?;
//! assert_eq!(plan.nodes()[0].label(), "hello");
//! # Ok::<(), engine::Report>(())
//! ```

mod arrivals;
mod axes;
mod cells;
mod diagnostic;
mod document;
mod draft;
mod draw;
mod execute;
mod experiment;
mod explain;
mod files;
mod fixed;
mod foresight;
mod job;
mod key;
mod name;
mod node;
mod perform;
mod plan;
mod process;
mod reference;
mod render;
mod repair;
mod resolved;
mod run;
mod sandbox;
mod schedule;
mod schema;
mod settings;
mod signal;
mod source_map;
mod stage;
mod status;
mod supervisor;
mod table;

pub use cells::{Better, Cell, CellValue, Column, Delta, DeltaCell, Provenance, Row, RowOrigin, Table};
pub use choice::Part;
pub use diagnostic::{Problem, Report};
pub use draw::{Drawing, State as DrawnState, dot, mermaid, svg};
pub use execute::work;
pub use experiment::{Experiment, Request};
pub use explain::{Change, Explanation, Link, explain};
pub use files::{InputFile, NamedFile, SourceFiles};
pub use foresight::{Amount, Fit, Foreseen, Foresight, Machine, Memory, Need, Outlook, Sketch};
pub use job::{Device, Job, JobInput, Outcome, Reason};
pub use key::Keys;
pub use plan::{Edge, FileProblem, Node, Plan};
pub use process::{Cancel, Ended, Program, while_nothing_starts};
pub use render::{csv, json, markdown, number, text};
pub use resolved::{ResolvedValue, resolved};
pub use run::{Comparison, Event, Progress, RunError, RunOptions, RunReport, StageResult, run};
pub use sandbox::Sandbox;
pub use schema::schema;
pub use stage::{
    Accepts, ArtifactType, Context, Failure, Input, Kind, OutputPort, Parsed, Place, Ports, Resources, Stage,
};
pub use status::{StageState, State, drawing, forecast};
pub use table::fill;
