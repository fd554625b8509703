//! `pipeline completions SHELL`: a script that completes commands in a shell.

use std::io;

use clap::CommandFactory as _;

use crate::exit::Stop;

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
    Ok(io::Write::write_all(&mut io::stdout().lock(), &script)?)
}
