//! `pipeline worker JOB`: does one job in a process of its own. Started by a run.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::exit::Stop;

/// Do the job described in a file. Started by a run, not by hand.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    job: PathBuf,
}

/// How long the allocator waits before it gives unused memory back to the system. A step of a
/// training asks for again what the one before it let go; by default a tenth of its time went
/// into pages that were given back, fetched again and cleared.
const KEEP_MEMORY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "-1");

/// The file of the program that runs, whatever lies at its path by now: a program that was built
/// anew while it ran must not do the rest of its work.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let (name, value) = KEEP_MEMORY;
    if std::env::var_os(name).is_none() {
        // The allocator reads it once, as the process begins. Where the process cannot begin
        // again, it works as it is.
        let _ = Command::new(THIS_PROGRAM).arg("worker").arg(&arguments.job).env(name, value).exec();
    }
    engine::work(&arguments.job, stages::KINDS).map_err(|failure| Stop::Usage(failure.message().to_owned()))
}
