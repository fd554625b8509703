//! `pipeline graph FILE`: a drawing of the stages.

use std::io::Write as _;

use engine::{State, forecast};
use report::graph;

use crate::convert;
use crate::error::CliError;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;

/// Draw the graph of stages, coloured by what a run would do.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The format of the drawing.
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Graphviz.
    Dot,
    /// Mermaid, as GitHub shows it.
    Mermaid,
    /// An SVG image.
    Svg,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open(&arguments.experiment, Use::Look)?;
    let states = forecast(&session.plan, &session.keys, session.cache.as_ref())?;
    let mut drawn = Vec::with_capacity(states.len());
    for (at, state) in states.iter().enumerate() {
        let has_failed = match (&session.cache, state.state) {
            (Some(cache), State::Run | State::Maybe) => {
                session.last_execution(cache, at)?.is_some_and(|last| last.outcome != "done")
            }
            _ => false,
        };
        drawn.push(match state.state {
            _ if has_failed => graph::State::Failed,
            State::Hit => graph::State::Hit,
            State::Run => graph::State::Run,
            State::Maybe => graph::State::Maybe,
            State::NotNeeded => graph::State::Unknown,
        });
    }
    let graph = convert::graph(&session.plan, &drawn);
    let text = match arguments.format {
        Format::Dot => graph::dot(&graph),
        Format::Mermaid => graph::mermaid(&graph),
        Format::Svg => graph::svg(&graph),
    };
    Ok(terminal::stdout().write_all(text.as_bytes())?)
}
