//! `pipeline schema`: a JSON Schema, so that editors complete and check experiment files.

use std::io::Write as _;

use crate::error::CliError;
use crate::terminal;

/// Print a JSON Schema of experiment files.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Runs the command.
pub(crate) fn run(_: Arguments) -> Result<(), CliError> {
    let schema = engine::schema(stages::KINDS);
    let text = serde_json::to_string_pretty(&schema).expect("a schema is plain data");
    Ok(writeln!(terminal::stdout(), "{}", terminal::json(&text))?)
}
