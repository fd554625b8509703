//! `pipeline schema`: a JSON Schema, so that editors complete and check experiment files.

use std::io::Write as _;
use std::path::PathBuf;

use engine::{Experiment, Request};

use crate::error::CliError;
use crate::{session, terminal};

/// Print a JSON Schema of experiment files.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// An experiment file whose own kinds are part of the schema.
    file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// [`CliError`] if the file cannot be read. What is wrong in it is for `plan` to say.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let own_kinds = match arguments.file {
        Some(file) => {
            session::read_text(&file).map_err(|error| CliError::reading(&file, &error))?;
            Experiment::load(&Request::new(file), stages::KINDS, &session::read_text).own_kinds()
        }
        None => Vec::new(),
    };
    let schema = engine::schema(stages::KINDS, &own_kinds);
    let text = serde_json::to_string_pretty(&schema).expect("a schema is plain data");
    Ok(writeln!(terminal::stdout(), "{}", terminal::json(&text))?)
}
