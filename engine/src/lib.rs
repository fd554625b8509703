//! Experiment files to plans, keys, artifacts and tables.
//!
//! The crate knows graphs: stages with typed ports, axes that multiply them, keys that name
//! their work, and how to run what is missing. It refuses to know what the stages do: no word
//! of learning is in here, and a stage kind reaches it only as a [`Kind`].
//!
//! ```
//! use engine::{ArtifactType, Context, StageFailure, Kind, NoTuning, Ports, Stage};
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
//!     type Tuning = NoTuning;
//!
//!     fn ports(_: &Params) -> Ports {
//!         Ports::new().output("text", ArtifactType::new("text"))
//!     }
//!
//!     fn run(params: &Params, _: &NoTuning, context: &mut Context) -> Result<(), StageFailure> {
//!         let file = context.output("text")?.join("greeting.txt");
//!         std::fs::write(&file, format!("hello {}", params.name)).map_err(StageFailure::writing(&file))
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

mod experiment;
mod inspect;
mod kind;
mod plan;
mod process;
mod run;
mod table;
pub mod testing;
mod toml;

pub use choice::{Component, FieldError};
pub use experiment::spec::{Experiment, Request};
pub use inspect::explain::{Change, Explanation, Link, explain};
pub use inspect::reasons::{Cause, RunReason, RunReasons};
pub use inspect::status::{StageState, State, forecast};
pub use kind::context::{Context, Input};
pub use kind::failure::{StageFailure, with_causes};
pub use kind::input_file::{InputFile, NamedFile, SourceFiles};
pub use kind::memory::{Amount, Estimate, EstimateContext, Machine, Memory, Need, OutputHint};
pub use kind::output_column::{Better, Definition, OutputColumn};
pub use kind::picks::{By, Pick};
pub use kind::ports::{Accepts, ArtifactType, OutputPort, Ports, Resources};
pub use kind::schema::schema;
pub use kind::stage::{Excerpt, Isolation, Kind, NoTuning, Parsed, ReadExcerpt, Stage};
pub use plan::graph::{Plan, UnreadableFile};
pub use plan::key::Keys;
pub use plan::memory_forecast::{Fit, MemoryForecast};
pub use plan::node::{Edge, Node};
pub use plan::resolved::{ResolvedValue, resolved};
pub use plan::stage_graph::{PlannedStage, StageEdge, StageGraph, stage_graph};
pub use plan::table::planned::Column;
pub use process::cancel::{Cancel, while_nothing_starts};
pub use process::device::Device;
pub use process::job::{Job, JobInput, Progress, Reason};
pub use process::program::{Ended, Program};
pub use process::sandbox::Sandbox;
pub use run::events::{Comparison, Event, RunError, RunOptions, RunReport, StageResult};
pub use run::scheduler::run;
pub use run::worker::run_worker;
pub use table::cells::{Cell, CellValue, Delta, DeltaCell, Provenance, Row, RowOrigin, Table};
pub use table::fill::fill;
pub use toml::diagnostic::{LocatedDiagnostic, Report};
