//! `pipeline guard`: ends what a killed run leaves running. Started by a run.

use crate::exit::Stop;

/// End what a killed run leaves running. Started by a run, not by hand.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_: Arguments) -> Result<(), Stop> {
    engine::guard();
    Ok(())
}
