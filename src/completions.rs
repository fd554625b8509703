//! `pipeline completions SHELL`: a script that completes commands in a shell.

use std::io::Write as _;

use crate::error::CliError;
use crate::terminal;

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments, mut command: clap::Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "pipeline", &mut script);
    Ok(terminal::stdout().write_all(&script)?)
}
