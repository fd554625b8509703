//! `pipeline why FILE STAGE`: what differs from the most similar earlier run, and where that comes from.

use std::io::Write as _;

use engine::{Change, State, explain};

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
    /// Print the changes of all stages from this one up to the causes.
    #[arg(long)]
    chain: bool,
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
        if let Some(first) = explanation.chain.first() {
            if !first.was_seen {
                writeln!(out, "  no earlier run of it is known")?;
            } else if first.changes.is_empty() {
                writeln!(out, "  nothing has changed since the last run that included it")?;
            }
        }
        for (stage, change) in explanation.causes() {
            let of = if stage == label { String::new() } else { format!("{stage}: ") };
            writeln!(out, "  {of}{}", written(change))?;
        }
        let links = explanation.chain.iter().filter(|link| arguments.chain && !link.changes.is_empty());
        for (position, link) in links.enumerate() {
            let because = if position == 0 { "chain:" } else { "because of" };
            writeln!(out, "  {because} {}", link.stage)?;
            for change in &link.changes {
                writeln!(out, "    {}", written(change))?;
            }
        }
    }
    Ok(())
}

fn written(Change { what, before, after, place, .. }: &Change) -> String {
    let place = place.as_ref().map_or_else(String::new, |place| format!(" ({place})"));
    format!("{what} {before} -> {after}{place}")
}
