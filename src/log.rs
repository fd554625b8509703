//! `pipeline log FILE STAGE`: the log of a stage.

use std::io::Write as _;

use engine::forecast;

use crate::error::CliError;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;

/// Print the log of a stage: of the attempt that made its result, or else of the last attempt.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The stage: `name` or `name[axis=variant]`.
    stage: String,
    /// Print only the path of the log.
    #[arg(long)]
    path: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open_for(&arguments.experiment, Use::Look, &[&arguments.stage])?;
    let node = session.select_one(&arguments.stage)?;
    let cache = session.cache(&arguments.experiment)?;
    let state = &forecast(&session.plan, &session.keys, Some(cache))?[node];
    let of_result = match &state.trace {
        Some(trace) => cache.index().manifest(trace.key)?.map(|manifest| manifest.log),
        None => None,
    };
    let log = match of_result {
        Some(log) => Some(log),
        None => session.last_execution(cache, node)?.map(|last| last.log),
    };
    let label = session.plan.nodes()[node].label();
    let Some(log) = log else {
        return Err(CliError::NotMade(format!("`{label}` has not been run, so it has no log")));
    };
    let path = cache.folder().join(log);
    if arguments.path {
        return Ok(writeln!(terminal::stdout(), "{}", path.display())?);
    }
    let text = std::fs::read(&path)
        .map_err(|error| CliError::failed(&format!("read the log {}", path.display()), &error))?;
    Ok(terminal::data().write_all(&text)?)
}
