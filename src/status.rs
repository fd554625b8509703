//! `pipeline status FILE`: per stage, done, running, missing or failed, and its log.

use std::io::{BufWriter, Write as _};

use engine::{State, forecast};

use crate::error::CliError;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;

/// Print for each stage whether it is done, running, missing or failed, and the path of its log.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open(&arguments.experiment, Use::Look)?;
    let states = forecast(&session.plan, &session.keys, session.cache.as_ref())?;
    let mut out = BufWriter::new(terminal::stdout());
    let width =
        session.plan.nodes().iter().map(|node| node.label().chars().count()).max().unwrap_or(0).min(60);
    let are_needed = (0..states.len()).all(|node| session.plan.is_needed(node));
    let column = if are_needed { 8 } else { 10 };
    for (at, (node, state)) in session.plan.nodes().iter().zip(&states).enumerate() {
        let mut word = match state.state {
            State::Hit => "done",
            _ if session.plan.is_needed(at) => "missing",
            _ => "not needed",
        };
        let mut more = String::new();
        if let Some(cache) = &session.cache {
            let last = session.last_execution(cache, at)?;
            if state.state != State::Hit && is_running(&session, &states, at) {
                word = "running";
            } else if let Some(last) = &last
                && state.state != State::Hit
                && last.outcome != "done"
            {
                word = "failed";
                more = format!("  {}: {}", last.outcome, terminal::one_line(&last.message));
            }
            let log = match &state.trace {
                Some(trace) => cache.index().manifest(trace.key)?.map(|manifest| manifest.log),
                None => last.map(|last| last.log),
            };
            if let Some(log) = log {
                more = format!("{more}  {}", cache.folder().join(log).display());
            }
        }
        writeln!(out, "{}", format!("{word:<column$} {:<width$}{more}", node.label()).trim_end())?;
    }
    Ok(out.flush()?)
}

/// Returns whether another run is making this node now.
fn is_running(session: &Session, states: &[engine::StageState], at: usize) -> bool {
    let Some(cache) = &session.cache else {
        return false;
    };
    let inputs = session.plan.nodes()[at].inputs().iter();
    let artifacts: Option<Vec<_>> =
        inputs.map(|edge| states[edge.from].trace.as_ref()?.output(&edge.output)).collect();
    let key = artifacts.and_then(|artifacts| session.keys.trace(&session.plan, at, &artifacts));
    key.is_some_and(|key| cache.is_held(key))
}
