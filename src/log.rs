//! `pipeline log FILE STAGE`: what a stage wrote to its log.

use std::io::Write as _;

use engine::forecast;

use crate::exit::Stop;
use crate::house::{ExperimentArguments, House, Use};
use crate::terminal;

/// Print the log of a stage: of the run that made its result, or else of the last attempt.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The stage: `name` or `name[axis=variant]`.
    stage: String,
    /// Print only where the log is.
    #[arg(long)]
    path: bool,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let house = House::open(&arguments.experiment, Use::Look)?;
    let node = house.select_one(&arguments.stage)?;
    let cache = house.cache(&arguments.experiment)?;
    let state = &forecast(&house.plan, &house.keys, Some(cache))?[node];
    let of_result = match &state.trace {
        Some(trace) => cache.index().manifest(trace.key)?.map(|manifest| manifest.log),
        None => None,
    };
    let log = match of_result {
        Some(log) => Some(log),
        None => cache.index().last_execution(house.keys.recipe(node))?.map(|last| last.log),
    };
    let label = house.plan.nodes()[node].label();
    let Some(log) = log else {
        return Err(Stop::Usage(format!("`{label}` has not been run, so it has no log")));
    };
    let path = cache.folder().join(log);
    if arguments.path {
        return Ok(writeln!(terminal::stdout(), "{}", path.display())?);
    }
    let text = std::fs::read(&path)
        .map_err(|error| Stop::Io(format!("failed to read the log {}: {error}", path.display())))?;
    Ok(terminal::data().write_all(&text)?)
}
