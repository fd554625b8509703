//! `pipeline graph FILE`: the stages as a drawing.

use std::io::Write as _;

use engine::{DrawnState, State, drawing, forecast};

use crate::exit::Stop;
use crate::house::{ExperimentArguments, House, Use};
use crate::terminal;

/// Draw the stages, coloured by what would happen to them.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// In which language.
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Graphviz.
    Dot,
    /// Mermaid, as GitHub shows it.
    Mermaid,
    /// A picture.
    Svg,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let house = House::open(&arguments.experiment, Use::Look)?;
    let states = forecast(&house.plan, &house.keys, house.cache.as_ref())?;
    let mut drawn = Vec::with_capacity(states.len());
    for (at, state) in states.iter().enumerate() {
        let has_failed = match (&house.cache, state.state) {
            (Some(cache), State::Run | State::Maybe) => cache
                .index()
                .last_execution(house.keys.recipe(at))?
                .is_some_and(|last| last.outcome != "done"),
            _ => false,
        };
        drawn.push(match state.state {
            _ if has_failed => DrawnState::Failed,
            State::Hit => DrawnState::Hit,
            State::Run => DrawnState::Run,
            State::Maybe => DrawnState::Maybe,
            State::NotNeeded => DrawnState::Unknown,
        });
    }
    let drawing = drawing(&house.plan, &|node| drawn[node]);
    let text = match arguments.format {
        Format::Dot => engine::dot(&drawing),
        Format::Mermaid => engine::mermaid(&drawing),
        Format::Svg => engine::svg(&drawing),
    };
    Ok(terminal::stdout().write_all(text.as_bytes())?)
}
