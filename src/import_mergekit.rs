//! `pipeline import-mergekit`: a recipe of mergekit as stages of an experiment.

use std::io::Write as _;
use std::path::PathBuf;

use crate::error::CliError;
use crate::session::read_text;
use crate::terminal;

/// Convert a recipe of mergekit into stages of an experiment.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The recipe, a YAML file.
    file: PathBuf,
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> Result<(), CliError> {
    let file = &arguments.file;
    let recipe = read_text(file).map_err(|error| CliError::reading(file, &error))?;
    let stages = stages::import_mergekit(&recipe)
        .map_err(|problem| CliError::Input(format!("{}: {problem}", file.display())))?;
    Ok(write!(terminal::data(), "{stages}")?)
}
