//! `pipeline why FILE STAGE`: what differs from the nearest earlier run, then the chain.

use std::io::Write as _;

use engine::{State, explain};

use crate::exit::Stop;
use crate::house::{ExperimentArguments, House, Use};
use crate::terminal;

/// Say why a stage is a hit or must run: what changed since the nearest earlier run.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: ExperimentArguments,
    /// The stage: `name` or `name[axis=variant]`.
    stage: String,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let house = House::open(&arguments.experiment, Use::Look)?;
    let mut out = terminal::stdout();
    for node in house.select(&arguments.stage)? {
        let label = house.plan.nodes()[node].label();
        let explanation = explain(&house.plan, &house.keys, house.cache.as_ref(), node)?;
        let verdict = match explanation.state {
            State::Hit => "is a hit",
            State::Run => "must run",
            State::Maybe => "may run: it depends on what its inputs come out as",
            State::NotNeeded => "is not there, and nothing needs it",
        };
        writeln!(out, "{label} {verdict}  (recipe {})", explanation.key.short())?;
        for (position, link) in explanation.chain.iter().enumerate() {
            let indent = if position == 0 { "  " } else { "    " };
            if position > 0 {
                writeln!(out, "  because of {}", link.stage)?;
            }
            if !link.was_seen {
                writeln!(out, "{indent}no earlier run of it is remembered")?;
            } else if link.changes.is_empty() {
                writeln!(out, "{indent}nothing has changed since it was last asked for")?;
            }
            for change in &link.changes {
                let place = change.place.as_ref().map_or_else(String::new, |place| format!(" ({place})"));
                writeln!(out, "{indent}{} {} -> {}{place}", change.what, change.before, change.after)?;
            }
        }
    }
    Ok(())
}
