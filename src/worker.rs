//! `pipeline worker JOB`: does one job in a process of its own. Started by a run.

use std::path::PathBuf;

use crate::exit::Stop;

/// Do the job described in a file. Started by a run, not by hand.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    job: PathBuf,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    engine::work(&arguments.job, stages::KINDS).map_err(|failure| Stop::Usage(failure.message().to_owned()))
}
