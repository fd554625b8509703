//! `pipeline why FILE STAGE`: what differs from the most similar earlier run, and upstream of it.

use std::io::Write as _;

use engine::{State, explain};

use crate::error::CliError;
use crate::session::{ExperimentArguments, Session, Use};
use crate::terminal;

/// Explain why a stage is a hit or must run: what changed since the most similar earlier run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The stage: `name` or `name[axis=variant]`.
    stage: String,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let session = Session::open_for(&arguments.experiment, Use::Look, &[&arguments.stage])?;
    let mut out = terminal::stdout();
    for node in session.select(&arguments.stage)? {
        let label = session.plan.nodes()[node].label();
        let explanation = explain(&session.plan, &session.keys, session.cache.as_ref(), node)?;
        let verdict = match explanation.state {
            State::Hit => "is a hit",
            State::Run => "must run",
            State::Maybe => "may run: it depends on the content of its inputs",
            State::NotNeeded => "has no result, and nothing needs it",
        };
        let key = explanation.key.map_or_else(|| "not known".to_owned(), |key| key.short());
        writeln!(out, "{label} {verdict}  (recipe {key})")?;
        for (position, link) in explanation.chain.iter().enumerate() {
            let indent = if position == 0 { "  " } else { "    " };
            if position > 0 {
                writeln!(out, "  because of {}", link.stage)?;
            }
            if !link.was_seen {
                writeln!(out, "{indent}no earlier run of it is known")?;
            } else if link.changes.is_empty() {
                writeln!(out, "{indent}nothing has changed since the last run that included it")?;
            }
            for change in &link.changes {
                let place = change.place.as_ref().map_or_else(String::new, |place| format!(" ({place})"));
                writeln!(out, "{indent}{} {} -> {}{place}", change.what, change.before, change.after)?;
            }
        }
    }
    Ok(())
}
