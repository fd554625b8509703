//! `pipeline completions SHELL`: a script that completes commands in a shell.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::exit::Stop;
use crate::terminal;

/// Write a script that completes commands in a shell.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "pipeline", &mut script);
    Ok(terminal::stdout().write_all(&script)?)
}
