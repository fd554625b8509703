//! `pipeline worker JOB`: does one job in a separate process. Started by a run.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::error::CliError;

/// Do the job described in a file. Started by `run`, not by hand.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    job: PathBuf,
}

/// How long the allocator waits before it returns unused memory to the system. Each training step
/// allocates what the one before it freed; with the default, a tenth of its time went into pages
/// that were returned, fetched again and cleared.
const KEEP_MEMORY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "-1");

/// The file of the running program, even if another is at its path by now: a program that is rebuilt
/// during a run must not do the rest of its work.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let (name, value) = KEEP_MEMORY;
    if std::env::var_os(name).is_none() {
        // The allocator reads it once, when the process starts. If the process cannot be started
        // again, it works as it is.
        let _ = Command::new(THIS_PROGRAM).arg("worker").arg(&arguments.job).env(name, value).exec();
    }
    // A failure of the stage is part of the outcome; this is one to read the job or write the outcome.
    engine::run_worker(&arguments.job, stages::KINDS).map_err(|failure| CliError::Io(failure.message))
}
